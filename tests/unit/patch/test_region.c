/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Former regions: one whose pad threads may be at becomes the region of the next window that is the same, and of no
 * other, be it in the same line of code and of the same bytes.
 */
#include "patch/region.h"

#include "trap/registry.h"

#include <criterion/criterion.h>

#define BASE 0x555500000000UL
#define LENGTH 5

static struct region *create(uintptr_t start)
{
	static const uint8_t original[] = { 0xB8, 0x78, 0x56, 0x34, 0x12 };
	static const uint8_t offsets[] = { 0, LENGTH };
	const struct window window = {
		.start = start,
		.length = LENGTH,
		.count = 1,
		.strategy = PATCH_STRATEGY_JUMP,
		.offsets = offsets,
		.original = original,
	};
	struct region *region = region_create(&window, false);

	cr_assert_not_null(region);
	cr_assert(region_make_entries(region));
	return region;
}

static struct region *create_former(uintptr_t start)
{
	struct region *region = create(start);

	region->pad_reachable = true;
	region_discard(region);
	return region;
}

Test(region, former)
{
	struct region *first, *second, *leaving = NULL;

	first = create_former(BASE);
	second = create_former(BASE + LENGTH);
	cr_expect_neq(second, first);
	cr_expect_eq(create(BASE), first);
	cr_expect_neq(create(BASE), first, "it is none any more");
	cr_expect_eq(create(BASE + LENGTH), second);

	region_discard(first);
	region_discard(second);
	region_leave_former(registry_find(BASE), &leaving);
	cr_expect_eq(leaving, first);
	cr_expect_null(leaving->former);
	cr_expect_eq(create(BASE + LENGTH), second, "its code stays");
}

/* What begins there is needed for the entry to be found; what begins beside it is no reason to keep it. */
Test(region, entries)
{
	struct region *former;

	former = create_former(BASE);
	region_discard(create(BASE + LENGTH));
	cr_expect_null(registry_find(BASE + LENGTH));
	cr_expect_not_null(registry_find(BASE));
	cr_expect_eq(create(BASE), former);
}
