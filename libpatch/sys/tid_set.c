/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sorted array. Threads are mostly added in the order of their numbers, which moves nothing.
 */
#include "sys/tid_set.h"

#include "base/heap.h"

#include <string.h>

/* Where it is, or is to be. */
static size_t tid_set_place(const struct tid_set *set, pid_t tid)
{
	size_t lower = 0, upper = set->count;

	if (upper > 0 && set->tids[upper - 1] < tid)
		return upper;
	while (lower < upper) {
		size_t middle = lower + (upper - lower) / 2;

		if (set->tids[middle] < tid)
			lower = middle + 1;
		else
			upper = middle;
	}
	return lower;
}

bool tid_set_has(const struct tid_set *set, pid_t tid)
{
	size_t place = tid_set_place(set, tid);

	return place < set->count && set->tids[place] == tid;
}

bool tid_set_add(struct tid_set *set, pid_t tid)
{
	size_t place = tid_set_place(set, tid);

	if (place < set->count && set->tids[place] == tid)
		return true;
	if (!heap_reserve(&set->tids, &set->room, set->count + 1, sizeof(*set->tids)))
		return false;
	memmove(set->tids + place + 1, set->tids + place, (set->count - place) * sizeof(*set->tids));
	set->tids[place] = tid;
	++set->count;
	return true;
}
