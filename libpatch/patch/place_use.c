/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which patches use which hook of a trampoline, and whether it calls them directly or through a list. All that may fail
 * is done before a slot changes.
 */
#include "patch/place.h"

#include "base/bug.h"
#include "base/heap.h"
#include "patch/hook_list.h"

/* Of these registers, those that the patch must not change. What a patch may destroy is in its write mask, too. */
static uint64_t place_kept(uint64_t registers, const struct patch *patch)
{
	return registers & ~patch->write & ARCH_GENERAL;
}

/* Does the hook do for a patch what a hook of its own would do? */
static bool place_is_alike(const struct trampoline *trampoline, const struct built_hook *hook,
			   const struct attachment *attachment)
{
	const struct patch *patch = attachment->patch;

	return place_kept(hook->write, patch) == 0 &&
	       arch_offers_state(hook->clobber) == arch_offers_state(patch->clobber) &&
	       trampoline->start + (uintptr_t)(intptr_t)hook->program_counter == attachment_reports(attachment);
}

/* So that its record may be in the slot. A hook around the instruction would call it behind the instruction, too. */
static bool place_is_direct(const struct trampoline *trampoline, const struct built_hook *hook,
			    const struct attachment *attachment)
{
	return !hook_includes(hook->when & ~attachment->when, HOOK_AROUND & ~HOOK_BEFORE) &&
	       place_is_alike(trampoline, hook, attachment);
}

static bool place_suffices(const struct built_hook *hook, const struct patch *patch)
{
	return (hook->own || !patch->own_stack) && (patch->read & ~hook->read) == 0 &&
	       (patch->write & ~hook->write) == 0 && arch_join_clobber(patch->clobber, hook->clobber) == hook->clobber;
}

/* Walks the attachments that a hook is to be used by, in order of call. */
struct place_users {
	const struct trampoline *trampoline;
	struct built_hook *hook;
	struct attachment *const *list;
	size_t count;
	size_t next;
};

static bool place_wants(const struct place_users *users, const struct attachment *attachment)
{
	const struct built_hook *hook = users->hook;

	/* Who asks for more is about to go, or this trampoline would not have been chosen. */
	return attachment->address == users->trampoline->start + hook->at &&
	       hook_includes(hook->when, attachment->when) &&
	       attachment->patch->action == ARCH_CALL_PROCEDURE && place_suffices(hook, attachment->patch);
}

/* In reverse behind the instruction. NULL: that was the last one. */
static struct attachment *place_next_user(struct place_users *users)
{
	while (users->next < users->count) {
		size_t at = users->next++;
		struct attachment *attachment =
			users->list[hook_is_post(users->hook->when) ? users->count - 1 - at : at];

		if (place_wants(users, attachment))
			return attachment;
	}
	return NULL;
}

static size_t place_count_users(struct place_users users)
{
	size_t count = 0;

	while (place_next_user(&users) != NULL)
		++count;
	return count;
}

/* Is the hook used by these already, and by nobody else? Entries whose patch is gone count as nothing. */
static bool place_has_users(struct place_users users)
{
	const struct built_hook *hook = users.hook;
	size_t i = 0;

	if (!hook->shared)
		return place_next_user(&users) == hook->only && (hook->only == NULL || place_next_user(&users) == NULL);
	for (;; ++i) {
		const struct attachment *user = place_next_user(&users);

		while (i < hook->list->count && hook->list->entries[i].attachment == NULL)
			++i;
		if (user == NULL || i == hook->list->count)
			return user == NULL && i == hook->list->count;
		if (hook->list->entries[i].attachment != user)
			return false;
	}
}

static bool place_needs_list(struct place_users users, size_t count)
{
	return count > 1 || (count == 1 && !place_is_direct(users.trampoline, users.hook, place_next_user(&users)));
}

static struct hook_list *place_make_list(struct place_users users, size_t count) REQUIRES(library_lock)
{
	struct hook_list *list = hook_list_alloc(count, users.hook->when);
	const struct attachment *user;
	struct hook_list_entry *entry;
	uint64_t around = 1;

