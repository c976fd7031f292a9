/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A growable array of pointers to objects, each of which knows its place in it. Memory is reserved when an object is
 * made, so that adding the object later cannot fail. It is an array, because a pass over thousands of objects that lie
 * anywhere in memory prefetches the next ones while it deals with one.
 */
#ifndef LIBPATCH_BASE_PTR_VEC_H
#define LIBPATCH_BASE_PTR_VEC_H

#include "base/bug.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

struct ptr_vec {
	void **items;
	size_t count;
	size_t capacity;
};

/* Make room for `count` items in all. False: out of memory. */
bool ptr_vec_reserve(struct ptr_vec *vec, size_t count) REQUIRES(library_lock);

/*
 * Add an item for which there is room, unless it is in the array. *place is a word of the item's own: its index plus 1,
 * or 0 while it is not in the array.
 */
static inline void ptr_vec_add(struct ptr_vec *vec, void *item, uint32_t *place)
{
	if (*place != 0)
		return;
	BUG_ON_RETURN(vec->count >= vec->capacity);
	vec->items[vec->count++] = item;
	*place = (uint32_t)vec->count;
}

#endif
