/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/ptr_vec.h: room is made before, an item is in once, and the item's own word says where. */
#include "base/ptr_vec.h"

#include "base/heap.h"
#include "base/inject.h"

#include <criterion/criterion.h>
#include <errno.h>

#define ITEMS 1000

struct item {
	uint32_t place;
};

static struct item items[ITEMS];

Test(ptr_vec, items_stay_as_it_grows)
{
	struct ptr_vec vec = { 0 };

	for (size_t i = 0; i < ITEMS; i++) {
		cr_assert(ptr_vec_reserve(&vec, i + 1));
		ptr_vec_add(&vec, &items[i], &items[i].place);
	}
	cr_assert_eq(vec.count, ITEMS);
	for (size_t i = 0; i < ITEMS; i++) {
		cr_expect_eq(vec.items[i], &items[i]);
		cr_expect_eq(items[i].place, i + 1);
	}
	heap_free(vec.items, vec.capacity * sizeof(*vec.items));
}

Test(ptr_vec, item_is_in_once)
{
	struct ptr_vec vec = { 0 };

	cr_assert(ptr_vec_reserve(&vec, 3));
	ptr_vec_add(&vec, &items[0], &items[0].place);
	ptr_vec_add(&vec, &items[1], &items[1].place);
	ptr_vec_add(&vec, &items[0], &items[0].place);
	cr_expect_eq(vec.count, 2);
	cr_expect_eq(items[0].place, 1);
	cr_expect_eq(items[1].place, 2);
}

Test(ptr_vec, room_that_is_there_takes_no_memory)
{
	struct ptr_vec vec = { 0 };
	void **before;
	uint64_t in_use;

	cr_assert(ptr_vec_reserve(&vec, 1));
	cr_assert_gt(vec.capacity, 1);
	before = vec.items;
	in_use = heap_in_use();
	cr_expect(ptr_vec_reserve(&vec, vec.capacity));
	cr_expect_eq(vec.items, before);
	cr_expect_eq(heap_in_use(), in_use);
}

static int refuse(enum inject_point point)
{
	return point == INJECT_ALLOC ? ENOMEM : 0;
}

Test(ptr_vec, refused_memory_changes_nothing)
{
	struct ptr_vec vec = { 0 };
	uint32_t capacity;
	void **before;

	libpatch_inject = refuse;
	cr_expect_not(ptr_vec_reserve(&vec, 1));
	cr_expect_null(vec.items);
	libpatch_inject = NULL;
	cr_assert(ptr_vec_reserve(&vec, 1));
	ptr_vec_add(&vec, &items[0], &items[0].place);
	capacity = vec.capacity;
	before = vec.items;
	libpatch_inject = refuse;
	cr_expect_not(ptr_vec_reserve(&vec, (size_t)capacity + 1));
	libpatch_inject = NULL;
	cr_expect_eq(vec.items, before);
	cr_expect_eq(vec.capacity, capacity);
	cr_expect_eq(vec.count, 1);
	cr_expect_eq(vec.items[0], &items[0]);
}

Test(ptr_vec, more_than_places_can_count)
{
	struct ptr_vec vec = { .capacity = UINT32_MAX };

	cr_expect(ptr_vec_reserve(&vec, UINT32_MAX));
	cr_expect_not(ptr_vec_reserve(&vec, (size_t)UINT32_MAX + 1));
}
