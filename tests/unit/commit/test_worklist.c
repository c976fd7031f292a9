/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The regions of a commit: in order of address whatever the order they were queued in, in batches that do not part
 * neighbours, and queued again when no batch had them.
 */
#include "commit/worklist.h"

#include "patch/region.h"
#include "trap/registry.h"

#include <criterion/criterion.h>

#define BASE 0x555500000000UL
#define LENGTH 5
#define APART 64
/* Regions in a batch (worklist.c). */
#define BATCH 1024

static struct region *queue_at(uintptr_t start)
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
	region_queue(region);
	return region;
}

static void begin(struct worklist *worklist)
{
	cr_assert(worklist_begin(worklist, false));
	cr_expect_eq(region_queued(), 0, "all were taken");
}

/* The next batch, which has `count` regions. */
static void expect_batch(struct worklist *worklist, size_t count)
{
	cr_assert(worklist_next(worklist));
	cr_expect_eq(worklist->next - worklist->first, count, "%zu regions", worklist->next - worklist->first);
}

Test(worklist, ascending)
{
	static const unsigned int order[] = { 4, 1, 3, 0, 2 };
	struct worklist worklist;

	for (size_t i = 0; i < ARRAY_SIZE(order); ++i)
		queue_at(BASE + order[i] * APART);
	begin(&worklist);
	expect_batch(&worklist, ARRAY_SIZE(order));
	for (size_t i = 0; i < ARRAY_SIZE(order); ++i) {
		cr_expect_eq(worklist.items[i].start, BASE + i * APART);
		cr_expect_eq(worklist.items[i].region->start, BASE + i * APART);
	}
	cr_expect(!worklist_next(&worklist));
	worklist_end(&worklist);
}

Test(worklist, batches)
{
	struct worklist worklist;

	for (size_t i = 0; i < 2 * BATCH + 1; ++i)
		queue_at(BASE + i * APART);
	begin(&worklist);
	cr_expect_eq(worklist.largest, BATCH);
	cr_expect_eq(worklist.longest, BATCH * LENGTH);
	expect_batch(&worklist, BATCH);
	expect_batch(&worklist, BATCH);
	expect_batch(&worklist, 1);
	cr_expect(!worklist_next(&worklist));
	worklist_end(&worklist);
}

/* A punned jump of the one could read bytes of the other (I11). */
Test(worklist, neighbours_stay_together)
{
	struct worklist worklist;

	for (size_t i = 0; i < BATCH; ++i)
		queue_at(BASE + i * APART);
	/* Right behind the last one, and as far behind that as a jump could just reach. */
	queue_at(BASE + (BATCH - 1) * APART + LENGTH);
	queue_at(BASE + (BATCH - 1) * APART + 2 * LENGTH + ARCH_JMP_SIZE - 1);
	/* One byte further. */
	queue_at(BASE + (BATCH - 1) * APART + 4 * LENGTH + 2 * ARCH_JMP_SIZE - 1);
	begin(&worklist);
	cr_expect_eq(worklist.largest, BATCH + 2);
	expect_batch(&worklist, BATCH + 2);
	expect_batch(&worklist, 1);
	cr_expect(!worklist_next(&worklist));
	worklist_end(&worklist);
}

Test(worklist, put_back)
{
	struct worklist worklist;
	struct region *last;

	for (size_t i = 0; i < BATCH; ++i)
		queue_at(BASE + i * APART);
	last = queue_at(BASE + BATCH * APART);
	begin(&worklist);
	expect_batch(&worklist, BATCH);
	/* The batch failed: the one behind it waits for the next commit. */
	worklist_put_back(&worklist);
	cr_expect(!worklist_next(&worklist));
	worklist_end(&worklist);
	cr_expect_eq(region_queued(), 1);
	cr_expect_eq(region_queued_at(0), last);
}
