/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "commit/worklist.h"

#include "arch/arch.h"
#include "base/heap.h"
#include "base/sort.h"

/*
 * Regions, with what belongs to them: some hundred kilobytes, and as much text. Fewer mean more syncs, which take longer than a
 * region does.
 */
#define BATCH 1024

/*
 * A punned jump reads bytes that may be another region's (I11), and the regions of a patch around a call lie side by side: those
 * are in one batch.
 */
static bool is_apart(const struct worklist_item *item, const struct worklist_item *next)
{
	return next->start >= item->start + item->length + ARCH_JMP_SIZE;
}

static size_t batch_end(const struct worklist *agenda, size_t first)
{
	size_t end = MIN(first + BATCH, agenda->count);

	while (end < agenda->count && !is_apart(&agenda->items[end - 1], &agenda->items[end]))
		++end;
	return end;
}

static void measure(struct worklist *agenda)
{
	size_t end;

	for (size_t first = 0; first < agenda->count; first = end) {
		size_t length = 0;

		end = batch_end(agenda, first);
		for (size_t i = first; i < end; ++i)
			length += agenda->items[i].length;
		agenda->largest = MAX(agenda->largest, end - first);
		agenda->longest = MAX(agenda->longest, length);
	}
}

bool worklist_begin(struct worklist *agenda)
{
	*agenda = (struct worklist){ .count = region_queued() };
	agenda->items = heap_alloc(agenda->count * sizeof(*agenda->items));
	if (agenda->items == NULL) {
		agenda->count = 0;
		return false;
	}
	for (size_t i = 0; i < agenda->count; ++i) {
		struct region *region = region_queued_at(i);

		if (i + 2 * PREFETCH_AHEAD < agenda->count)
			FETCH(region_queued_at(i + 2 * PREFETCH_AHEAD));
		agenda->items[i] = (struct worklist_item){ .start = region->start, .region = region, .length = region->length };
	}
	region_queue_taken();
	sort_by_address(agenda->items, agenda->count, sizeof(*agenda->items));
	measure(agenda);
	return true;
}

void worklist_put_back(struct worklist *agenda)
{
	for (size_t i = agenda->next; i < agenda->count; ++i)
		region_queue(agenda->items[i].region);
	agenda->next = agenda->count;
}

void worklist_end(struct worklist *agenda)
{
	heap_free(agenda->items, agenda->count * sizeof(*agenda->items));
}

bool worklist_next(struct worklist *agenda)
{
	agenda->first = agenda->next;
	agenda->next = batch_end(agenda, agenda->first);
	return agenda->first < agenda->next;
}
