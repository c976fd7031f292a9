/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of patches whose hooks were closed, and looks at the threads that tell when no thread uses a patch's records
 * any more. Nothing here waits, and nothing here calls a destroy function: the caller does, without the library lock.
 */
#include "patch/quiesce.h"

#include "base/thread_safety.h"
#include "patch/handle.h"
#include "patch/hook_list.h"
#include "patch/patch_object.h"
#include "patch/place.h"
#include "runtime/hook_guard.h"
#include "sys/membarrier.h"
#include "runtime/hook_threads.h"
#include "runtime/own_stack.h"

static uint64_t last_ticket;
/* Linked by quiet_next: closed but not known to be quiet; due; being destroyed. */
static struct patch *waiting;
static struct patch *in_use; /* during a look: they were on `waiting`, and a thread is in them */
static struct patch *due;
static struct patch *due_last; /* unless there is none */
static struct patch *dying;

static void quiesce_insert(struct patch **link, struct patch *patch)
{
	patch->quiet_next = *link;
	patch->quiet_link = link;
	if (*link != NULL)
		(*link)->quiet_link = &patch->quiet_next;
	*link = patch;
}

static void quiesce_take_off(struct patch *patch)
{
	*patch->quiet_link = patch->quiet_next;
	if (patch->quiet_next != NULL)
		patch->quiet_next->quiet_link = patch->quiet_link;
}

void quiesce_set_open(struct patch *patch, bool open)
{
	if (open == patch_is_open(patch))
		return;
	if (open) {
		if (patch->life == LIFE_CLOSED)
			quiesce_take_off(patch);
		patch_set_life(patch, LIFE_OPEN);
		place_update(patch);
		return;
	}
	patch_set_life(patch, LIFE_CLOSED);
	place_update(patch);
	patch->fence = memory_fence_count();
	patch->ticket = ++last_ticket;
	quiesce_insert(&waiting, patch);
}

/*
 * Put the patch on the list of those that are due, which is in order of patch_unmake(); as a rule they come in that
 * order. A patch without a destroy function is freed at once.
 */
REQUIRES(library_lock)
static void quiesce_become_due(struct patch *patch)
{
	struct patch **link = due != NULL && due_last->unmade < patch->unmade ? &due_last->quiet_next : &due;

	patch_set_life(patch, LIFE_DUE);
	if (patch->destroy == NULL) {
		handle_free(patch);
		return;
	}
	while (*link != NULL && (*link)->unmade < patch->unmade)
		link = &(*link)->quiet_next;
	quiesce_insert(link, patch);
	if (patch->quiet_next == NULL)
		due_last = patch;
}

void quiesce_detached(struct patch *patch)
{
	quiesce_set_open(patch, false);
	patch->ticket = ++last_ticket;
	if (patch->life == LIFE_QUIET)
		quiesce_become_due(patch);
	else
		patch_set_life(patch, LIFE_DETACHED);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

/* Does a thread use the patch that uses this record, which is that of `list`, if it is one's? */
static bool quiesce_is_used(const struct patch *patch, const struct hook_use *use, const struct hook_list *list)
{
	for (size_t i = 0; i < patch->count; ++i)
		if (use->record == (uintptr_t)&patch->attachments[i].record)
			return true;
	return list != NULL && hook_list_is_in(list, use, patch->order);
}

static void quiesce_see(const struct hook_use *use, void *data) NO_THREAD_SAFETY_ANALYSIS
{
	const struct hook_list *list = waiting != NULL ? hook_list_find(use->record) : NULL;
	bool *unknown = data;

	if (use->record == 0)
		*unknown = true;
	hook_list_see(use->record);
	for (struct patch *patch = waiting, *next; patch != NULL; patch = next) {
		next = patch->quiet_next;
		if (!quiesce_is_used(patch, use, list))
			continue;
		quiesce_take_off(patch);
		quiesce_insert(&in_use, patch);
	}
}

/* The first patch was closed last, or else every patch was fenced by an earlier look. The same for lists. */
REQUIRES(library_lock)
static bool quiesce_is_fenced(void)
{
	return ((waiting == NULL || waiting->fence != memory_fence_count()) && hook_list_is_fenced()) ||
	       memory_fence() == 0;
}

void quiesce_poll(void)
{
	bool unknown = false;

	own_stack_collect();
	if ((waiting == NULL && hook_list_waiting() == 0) || !quiesce_is_fenced())
		return;
	if (!hook_threads_visit(quiesce_see, &unknown))
		unknown = true;
	hook_list_looked(!unknown);
	while (!unknown && waiting != NULL) {
		struct patch *patch = waiting;

		quiesce_take_off(patch);
		if (patch->life == LIFE_DETACHED)
			quiesce_become_due(patch);
		else
			patch_set_life(patch, LIFE_QUIET);
	}
	while (in_use != NULL) {
		struct patch *patch = in_use;

		quiesce_take_off(patch);
		quiesce_insert(&waiting, patch);
	}
}

void quiesce_lists(size_t most)
{
	if (hook_list_waiting() > most)
		quiesce_poll();
}

/* ---- destroying ------------------------------------------------------------------------------------------------- */

bool quiesce_is_due(void)
{
	return due != NULL;
}

struct patch *quiesce_take(void)
{
	struct patch *patch = due;

	if (patch == NULL)
		return NULL;
	quiesce_take_off(patch);
	patch_set_life(patch, LIFE_DYING);
	patch->runner = &libpatch_hook_guard;
	quiesce_insert(&dying, patch);
	return patch;
}

void quiesce_destroyed(struct patch *patch)
{
	quiesce_take_off(patch);
	handle_free(patch);
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

uint64_t quiesce_ticket(void)
{
	return last_ticket;
}

static const struct patch *quiesce_up_to(const struct patch *list, uint64_t ticket, const void *but_runner)
{
	for (; list != NULL; list = list->quiet_next)
		if (list->ticket <= ticket && (but_runner == NULL || list->runner != but_runner))
			return list;
	return NULL;
}

struct quiesce_own {
	uint64_t ticket;
	const struct patch *found;
};

/* Is it of a patch that is waited for? */
static void quiesce_see_own(const struct hook_use *use, void *data) NO_THREAD_SAFETY_ANALYSIS
{
	const struct hook_list *list = hook_list_find(use->record);
	struct quiesce_own *own = data;

	for (const struct patch *patch = waiting; patch != NULL; patch = patch->quiet_next)
		if (patch->ticket <= own->ticket && quiesce_is_used(patch, use, list))
			own->found = patch;
}

enum quiesce_state quiesce_state(uint64_t ticket, uintptr_t *site)
{
	struct quiesce_own own = { .ticket = ticket };
	const struct patch *patch;

	hook_threads_visit_own(quiesce_see_own, &own);
	patch = own.found;
	if (patch == NULL)
		patch = quiesce_up_to(waiting, ticket, NULL);
	if (patch == NULL)
		patch = quiesce_up_to(due, ticket, NULL);
	/* A destroy function that asks does not wait for itself. */
	if (patch == NULL)
		patch = quiesce_up_to(dying, ticket, &libpatch_hook_guard);
	if (patch == NULL)
		return QUIESCE_QUIET;
	*site = patch->located;
	return own.found != NULL ? QUIESCE_SELF : QUIESCE_BUSY;
}

bool quiesce_uses(uintptr_t lower, uintptr_t upper)
{
	const struct patch *patch;
	size_t index = 0;

	while ((patch = handle_next(&index)) != NULL)
		if (patch_refers_to(patch) - lower < upper - lower || (uintptr_t)patch->destroy - lower < upper - lower)
			return true;
	return false;
}
