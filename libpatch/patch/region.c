/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: their memory and their trampolines from making to end, and the queue for the next commit. Nothing here
 * writes text, or decides where a region lies.
 */
#include "patch/region.h"

#include "base/heap.h"
#include "base/ptr_vec.h"
#include "base/thread_safety.h"
#include "code/pad.h"
#include "patch/place.h"

#include <libpatch/patch.h>
#include <stdatomic.h>
#include <string.h>

static struct ptr_vec queue;
/* Regions that have memory: so long may the queue be. */
static size_t allocated;
static struct region_usage usage;

/* How many regions of a page are in the text. Pages far apart may share a count. */
#define COUNTS (1UL << 16)

static uint32_t *region_installed_on(uintptr_t page)
{
	static uint32_t counts[COUNTS];

	return &counts[page % COUNTS];
}

bool region_any_installed(void)
{
	return usage.installed > 0;
}

bool region_may_be_installed_on(uintptr_t lower, uintptr_t upper)
{
	for (uintptr_t page = lower / PAGE_SIZE; usage.installed > 0 && page <= (upper - 1) / PAGE_SIZE; ++page)
		if (*region_installed_on(page) != 0)
			return true;
	return false;
}

/* ---- life of a region ------------------------------------------------------------------------------------------- */

void region_set_installed(struct region *region, bool installed)
{
	if (region->installed != installed) {
		int change = installed ? 1 : -1;
		uintptr_t last = region->start + region->length - 1;

		usage.installed += change;
		region->led &= installed;
		*region_installed_on(region->start / PAGE_SIZE) += change;
		if (last / PAGE_SIZE != region->start / PAGE_SIZE)
			*region_installed_on(last / PAGE_SIZE) += change;
	}
	region->installed = installed;
}

void region_usage(struct region_usage *out)
{
	*out = usage;
}

void region_retire(struct region *region, struct trampoline *trampoline)
{
	if (trampoline == NULL)
		return;
	if (!trampoline->reachable) {
		place_free_trampoline(trampoline);
		return;
	}
	usage.retired_bytes += trampoline->block.size;
	trampoline->next = region->old;
	region->old = trampoline;
}

/* The trampoline is to be used again: take it off the old ones. */
static void region_recall(struct region *region, const struct trampoline *trampoline)
{
	for (struct trampoline **link = &region->old; *link != NULL; link = &(*link)->next) {
		if (*link == trampoline) {
			*link = trampoline->next;
			usage.retired_bytes -= trampoline->block.size;
			return;
		}
	}
}

void region_set_next(struct region *region, struct trampoline *trampoline)
{
	struct trampoline *before = region->next;

	if (trampoline == before)
		return;
	region->led &= before == NULL && trampoline == region->current;
	region->next = NULL;
	if (trampoline != region->current) {
		region_recall(region, trampoline);
		region->next = trampoline;
	}
	region_retire(region, before);
}

void region_queue(struct region *region)
{
	LOCK_ASSERT_HELD();
	ptr_vec_add(&queue, region, &region->queued);
}

size_t region_queued(void)
{
	return queue.count;
}

struct region *region_queued_at(size_t index)
{
	return queue.items[index];
}

void region_queue_taken(void)
{
	for (size_t i = 0; i < queue.count; ++i)
		region_queued_at(i)->queued = 0;
	queue.count = 0;
}

void region_unqueue(struct region *region)
{
	struct region *last;

	if (!region->queued)
		return;
	last = queue.items[--queue.count];
	queue.items[region->queued - 1] = last;
	last->queued = region->queued;
	region->queued = 0;
}

/* One piece of memory: the structure, its entries, original and live bytes, offsets. */
static size_t region_size(unsigned int count, unsigned int length)
{
	return sizeof(struct region) + count * sizeof(struct registry_entry *) + MAX(length, ARCH_JMP_SIZE) + length +
	       count + 1;
}

static void region_give_back(struct region *region) REQUIRES(library_lock)
{
	--allocated;
	heap_free(region, region_size(region->count, region->length));
}

/* Entries for every instruction: existing ones stay what they are until the region is committed. */
bool region_make_entries(struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		uintptr_t address = region->start + region->offsets[i];
		struct registry_entry *entry = registry_find(address);

		if (entry == NULL)
			entry = registry_add(address);
		if (entry == NULL)
			return false;
		region->entries[i] = entry;
	}
	return true;
}

