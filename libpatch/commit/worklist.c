/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The regions of a commit in order of address, and where one batch ends and the next one begins. Touches no text and no
 * region beyond its place in the queue.
 */
#include "commit/worklist.h"

#include "arch/trap_bytes.h"
#include "base/heap.h"
#include "base/prefetch.h"
#include "base/sort.h"

/*
 * Regions in a batch: with what belongs to them they take some hundred kilobytes, and so does their text. With fewer
 * there would be more syncs, each of which takes longer than a region does.
 */
#define BATCH 1024

/*
 * May a batch end between the two? Not where a punned jump of the one may read bytes of the other (I11).
 */
static bool worklist_is_apart(const struct worklist_item *item, const struct worklist_item *next)
{
	return next->start >= item->start + item->length + ARCH_JMP_SIZE;
}

static size_t worklist_batch_end(const struct worklist *worklist, size_t first)
{
	size_t end = MIN(first + BATCH, worklist->count);

	while (end < worklist->count && !worklist_is_apart(&worklist->items[end - 1], &worklist->items[end]))
		++end;
	return end;
}

static void worklist_measure(struct worklist *worklist)
{
	size_t end;

	for (size_t first = 0; first < worklist->count; first = end) {
		size_t length = 0;

		end = worklist_batch_end(worklist, first);
		for (size_t i = first; i < end; ++i)
			length += worklist->items[i].length;
		worklist->largest = MAX(worklist->largest, end - first);
		worklist->longest = MAX(worklist->longest, length);
	}
}

bool worklist_begin(struct worklist *worklist, bool whole)
{
	const size_t queued = region_queued();

	*worklist = (struct worklist){ .room = queued };
	worklist->items = heap_alloc(queued * sizeof(*worklist->items));
	if (worklist->items == NULL) {
		worklist->room = 0;
		return false;
	}
	for (size_t i = 0; i < queued; ++i) {
		struct region *region = region_queued_at(i);

		if (i + 2 * PREFETCH_AHEAD < queued)
			FETCH(region_queued_at(i + 2 * PREFETCH_AHEAD));
		if (whole ? !region_is_own(region) : region_waits_for_whole(region))
			continue;
		worklist->items[worklist->count++] =
			(struct worklist_item){ .start = region->start, .region = region, .length = region->length };
	}
	if (worklist->count == queued)
		region_queue_taken();
	for (size_t i = 0; i < worklist->count && region_queued() > 0; ++i)
		region_unqueue(worklist->items[i].region);
	sort_by_address(worklist->items, worklist->count, sizeof(*worklist->items));
	worklist_measure(worklist);
	return true;
}

void worklist_put_back(struct worklist *worklist)
{
	for (size_t i = worklist->next; i < worklist->count; ++i)
		region_queue(worklist->items[i].region);
	worklist->next = worklist->count;
}

void worklist_end(struct worklist *worklist)
{
	heap_free(worklist->items, worklist->room * sizeof(*worklist->items));
}

bool worklist_next(struct worklist *worklist)
{
	worklist->first = worklist->next;
	worklist->next = worklist_batch_end(worklist, worklist->first);
	return worklist->first < worklist->next;
}
