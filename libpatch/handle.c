/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handle.h"

#include "heap.h"
#include "region.h"

#define NONE UINT32_MAX

struct slot {
	struct patch *patch; /* NULL: free or revoked */
	uint32_t generation; /* never 0 in a handle */
	uint32_t next_free;
};

static struct slot *slots;
static size_t slot_capacity;
static size_t slot_count;
static uint32_t first_free = NONE;
static uint64_t live;
/* Every patch there is. */
static struct patch *all;
static uint64_t all_count;

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

struct patch *handle_alloc(patch_t *handle, unsigned int roles)
{
	struct patch *patch;
	uint32_t index = first_free;

	if (index == NONE && !make_room())
		return NULL;
	patch = heap_alloc(patch_size(roles));
	if (patch == NULL)
		return NULL;
	if (index != NONE)
		first_free = slots[index].next_free;
	else
		index = (uint32_t)slot_count++;
	if (++slots[index].generation == 0)
		slots[index].generation = 1;
	slots[index].patch = patch;
	patch->roles = (uint8_t)roles;
	patch->slot = index;
	*handle = (patch_t)((uintptr_t)slots[index].generation << 32 | index);
	++live;
	patch->all_next = all;
	patch->all_link = &all;
	if (all != NULL)
		all->all_link = &patch->all_next;
	all = patch;
	++all_count;
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
	uint32_t index = patch->slot;

	if (slots[index].patch != patch)
		return;
	slots[index].patch = NULL;
	slots[index].next_free = first_free;
	first_free = index;
	--live;
}

void handle_free(struct patch *patch)
{
	handle_revoke(patch);
	*patch->all_link = patch->all_next;
	if (patch->all_next != NULL)
		patch->all_next->all_link = patch->all_link;
	--all_count;
	heap_free(patch, patch_size(patch->roles));
}

void handle_revoke_all(void (*visit)(struct patch *patch))
{
	for (size_t i = 0; i < slot_count; ++i) {
		struct patch *patch = slots[i].patch;

		if (patch == NULL)
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
	return all_count - live;
}

struct patch *handle_first(void)
{
	return all;
}
