/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What waits for the next commit. Memory is taken when the thing is made, so that to queue it cannot fail. An array: passes over
 * thousands of things that are anywhere in memory fetch the next ones while they deal with one.
 */
#ifndef LIBPATCH_BASE_PTR_VEC_H
#define LIBPATCH_BASE_PTR_VEC_H

#include "base/compiler.h"

struct ptr_vec {
	void **items;
	uint32_t count;
	uint32_t capacity;
};

/* Room for `count` in all. False: out of memory. */
bool ptr_vec_reserve(struct ptr_vec *queue, size_t count);

/* `place`: the item's own word, 0 while it is not queued. It is set. */
static inline void queue_add(struct ptr_vec *queue, void *item, uint32_t *place)
{
	if (*place != 0)
		return;
	queue->items[queue->count++] = item;
	*place = queue->count;
}

#endif
