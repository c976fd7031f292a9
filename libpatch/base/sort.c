/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/sort.h"

typedef uint64_t __attribute__((may_alias)) word_t;

struct list {
	uint8_t *items;
	size_t size;
};

static word_t *item(const struct list *list, size_t index)
{
	return (word_t *)(list->items + index * list->size);
}

static uintptr_t address(const struct list *list, size_t index)
{
	return *item(list, index);
}

static void swap(const struct list *list, size_t a, size_t b)
{
	word_t *one = item(list, a), *other = item(list, b);

	for (size_t i = 0; i < list->size / sizeof(*one); ++i) {
		word_t word = one[i];

		one[i] = other[i];
		other[i] = word;
	}
}

static void sift_down(const struct list *list, size_t root, size_t count)
{
	for (;;) {
		size_t child = 2 * root + 1;

		if (child >= count)
			return;
		if (child + 1 < count && address(list, child + 1) > address(list, child))
			++child;
		if (address(list, root) >= address(list, child))
			return;
		swap(list, root, child);
		root = child;
	}
}

static void reverse(const struct list *list, size_t count)
{
	for (size_t i = 0, k = count - 1; i < k; ++i, --k)
		swap(list, i, k);
}

/* Heapsort. */
void sort_by_address(void *items, size_t count, size_t size)
{
	const struct list list = { items, size };
	size_t i = 1;

	if (count > 1 && address(&list, 0) > address(&list, count - 1))
		reverse(&list, count);
	while (i < count && address(&list, i - 1) <= address(&list, i))
		++i;
	if (i >= count)
		return;
	for (i = count / 2; i-- > 0;)
		sift_down(&list, i, count);
	for (i = count; i-- > 1;) {
		swap(&list, 0, i);
		sift_down(&list, 0, i);
	}
}
