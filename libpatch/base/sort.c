/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sorting without memory and without libc, whose qsort() may allocate: a list that is sorted or reversed is found to be
 * so in one pass, any other is sorted by a heap.
 */
#include "base/sort.h"

typedef uint64_t __attribute__((may_alias)) word_t;

struct list {
	uint8_t *items;
	size_t size;
};

static word_t *sort_item(const struct list *list, size_t index)
{
	return (word_t *)(list->items + index * list->size);
}

static uintptr_t sort_key(const struct list *list, size_t index)
{
	return *sort_item(list, index);
}

static void sort_swap(const struct list *list, size_t a, size_t b)
{
	word_t *one = sort_item(list, a), *other = sort_item(list, b);

	for (size_t i = 0; i < list->size / sizeof(*one); ++i) {
		word_t word = one[i];

		one[i] = other[i];
		other[i] = word;
	}
}

static void sort_sift_down(const struct list *list, size_t root, size_t count)
{
	for (;;) {
		size_t child = 2 * root + 1;

		if (child >= count)
			return;
		if (child + 1 < count && sort_key(list, child + 1) > sort_key(list, child))
			++child;
		if (sort_key(list, root) >= sort_key(list, child))
			return;
		sort_swap(list, root, child);
		root = child;
	}
}

static void sort_reverse(const struct list *list, size_t count)
{
	for (size_t i = 0, k = count - 1; i < k; ++i, --k)
		sort_swap(list, i, k);
}

void sort_by_address(void *items, size_t count, size_t size)
{
	const struct list list = { items, size };
	size_t i = 1;

	if (count > 1 && sort_key(&list, 0) > sort_key(&list, count - 1))
		sort_reverse(&list, count);
	while (i < count && sort_key(&list, i - 1) <= sort_key(&list, i))
		++i;
	if (i >= count)
		return;
	for (i = count / 2; i-- > 0;)
		sort_sift_down(&list, i, count);
	for (i = count; i-- > 1;) {
		sort_swap(&list, 0, i);
		sort_sift_down(&list, 0, i);
	}
}
