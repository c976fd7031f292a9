/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which patches a hook calls. Stores to slots and lists only: what is called there may be called from then on. Nothing
 * here builds code, or leads text to it.
 */
#include "patch/place.h"

#include "base/bug.h"
#include "base/heap.h"
#include "patch/hook_list.h"

#include <libpatch/patch.h>
#include <stdatomic.h>

/* ---- what a slot holds ------------------------------------------------------------------------------------------ */

static uintptr_t place_content_of_list(const struct hook_list *list)
{
	const struct hook_list_entry *open = NULL;

	for (const struct hook_list_entry *entry = list->entries; entry < &list->entries[list->count]; ++entry) {
		if (atomic_load(&entry->closed))
			continue;
		if (open != NULL)
			return (uintptr_t)&list->record;
		open = entry;
	}
	if (open == NULL)
		return 0;
	return open->direct ? (uintptr_t)attachment_record(open->attachment) : (uintptr_t)&list->record;
}

/* Of the place's open diverts that were made before `order`, the one that was made last: its target; else `behind`. */
static uintptr_t place_diverted(const struct place *place, uint64_t order, uintptr_t behind)
{
	const struct attachment *last = NULL;

	for (const struct built_hook *hook = place->hooks; hook != NULL; hook = hook->next) {
		const struct attachment *user = hook->action == ARCH_DIVERT ? hook->only : NULL;

		if (user != NULL && patch_is_open(user->patch) && user->patch->order < order &&
		    (last == NULL || user->patch->order > last->patch->order))
			last = user;
	}
	return last != NULL ? (uintptr_t)last->content : behind;
}

static uintptr_t place_content(const struct built_hook *hook)
{
	if (hook->action == ARCH_DIVERT)
		return hook->place != NULL ? place_diverted(hook->place, UINT64_MAX, hook->behind) : hook->behind;
	if (hook->shared)
		return place_content_of_list(hook->list);
	return hook->only != NULL && patch_is_open(hook->only->patch) ? (uintptr_t)attachment_record(hook->only) : 0;
}

void place_set_slot(struct built_hook *hook)
{
	uintptr_t content = place_content(hook);

	if (hook->shared && content == (uintptr_t)&hook->list->record)
		hook->list->published = true;
	atomic_store((_Atomic uintptr_t *)hook->slot, content);
}

/* What programs were given leads past the patch, and those that were made after it. */
static void place_set_originals(const struct place *place)
{
	for (const struct built_hook *hook = place->hooks; hook != NULL; hook = hook->next) {
		const struct attachment *user = hook->action == ARCH_DIVERT ? hook->only : NULL;

		if (user != NULL && user->original != NULL)
			atomic_store((_Atomic uintptr_t *)user->original->original_slot,
				     place_diverted(place, user->patch->order, place->behind));
	}
}

static bool place_diverts_at(const struct built_hook *hook, const struct trampoline *trampoline, uintptr_t address)
{
	return hook->action == ARCH_DIVERT && trampoline->start + hook->at == address;
}

uintptr_t place_lend_original(struct trampoline *trampoline, struct attachment *attachment)
{
	struct built_hook *lent = trampoline->hooks;

	/* Each patch has one, of any trampoline: here is one for each of them. */
	while (!place_diverts_at(lent, trampoline, attachment->address) || lent->lent)
		++lent;
	lent->lent = true;
	trampoline->reachable = true;
	attachment->original = lent;
	if (attachment->place->behind == 0)
		attachment->place->behind = lent->behind;
	place_set_originals(attachment->place);
	return lent->original;
}

void place_lead_originals(const struct trampoline *trampoline)
{
	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		const struct built_hook *hook = &trampoline->hooks[i];

		if (hook->action != ARCH_DIVERT || hook->place == NULL)
			continue;
		hook->place->behind = hook->behind;
		place_set_originals(hook->place);
	}
}

static void place_update_hook(struct built_hook *hook, const struct attachment *attachment) REQUIRES(library_lock)
{
	for (size_t i = 0; hook->shared && i < hook->list->count; ++i) {
		struct hook_list_entry *entry = &hook->list->entries[i];

		if (entry->attachment != attachment)
			continue;
		atomic_store(&entry->pair, attachment_pair(attachment));
		atomic_store(&entry->closed, !patch_is_open(attachment->patch));
	}
	place_set_slot(hook);
}

