/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/scratch.h: blocks do not overlap, and what is given back is taken again; misuse is a bug, and does no damage. */
#include "base/error.h"
#include "base/bug.h"
#include "base/scratch.h"

#include <criterion/criterion.h>
#include <string.h>

/* The first error since this was asked last. */
static patch_status last_error(void)
{
	static const struct error_chain none;
	struct patch_error error;
	patch_status status = error_last(&error);

	error_restore(&none);
	return status;
}

static void begin(void)
{
	libpatch_bugs_are_fatal = false;
	error_begin();
}

Test(scratch, blocks_are_apart, .init = begin)
{
	uint8_t *first = scratch_take(100);
	uint8_t *second = scratch_take(1);
	uint8_t *third = scratch_take(1000);

	cr_assert(first != NULL && second != NULL && third != NULL);
	cr_expect(((uintptr_t)first | (uintptr_t)second | (uintptr_t)third) % 64 == 0);
	cr_expect(second >= first + 100 && third >= second + 1);
	scratch_give(third, 1000);
	cr_expect_eq(scratch_take(2000), third);
	scratch_give(third, 2000);
	scratch_give(second, 1);
	scratch_give(first, 100);
	scratch_end();
	cr_expect_eq(last_error(), PATCH_OK);
}

/* What a block held is gone, in the build for tests: nothing can rely on it. */
Test(scratch, contents_do_not_stay, .init = begin)
{
	uint8_t *block = scratch_take(100);

	memset(block, 0, 100);
	scratch_give(block, 100);
	cr_expect(block[0] != 0 && block[99] != 0);
	cr_expect_eq(scratch_take(100), block);
	cr_expect(block[0] != 0 && block[99] != 0);
}

Test(scratch, has_an_end, .init = begin)
{
	uint8_t *all = scratch_take(SCRATCH_SIZE - 64);
	uint8_t *last = scratch_take(64);

	cr_expect_eq(last, all + SCRATCH_SIZE - 64);
	cr_expect_eq(last_error(), PATCH_OK);
	cr_expect_null(scratch_take(1));
	cr_expect_eq(last_error(), PATCH_BUG);
	cr_expect_null(scratch_take(SIZE_MAX));
	cr_expect_eq(last_error(), PATCH_BUG);
	/* Nothing has changed. */
	scratch_give(NULL, 1);
	scratch_give(last, 64);
	cr_expect_eq(scratch_take(64), last);
	cr_expect_eq(last_error(), PATCH_OK);
}

Test(scratch, is_given_back_in_order, .init = begin)
{
	uint8_t *first = scratch_take(100);
	uint8_t *second = scratch_take(200);

	scratch_give(first, 100);
	cr_expect_eq(last_error(), PATCH_BUG);
	scratch_give(second, 100);
	cr_expect_eq(last_error(), PATCH_BUG);
	/* Both are still taken. */
	cr_expect(scratch_take(1) >= (void *)(second + 200));
}

Test(scratch, is_left_behind, .init = begin)
{
	uint8_t *block = scratch_take(100);

	scratch_end();
	cr_expect_eq(last_error(), PATCH_BUG);
	cr_expect_eq(scratch_take(100), block);
}
