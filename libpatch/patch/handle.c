/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "patch/handle.h"

#include "base/heap.h"
#include "base/ptr_vec.h"
#include "patch/region.h"

#define NONE UINT32_MAX

struct slot {
	struct patch *patch; /* NULL: free */
	uint32_t generation; /* never 0 in a handle; grows when that is revoked */
	uint32_t next_free;
};

static struct slot *slots;
static size_t slot_capacity;
static size_t slot_count;
static uint32_t first_free = NONE;
static uint64_t live;
static uint64_t all;
static struct ptr_vec changed;

static bool make_room(void)
{
	size_t capacity = MAX(slot_capacity * 2, (size_t)64);
	struct slot *grown;

	if (slot_count < slot_capacity)
		return true;
	if (capacity >= NONE)
		return false;
	grown = heap_grow(slots, slot_capacity * sizeof(*slots), capacity * sizeof(*slots));
	if (grown == NULL)
		return false;
	slots = grown;
	slot_capacity = capacity;
	return true;
}

static void renew(struct slot *slot)
{
	if (++slot->generation == 0)
		slot->generation = 1;
}

struct patch *handle_alloc(patch_t *handle, unsigned int roles)
{
	struct patch *patch;
	uint32_t index = first_free;

	if ((index == NONE && !make_room()) || !ptr_vec_reserve(&changed, all + 1))
		return NULL;
	patch = heap_alloc(patch_size(roles));
	if (patch == NULL)
		return NULL;
	if (index != NONE)
		first_free = slots[index].next_free;
	else
		renew(&slots[index = (uint32_t)slot_count++]);
	slots[index].patch = patch;
	patch->roles = (uint8_t)roles;
	patch->slot = index;
	*handle = (patch_t)((uintptr_t)slots[index].generation << 32 | index);
	++live;
	++all;
	return patch;
}

struct patch *handle_get(patch_t handle)
{
	uint32_t index = (uint32_t)(uintptr_t)handle;

	if (index >= slot_count || slots[index].generation != (uintptr_t)handle >> 32)
		return NULL;
	return slots[index].patch;
}

void handle_revoke(struct patch *patch)
{
	if (patch->revoked)
		return;
	patch->revoked = true;
	renew(&slots[patch->slot]);
	--live;
}

void handle_free(struct patch *patch)
{
	struct slot *slot = &slots[patch->slot];

	handle_revoke(patch);
	slot->patch = NULL;
	slot->next_free = first_free;
	first_free = patch->slot;
	--all;
	heap_free(patch, patch_size(patch->roles));
}

void handle_revoke_all(void (*visit)(struct patch *patch))
{
	size_t index = 0;
	struct patch *patch;

	while ((patch = handle_next(&index)) != NULL) {
		if (patch->revoked)
			continue;
		handle_revoke(patch);
		visit(patch);
	}
}

uint64_t handle_count(void)
{
	return live;
}

uint64_t handle_revoked_count(void)
{
	return all - live;
}

struct patch *handle_next(size_t *index)
{
	while (*index < slot_count) {
		struct patch *patch = slots[(*index)++].patch;

		if (patch != NULL)
			return patch;
	}
	return NULL;
}

void handle_change(struct patch *patch)
{
	queue_add(&changed, patch, &patch->queued);
}

static struct patch *changed_at(size_t index, size_t count)
{
	if (index + PREFETCH_AHEAD < count)
		patch_fetch(changed.items[index + PREFETCH_AHEAD]);
	return changed.items[index];
}

void handle_visit_changed(void (*visit)(struct patch *patch))
{
	for (size_t i = 0; i < changed.count; ++i)
		visit(changed_at(i, changed.count));
}

void handle_settle(bool (*settle)(struct patch *patch))
{
	size_t count = changed.count;

	/* Those that stay move to the front. */
	changed.count = 0;
	for (size_t i = 0; i < count; ++i) {
		struct patch *patch = changed_at(i, count);

		patch->queued = 0;
		if (!settle(patch))
			handle_change(patch);
	}
}