/* A number for the function and this opening: more than those of openings before (runtime/shadow.h). */
static void place_renew_pair(struct patch *patch) REQUIRES(library_lock)
{
	static uint32_t functions GUARDED_BY(library_lock);
	struct place *place = patch->attachments[0].place;

	if (place == NULL || !hook_includes(patch->attachments[0].when, HOOK_ENTRY))
		return;
	if ((uint32_t)++place->pair <= 1) {
		functions += 2;
		place->pair = (uint64_t)functions << 32 | 1;
	}
	if (patch->paired)
		atomic_store((_Atomic uint64_t *)&patch_pair(patch)->id, place->pair);
	for (size_t i = 0; i < patch->count; ++i)
		atomic_store((_Atomic uint64_t *)&patch->attachments[i].record.pair, place->pair);
}

void place_update(struct patch *patch)
{
	if (patch_is_open(patch))
		place_renew_pair(patch);
	/* Exits open before the entry, and close behind it. */
	for (size_t n = 0; n < patch->count; ++n) {
		size_t i = patch_is_open(patch) ? patch->count - 1 - n : n;
		const struct place *place = patch->attachments[i].place;

		for (struct built_hook *hook = place != NULL ? place->hooks : NULL; hook != NULL; hook = hook->next)
			place_update_hook(hook, &patch->attachments[i]);
		if (place != NULL && patch->action == ARCH_DIVERT)
			place_set_originals(place);
	}
	if (!patch_is_open(patch))
		hook_list_close_retired(patch->order);
}

/* ---- who uses a hook -------------------------------------------------------------------------------------------- */

static void place_unlink(struct built_hook *hook)
{
	struct built_hook **link;

	if (hook->place == NULL)
		return;
	for (link = &hook->place->hooks; *link != NULL && *link != hook; link = &(*link)->next)
		;
	BUG_ON_RETURN(*link == NULL);
	*link = hook->next;
	hook->place = NULL;
	hook->next = NULL;
}

/* Nobody uses the hook any more. */
static void place_release(struct built_hook *hook) REQUIRES(library_lock)
{
	if (hook->shared)
		hook_list_retire(hook->list);
	hook->shared = false;
	hook->only = NULL;
	place_unlink(hook);
	place_set_slot(hook);
}

static void place_take_off(struct built_hook *hook, const struct attachment *attachment) REQUIRES(library_lock)
{
	bool any = false;

	if (hook->action == ARCH_DIVERT) {
		/* What else diverts there uses the same jump. */
		if (hook->only == attachment)
			hook->only = NULL;
		return;
	}
	if (!hook->shared) {
		if (hook->only == attachment)
			place_release(hook);
		return;
	}
	for (size_t i = 0; i < hook->list->count; ++i) {
		struct hook_list_entry *entry = &hook->list->entries[i];

		if (entry->attachment == attachment)
			entry->attachment = NULL;
		any |= entry->attachment != NULL;
	}
	if (!any)
		place_release(hook);
}

bool place_join(struct place *place, struct attachment *attachment)
{
	if (place == NULL)
		place = heap_alloc(sizeof(*place));
	if (place == NULL)
		return false;
	++place->attachments;
	attachment->place = place;
	return true;
}

void place_leave(struct attachment *attachment)
{
	struct place *place = attachment->place;

	if (place == NULL)
		return;
	for (struct built_hook *hook = place->hooks, *next; hook != NULL; hook = next) {
		next = hook->next;
		place_take_off(hook, attachment);
	}
	if (attachment->patch->action == ARCH_DIVERT && attachment->original != NULL)
		attachment->original->lent = false;
	attachment->place = NULL;
	if (--place->attachments > 0)
		return;
	while (place->hooks != NULL)
		place_release(place->hooks);
	heap_free(place, sizeof(*place));
}

void place_free_trampoline(struct trampoline *trampoline)
{
	for (size_t i = 0; i < trampoline->hook_count; ++i)
		if (trampoline->hooks[i].place != NULL)
			place_release(&trampoline->hooks[i]);
	trampoline_free(trampoline);
}
