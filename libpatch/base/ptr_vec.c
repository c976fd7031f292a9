/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Growing an array of pointers.
 */
#include "base/ptr_vec.h"

#include "base/heap.h"

bool ptr_vec_reserve(struct ptr_vec *vec, size_t count)
{
	size_t capacity = MAX((size_t)vec->capacity * 2, (size_t)64);
	void **items;

	if (count <= vec->capacity)
		return true;
	if (capacity > UINT32_MAX)
		return false;
	items = heap_grow(vec->items, vec->capacity * sizeof(*items), capacity * sizeof(*items));
	if (items == NULL)
		return false;
	vec->items = items;
	vec->capacity = (uint32_t)capacity;
	return true;
}
