/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/ptr_vec.h"

#include "base/heap.h"

bool ptr_vec_reserve(struct ptr_vec *queue, size_t count)
{
	size_t capacity = MAX((size_t)queue->capacity * 2, (size_t)64);
	void **items;

	if (count <= queue->capacity)
		return true;
	if (capacity > UINT32_MAX)
		return false;
	items = heap_grow(queue->items, queue->capacity * sizeof(*items), capacity * sizeof(*items));
	if (items == NULL)
		return false;
	queue->items = items;
	queue->capacity = (uint32_t)capacity;
	return true;
}