/* On from a link of that list, the next link to a former region that began at the address, or the last link. */
static struct region **region_former(struct region **link, uintptr_t start)
{
	while (*link != NULL && (*link)->start != start)
		link = &(*link)->former;
	return link;
}

static void region_drop_entries(struct region *region) REQUIRES(library_lock)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];

		if (entry != NULL && entry->region == NULL &&
		    *region_former(registry_former(entry), entry->address) == NULL &&
		    REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_DORMANT)
			registry_remove(entry);
	}
}

void region_own_entries(struct region *region)
{
	++usage.regions;
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];
		uint8_t offset = region->offsets[i];
		uint8_t length = region->offsets[i + 1] - offset;
		const uint8_t *bytes = region->original + offset;
		struct arch_insn insn;

		entry->length = length;
		entry->traps = arch_may_trap(bytes, length) &&
			       arch_decode(bytes, length, region->start + offset, &insn) && insn.kind == ARCH_TRAP;
		entry->region = region;
		entry->index = (uint16_t)i;
	}
}

/* Free the pad, unless a thread may be led to it (I7). */
static void region_drop_pad(struct region *region) REQUIRES(library_lock)
{
	if (region->pad != 0 && !region->pad_reachable)
		pad_free(region->pad);
}

/* May a thread be in its trampolines or at its pad, or come back there? */
static bool region_is_reachable(const struct region *region)
{
	return region->current != NULL || region->old != NULL || region->pad_reachable;
}

void region_discard(struct region *region)
{
	if (region_is_reachable(region)) {
		/* Its first instruction was patched, so it has an entry for good. */
		struct region **first = registry_former(registry_find(region->start));

		if (region->current != NULL)
			usage.retired_bytes += region->current->block.size;
		region->former = *first;
		*first = region;
		return;
	}
	region_drop_entries(region);
	region_drop_pad(region);
	region_give_back(region);
}

void region_bury(struct region *region)
{
	region_unqueue(region);
	for (unsigned int i = 0; i < region->count; ++i)
		if (region->entries[i]->region == region)
			region->entries[i]->region = NULL;
	region_set_installed(region, false);
	--usage.regions;
	region_retire(region, region->next);
	region->next = NULL;
	region_discard(region);
}

void region_clear_punned(const struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i)
		registry_set_punned(region->entries[i], false);
}

void region_leave(struct region *region, struct region **list)
{
	region_unqueue(region);
	/* Some may lie outside, and stay. */
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];

		if (REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_ACTIVE)
			registry_retire(entry);
		entry->region = NULL;
	}
	region_set_installed(region, false);
	--usage.regions;
	region->gone = true;
	region->former = *list;
	*list = region;
}

void region_leave_former(struct registry_entry *first, struct region **list)
{
	struct region **link = registry_former(first);

	while (*(link = region_former(link, first->address)) != NULL) {
		struct region *region = *link;

		*link = region->former;
		if (region->current != NULL)
			usage.retired_bytes -= region->current->block.size;
		region->gone = true;
		region->former = *list;
		*list = region;
	}
}

void region_keep(const struct region *region)
{
	if (region->current != NULL)
		usage.retired_bytes += region->current->block.size;
}

static void region_free_trampoline(struct trampoline *trampoline) REQUIRES(library_lock)
{
	if (trampoline != NULL)
		place_free_trampoline(trampoline);
}

void region_free(struct region *region)
{
	region_free_trampoline(region->next);
	region_free_trampoline(region->current);
	while (region->old != NULL) {
		struct trampoline *old = region->old;

		region->old = old->next;
		usage.retired_bytes -= old->block.size;
		place_free_trampoline(old);
	}
	if (region->pad_entry != NULL)
		registry_remove(region->pad_entry);
	if (region->pad != 0)
		pad_free(region->pad);
	region_give_back(region);
}

bool region_pad_fits(const struct region *region, uint8_t strategy, const uint8_t *original)
{
	return strategy != PATCH_STRATEGY_PUNNED_JUMP || region->pad == 0 ||
	       memcmp(region->original, original, ARCH_JMP_SIZE) == 0;
}