	if (list == NULL)
		return NULL;
	list->slot = users.hook->slot;
	list->program_counter = users.trampoline->start + (uintptr_t)(intptr_t)users.hook->program_counter;
	for (entry = list->entries; (user = place_next_user(&users)) != NULL; ++entry) {
		const struct patch *patch = user->patch;

		entry->procedure = user->record.procedure;
		entry->user_data = user->record.user_data;
		entry->program_counter = attachment_reports(user);
		/* What another patch only reads is as the program had it, too. */
		entry->kept = place_kept(users.hook->read | users.hook->write, patch);
		entry->id = patch->order;
		entry->attachment = (struct attachment *)(uintptr_t)user;
		entry->closed = !patch_is_open(patch);
		entry->pair = attachment_pair(user);
		entry->direct = place_is_direct(users.trampoline, users.hook, user);
		entry->alike = entry->kept == 0 && place_is_alike(users.trampoline, users.hook, user);
		entry->extended = arch_offers_state(patch->clobber);
		if (!hook_includes(user->when, HOOK_AROUND))
			continue;
		entry->around = around;
		around <<= 1;
	}
	return list;
}

static void place_link(struct built_hook *hook, struct place *place)
{
	if (hook->place == place)
		return;
	hook->place = place;
	hook->next = place->hooks;
	place->hooks = hook;
}

/* The hook is to be used by all these, called directly or through `list`. */
static void place_give(struct place_users users, struct hook_list *list) REQUIRES(library_lock)
{
	struct built_hook *hook = users.hook;
	struct hook_list *before = hook->shared ? hook->list : NULL;
	struct attachment *first = place_next_user(&users);

	hook->shared = list != NULL;
	if (list != NULL)
		hook->list = list;
	else
		hook->only = first;
	place_link(hook, first->place);
	place_set_slot(hook);
	if (before != NULL)
		hook_list_retire(before);
}

/*
 * A hook that counts or diverts, for one patch: its own, else one that nobody uses. All that divert at a place use its
 * jump, and each of them has one of the hooks, for the sake of `original`.
 */
static void place_give_own(struct trampoline *trampoline, struct attachment *attachment) REQUIRES(library_lock)
{
	struct built_hook *free = NULL;
	bool given = false;

	for (size_t i = trampoline->hook_count; i-- > 0;) {
		struct built_hook *hook = &trampoline->hooks[i];

		if (hook->action != attachment->patch->action || hook->stamp != attachment->patch->stamp ||
		    trampoline->start + hook->at != attachment->address)
			continue;
		if (hook->action == ARCH_DIVERT)
			place_link(hook, attachment->place);
		given |= hook->only == attachment;
		if (hook->only == NULL)
			free = hook;
	}
	if (given)
		return;
	BUG_ON_RETURN(free == NULL);
	free->only = attachment;
	place_link(free, attachment->place);
	place_set_slot(free);
}

static void place_free_lists(struct hook_list **lists, size_t count) REQUIRES(library_lock)
{
	for (size_t i = 0; i < count; ++i)
		if (lists[i] != NULL)
			hook_list_retire(lists[i]);
	heap_free(lists, count * sizeof(struct hook_list *));
}

bool place_use(struct trampoline *trampoline, struct attachment *const *list, size_t count)
{
	struct place_users users = { .trampoline = trampoline, .list = list, .count = count };
	size_t hooks = trampoline->hook_count, i;
	struct hook_list **lists = heap_alloc(hooks * sizeof(*lists));
	bool enough = lists != NULL;

	/* First all that may fail. */
	for (i = 0; enough && i < hooks; ++i) {
		size_t n;

		users.hook = &trampoline->hooks[i];
		if (users.hook->action != ARCH_CALL_PROCEDURE || place_has_users(users))
			continue;
		n = place_count_users(users);
		if (place_needs_list(users, n)) {
			lists[i] = place_make_list(users, n);
			enough = lists[i] != NULL;
		}
	}
	if (!enough) {
		if (lists != NULL)
			place_free_lists(lists, hooks);
		return false;
	}
	for (i = 0; i < hooks; ++i) {
		users.hook = &trampoline->hooks[i];
		if (users.hook->action != ARCH_CALL_PROCEDURE || place_has_users(users) ||
		    place_count_users(users) == 0)
			continue;
		place_give(users, lists[i]);
		lists[i] = NULL;
	}
	place_free_lists(lists, hooks);
	for (i = 0; i < count; ++i)
		if (list[i]->patch->action != ARCH_CALL_PROCEDURE)
			place_give_own(trampoline, list[i]);
	/* The jump's slot may be another patch's hook's. */
	for (i = 0; i < hooks; ++i)
		if (trampoline->hooks[i].action == ARCH_DIVERT)
			place_set_slot(&trampoline->hooks[i]);
	return true;
}
