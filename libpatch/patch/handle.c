/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of handles, the patches in it, and the list of patches that have a change for the next commit. It owns the
 * memory of patches; it must not know regions.
 */
#include "patch/handle.h"

#include "base/heap.h"
#include "base/ptr_vec.h"
#include "base/thread_safety.h"
#include "patch/patch_object.h"

#define HANDLE_NONE UINT32_MAX

struct handle_entry {
	struct patch *patch; /* NULL: free */
	uint32_t generation; /* never 0 in a handle; grows when that is revoked */
	uint32_t next_free;
};

static struct handle_entry *handle_entries;
static size_t handle_capacity;
static size_t handle_used;
static uint32_t handle_first_free = HANDLE_NONE;
static uint64_t handle_live; /* patches whose handle is known */
static uint64_t handle_all;  /* patches */
static struct ptr_vec handle_changed;

static bool handle_make_room(void) REQUIRES(library_lock)
{
	return handle_used < HANDLE_NONE &&
	       heap_reserve(&handle_entries, &handle_capacity, handle_used + 1, sizeof(*handle_entries));
}

static void handle_renew(struct handle_entry *entry)
{
	if (++entry->generation == 0)
		entry->generation = 1;
}

struct patch *handle_alloc(patch_t *handle, unsigned int attachments, bool paired)
{
	struct patch *patch;
	uint32_t index = handle_first_free;

	LOCK_ASSERT_HELD();
	if ((index == HANDLE_NONE && !handle_make_room()) || !ptr_vec_reserve(&handle_changed, handle_all + 1))
		return NULL;
	patch = heap_alloc(patch_size(attachments, paired));
	if (patch == NULL)
		return NULL;
	if (index != HANDLE_NONE)
		handle_first_free = handle_entries[index].next_free;
	else
		handle_renew(&handle_entries[index = (uint32_t)handle_used++]);
	handle_entries[index].patch = patch;
	patch->count = (uint16_t)attachments;
	patch->paired = paired;
	patch->entry = index;
	*handle = (patch_t)((uintptr_t)handle_entries[index].generation << 32 | index);
	++handle_live;
	++handle_all;
	return patch;
}

struct patch *handle_get(patch_t handle)
{
	uint32_t index = (uint32_t)(uintptr_t)handle;

	if (index >= handle_used || handle_entries[index].generation != (uintptr_t)handle >> 32)
		return NULL;
	return handle_entries[index].patch;
}

void handle_revoke(struct patch *patch)
{
	LOCK_ASSERT_HELD();
	if (patch_is_released(patch))
		return;
	patch_set_goal(patch, GOAL_RELEASED);
	handle_renew(&handle_entries[patch->entry]);
	--handle_live;
}

void handle_free(struct patch *patch)
{
	struct handle_entry *entry = &handle_entries[patch->entry];

	handle_revoke(patch);
	entry->patch = NULL;
	entry->next_free = handle_first_free;
	handle_first_free = patch->entry;
	--handle_all;
	patch_set_life(patch, LIFE_FREED);
	heap_free(patch, patch_size(patch->count, patch->paired));
}

void handle_revoke_all(void (*visit)(struct patch *patch))
{
	size_t index = 0;
	struct patch *patch;

	while ((patch = handle_next(&index)) != NULL) {
		if (patch_is_released(patch))
			continue;
		handle_revoke(patch);
		visit(patch);
	}
}

uint64_t handle_count(void)
{
	return handle_live;
}

uint64_t handle_revoked_count(void)
{
	return handle_all - handle_live;
}

struct patch *handle_next(size_t *index)
{
	while (*index < handle_used) {
		struct patch *patch = handle_entries[(*index)++].patch;

		if (patch != NULL)
			return patch;
	}
	return NULL;
}

void handle_change(struct patch *patch)
{
	ptr_vec_add(&handle_changed, patch, &patch->queued);
}

static struct patch *handle_changed_at(size_t index, size_t count)
{
	if (index + PREFETCH_AHEAD < count)
		patch_fetch(handle_changed.items[index + PREFETCH_AHEAD]);
	return handle_changed.items[index];
}

void handle_visit_changed(void (*visit)(struct patch *patch))
{
	for (size_t i = 0; i < handle_changed.count; ++i)
		visit(handle_changed_at(i, handle_changed.count));
}

void handle_settle(bool (*settle)(struct patch *patch))
{
	size_t count = handle_changed.count;

	/* Those that stay move to the front. */
	handle_changed.count = 0;
	for (size_t i = 0; i < count; ++i) {
		struct patch *patch = handle_changed_at(i, count);

		patch->queued = 0;
		if (!settle(patch))
			handle_change(patch);
	}
}