/* A former region for the same window of the same code, taken off its entry; NULL: there is none. */
REQUIRES(library_lock)
static struct region *region_revive(const struct window *window)
{
	struct registry_entry *entry = registry_find(window->start);
	struct region **link = entry != NULL ? registry_former(entry) : NULL;

	for (; link != NULL && *(link = region_former(link, window->start)) != NULL; link = &(*link)->former) {
		struct region *region = *link;

		if (region->length != window->length || region->count != window->count ||
		    memcmp(region->offsets, window->offsets, window->count + 1U) != 0 ||
		    memcmp(region->original, window->original, window->length) != 0 ||
		    !region_pad_fits(region, window->strategy, window->original))
			continue;
		*link = region->former;
		region->former = NULL;
		if (region->current != NULL)
			usage.retired_bytes -= region->current->block.size;
		memcpy(region->live, window->original, window->length);
		region->forced = false;
		return region;
	}
	return NULL;
}

void region_set_strategy(struct region *region, uint8_t strategy, const uint8_t *original)
{
	region->strategy = strategy;
	region->owned = region->length;
	if (strategy == PATCH_STRATEGY_PUNNED_JUMP) {
		region->owned = ARCH_JMP_SIZE;
		memcpy(region->original, original, ARCH_JMP_SIZE);
	}
}

struct region *region_create(const struct window *window, bool no_rmw)
{
	struct region *region = region_revive(window);

	LOCK_ASSERT_HELD();
	if (region != NULL) {
		region_set_strategy(region, window->strategy, window->original);
		region->no_rmw = no_rmw;
		return region;
	}
	if (!ptr_vec_reserve(&queue, allocated + 1))
		return NULL;
	region = heap_alloc(region_size(window->count, window->length));
	if (region == NULL)
		return NULL;
	++allocated;
	region->start = window->start;
	region->length = window->length;
	region->count = window->count;
	region->original = (uint8_t *)&region->entries[window->count];
	region->live = region->original + MAX(window->length, ARCH_JMP_SIZE);
	region->offsets = region->live + window->length;
	region->no_rmw = no_rmw;
	memcpy(region->offsets, window->offsets, window->count + 1);
	region_set_strategy(region, window->strategy, window->original);
	memcpy(region->original, window->original, window->length);
	memcpy(region->live, window->original, window->length);
	return region;
}

/* ---- members ---------------------------------------------------------------------------------------------------- */

void region_append(struct region *region, struct attachment *attachment)
{
	struct attachment **link = &region->attachments;

	while (*link != NULL && (*link)->patch->order <= attachment->patch->order)
		link = &(*link)->next;
	attachment->next = *link;
	*link = attachment;
	attachment->region = region;
}

void region_take_in(struct region *region, struct region *gone)
{
	uintptr_t lower = MAX(region->start, gone->start);
	uintptr_t upper = MIN(region->start + region->length, gone->start + gone->length);

	memcpy(region->live + (lower - region->start), gone->live + (lower - gone->start), upper - lower);
	while (gone->attachments != NULL) {
		struct attachment *attachment = gone->attachments;

		gone->attachments = attachment->next;
		region_append(region, attachment);
	}
	if (gone->installed)
		region_set_installed(region, true);
	/* A commit that failed left it on the list, and its patches may be on no other. */
	if (gone->queued)
		region_queue(region);
	region_bury(gone);
}

static void region_detach_one(struct attachment *attachment) REQUIRES(library_lock)
{
	struct region *region = attachment->region;

	/* The code of its hooks stays (I7), and serves the next patch at the place. */
	place_leave(attachment);
	if (region == NULL)
		return;
	for (struct attachment **link = &region->attachments; *link != NULL; link = &(*link)->next) {
		if (*link == attachment) {
			*link = attachment->next;
			break;
		}
	}
	attachment->region = NULL;
}

void region_detach(struct patch *patch)
{
	for (size_t i = 0; i < patch->count; ++i)
		region_detach_one(&patch->attachments[i]);
	while (patch->leads != NULL) {
		struct attachment *lead = patch->leads;

		region_detach_one(lead);
		patch->leads = lead->next_lead;
		heap_free(lead, sizeof(*lead));
	}
}
