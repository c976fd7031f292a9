/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Growing an array of pointers.
 */
#include "base/ptr_vec.h"

#include "base/heap.h"

bool ptr_vec_reserve(struct ptr_vec *vec, size_t count)
{
	return count <= UINT32_MAX && heap_reserve(&vec->items, &vec->capacity, count, sizeof(*vec->items));
}
