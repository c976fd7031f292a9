/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/heap.h: blocks are zeroed, aligned, apart from each other, come back, and are counted. One thread, which stands
 * for the holder of the library lock. */
#include "base/heap.h"

#include "base/inject.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#define BLOCKS 400

/* Small ones, one for each size class and around it, and some that are mapped for themselves. */
static size_t size_of(size_t index)
{
	static const size_t large[] = { 4096, 8191, 8192, 8193, 20000, 300000, 2000000 };

	return index % 50 == 49 ? large[index / 50 % ARRAY_SIZE(large)] : 1 + index * 7 % 1500;
}

static bool all(const uint8_t *bytes, size_t size, uint8_t value)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

Test(heap, blocks_are_zeroed_aligned_and_apart)
{
	static uint8_t *blocks[BLOCKS];
	uint64_t in_use = heap_in_use();

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < BLOCKS; i++) {
			blocks[i] = heap_alloc(size_of(i));
			cr_assert_not_null(blocks[i]);
			cr_expect_eq((uintptr_t)blocks[i] % 8, 0);
			cr_expect(all(blocks[i], size_of(i), 0), "round %d, block %zu of %zu bytes", round, i,
				  size_of(i));
			memset(blocks[i], (int)(i + 1), size_of(i));
		}
		for (size_t i = 0; i < BLOCKS; i++)
			cr_expect(all(blocks[i], size_of(i), (uint8_t)(i + 1)), "block %zu of %zu bytes was written to",
				  i, size_of(i));
		/* every other one first, so that they come back in another order */
		for (size_t i = 0; i < BLOCKS; i += 2)
			heap_free(blocks[i], size_of(i));
		for (size_t i = 1; i < BLOCKS; i += 2)
			heap_free(blocks[i], size_of(i));
		cr_expect_eq(heap_in_use(), in_use, "round %d", round);
	}
}

Test(heap, cycles_map_nothing_more)
{
	uint64_t mapped = 0;

	for (int round = 0; round < 1000; round++) {
		void *small = heap_alloc(100), *large = heap_alloc(100000);

		cr_assert(small && large);
		heap_free(large, 100000);
		heap_free(small, 100);
		if (round == 0)
			mapped = heap_mapped();
	}
	cr_expect_leq(heap_mapped(), mapped);
}

Test(heap, block_of_no_size_and_no_block)
{
	uint64_t in_use = heap_in_use();
	void *one = heap_alloc(0), *other = heap_alloc(0);

	cr_assert(one && other);
	cr_expect_neq(one, other);
	heap_free(one, 0);
	heap_free(other, 0);
	heap_free(NULL, 100);
	cr_expect_eq(heap_in_use(), in_use);
}

Test(heap, grown_block_keeps_its_contents)
{
	uint64_t in_use = heap_in_use();
	size_t size = 8;
	uint8_t *block = heap_alloc(size);

	cr_assert_not_null(block);
	memset(block, 0x5a, size);
	while (size < 1000000) {
		const size_t larger = size * 3;

		block = heap_grow(block, size, larger);
		cr_assert_not_null(block);
		cr_expect(all(block, size, 0x5a), "the first %zu of %zu bytes", size, larger);
		cr_expect(all(block + size, larger - size, 0), "behind %zu of %zu bytes", size, larger);
		memset(block, 0x5a, larger);
		size = larger;
	}
	heap_free(block, size);
	cr_expect_eq(heap_in_use(), in_use);
}

static int refuse(enum inject_point point)
{
	return point == INJECT_ALLOC ? ENOMEM : 0;
}

Test(heap, refused_growth_leaves_the_block)
{
	uint8_t *block = heap_alloc(64);
	uint64_t in_use;

	cr_assert_not_null(block);
	memset(block, 0x77, 64);
	in_use = heap_in_use();
	libpatch_inject = refuse;
	cr_expect_null(heap_grow(block, 64, 4096));
	cr_expect_null(heap_alloc(8));
	libpatch_inject = NULL;
	cr_expect_eq(heap_in_use(), in_use);
	cr_expect(all(block, 64, 0x77));
	heap_free(block, 64);
}

Test(heap, refusal_is_taken_once)
{
	heap_take_refusal();
	heap_note_refusal(-12);
	cr_expect_eq(heap_take_refusal(), -12);
	cr_expect_eq(heap_take_refusal(), 0);
}

Test(heap, pages_are_counted)
{
	const uint64_t mapped = heap_mapped();
	uint8_t *pages = heap_map(3 * PAGE_SIZE);

	cr_assert_not_null(pages);
	cr_expect_eq((uintptr_t)pages % PAGE_SIZE, 0);
	cr_expect(all(pages, 3 * PAGE_SIZE, 0));
	cr_expect_eq(heap_mapped(), mapped + 3 * PAGE_SIZE);
	pages[3 * PAGE_SIZE - 1] = 1;
	heap_unmap((uintptr_t)pages, 3 * PAGE_SIZE);
	heap_disown(0);
}
