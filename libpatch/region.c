/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "region.h"

#include "heap.h"

#include <string.h>

static struct region *queue;
static struct region_usage usage;

/* ---- original bytes --------------------------------------------------------------------------------------------- */

struct region *region_at(uintptr_t address)
{
	struct registry_entry *entry = registry_find(address);

	return entry != NULL ? entry->region : NULL;
}

/* The region that holds the byte at address, also inside an instruction. */
struct region *region_covering(uintptr_t address)
{
	for (uintptr_t back = 0; back < INSN_MAX && back <= address; ++back) {
		struct region *region = region_at(address - back);

		if (region != NULL)
			return address < region->start + region->length ? region : NULL;
	}
	return NULL;
}

/* Only such bytes stand at the instructions of a patched region: spares nearly all look-ups. */
static bool may_be_patched(uint8_t byte)
{
	return byte == ARCH_JMP_REL32 || arch_trap_class(byte) != ARCH_TRAP_NONE;
}

size_t region_original_at(uintptr_t address, const uint8_t **bytes)
{
	struct region *region;

	if (!may_be_patched(*(const uint8_t *)address))
		return 0;
	region = region_at(address);
	if (region == NULL || !region->installed)
		return 0;
	*bytes = region->original + (address - region->start);
	return region->length - (address - region->start);
}

size_t region_original(uintptr_t address, uint8_t *bytes, size_t size)
{
	struct region *region = region_covering(address);
	int error;
	size_t got = text_read(address, bytes, size, &error);

	for (size_t at = 0; at < got; ++at) {
		uintptr_t here = address + at;

		if ((region == NULL || here >= region->start + region->length) && may_be_patched(bytes[at]))
			region = region_at(here);
		if (region != NULL && region->installed && here >= region->start &&
		    here < region->start + region->length)
			bytes[at] = region->original[here - region->start];
	}
	return got;
}

/* ---- life of a region ------------------------------------------------------------------------------------------- */

void region_set_installed(struct region *region, bool installed)
{
	if (region->installed != installed)
		usage.installed += installed ? 1 : -1;
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
		trampoline_free(trampoline);
		return;
	}
	usage.retired_bytes += trampoline->block.size;
	trampoline->next = region->old;
	region->old = trampoline;
}

/* Take a trampoline that is to be used again off the old ones. */
static void revive(struct region *region, const struct trampoline *trampoline)
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
	region->next = NULL;
	if (trampoline != region->current) {
		revive(region, trampoline);
		region->next = trampoline;
	}
	region_retire(region, before);
}

void region_queue(struct region *region)
{
	if (region->queued)
		return;
	region->queued = true;
	region->queue_next = queue;
	queue = region;
}

const struct region *region_queued(void)
{
	return queue;
}

struct region *region_take_queue(void)
{
	struct region *taken = queue;

	queue = NULL;
	for (struct region *region = taken; region != NULL; region = region->queue_next)
		region->queued = false;
	return taken;
}

static void unqueue(struct region *region)
{
	if (!region->queued)
		return;
	for (struct region **link = &queue; *link != NULL; link = &(*link)->queue_next) {
		if (*link == region) {
			*link = region->queue_next;
			break;
		}
	}
	region->queued = false;
}

bool region_wanted(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (a->patch->wanted && !a->patch->released)
			return true;
	return false;
}

bool region_has_policy(const struct region *region, int policy)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!a->patch->released && a->patch->policy == policy)
			return true;
	return false;
}

/* One piece of memory: the structure, its entries, original and live bytes, offsets. */
static size_t region_size(unsigned int count, unsigned int length)
{
	return sizeof(struct region) + count * sizeof(struct registry_entry *) + 2 * length + count + 1;
}

struct region *region_create(const struct plan *plan, bool exact, const uint8_t *original)
{
	struct region *region = heap_alloc(region_size(plan->count, plan->length));

	if (region == NULL)
		return NULL;
	region->start = plan->start;
	region->length = plan->length;
	region->count = plan->count;
	region->original = (uint8_t *)&region->entries[plan->count];
	region->live = region->original + plan->length;
	region->offsets = region->live + plan->length;
	region->strategy = plan->strategy;
	region->exact = exact;
	memcpy(region->offsets, plan->offsets, plan->count + 1);
	memcpy(region->original, original, plan->length);
	memcpy(region->live, original, plan->length);
	return region;
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

static void drop_entries(struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];

		if (entry != NULL && entry->region == NULL &&
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
		struct arch_insn insn;

		arch_decode(region->original + offset, region->offsets[i + 1] - offset, region->start + offset, &insn);
		entry->length = insn.length;
		entry->traps = insn.kind == ARCH_TRAP;
		entry->region = region;
		entry->index = (uint16_t)i;
	}
}

/* A pad that some thread may be led to stays (I7). */
static void drop_pad(struct region *region)
{
	if (region->pad != 0 && !region->pad_reachable)
		arena_pad_free(region->pad);
}

void region_discard(struct region *region)
{
	drop_entries(region);
	drop_pad(region);
	heap_free(region, region_size(region->count, region->length));
}

/* The region goes; what its trampolines take stays, because threads may be in them (I7). */
void region_destroy(struct region *region)
{
	unqueue(region);
	for (unsigned int i = 0; i < region->count; ++i)
		if (region->entries[i]->region == region)
			region->entries[i]->region = NULL;
	region_set_installed(region, false);
	--usage.regions;
	region_discard(region);
}

/* Nothing of it is in the text and nobody is on it: the window need not be kept, only its trampolines. */
void region_dissolve(struct region *region)
{
	if (region->next != NULL && !region->next->reachable)
		trampoline_free(region->next);
	if (region->current != NULL)
		usage.retired_bytes += region->current->block.size;
	region_destroy(region);
}

bool region_is_unused(const struct region *region)
{
	return !region->installed && region->attachments == NULL;
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

void region_move_gates(struct region *from, struct region *to)
{
	while (from->gates != NULL) {
		struct gate *gate = from->gates;

		from->gates = gate->next;
		gate->next = to->gates;
		to->gates = gate;
	}
}

/* Move what the inner regions hold into the new one, which covers them, and let them go. */
void region_take_in(struct region *region, struct region **inner, size_t count)
{
	for (size_t i = 0; i < count; ++i) {
		struct region *gone = inner[i];

		memcpy(region->live + (gone->start - region->start), gone->live, gone->length);
		while (gone->attachments != NULL) {
			struct attachment *attachment = gone->attachments;

			gone->attachments = attachment->next;
			region_append(region, attachment);
		}
		if (gone->installed)
			region_set_installed(region, true);
		region_retire(region, gone->next);
		region_retire(region, gone->current);
		region_move_gates(gone, region);
		while (gone->old != NULL) {
			struct trampoline *old = gone->old;

			gone->old = old->next;
			old->next = region->old;
			region->old = old;
		}
	}
}

void region_detach(struct patch *patch)
{
	if (patch->gate != NULL) {
		*(volatile uint8_t *)patch->gate->address = 0;
		patch->gate->owner = NULL;
		patch->gate = NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(patch->attachments); ++i) {
		struct attachment *attachment = &patch->attachments[i];
		struct region *region = attachment->region;

		if (region == NULL)
			continue;
		for (struct attachment **link = &region->attachments; *link != NULL; link = &(*link)->next) {
			if (*link == attachment) {
				*link = attachment->next;
				break;
			}
		}
		attachment->region = NULL;
	}
}
