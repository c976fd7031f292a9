/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of patches at one hook: walking them, in hooks, and their memory, with the library lock held. What is in a list
 * is decided in place_use.c, and which slots hold it in place.c.
 */
#include "patch/hook_list.h"

#include "base/heap.h"
#include "runtime/hook_pairs.h"
#include "runtime/shadow.h"
#include "sys/membarrier.h"

#include <libpatch/patch.h>
#include <stdatomic.h>

/* ---- in hooks --------------------------------------------------------------------------------------------------- */

/* `current`: one more than the index of the entry; 0: none. The context is in the hook's frame. */
static void hook_list_set_current(struct patch_exec_context *context, uint32_t current)
{
	*(volatile uint32_t *)((uint8_t *)context - ARCH_HOOK_FRAME_CONTEXT + ARCH_HOOK_FRAME_CURRENT) = current;
}

/* A procedure that is called as if the hook were its own: a mask, an address or an image of state differs. */
static void hook_list_call_as_own(const struct hook_list *list, const struct hook_list_entry *entry,
				  struct patch_exec_context *context, uint8_t post)
{
	const uintptr_t program_counter = context->program_counter;
	void *const extended = context->extended_states;
	patch_reg saved[PATCH_ARCH_GREGS_COUNT];
	uintptr_t reported = program_counter == list->program_counter ? entry->program_counter : program_counter;

	context->program_counter = reported;
	context->extended_states = entry->extended ? extended : NULL;
	for (uint64_t left = entry->kept; left != 0; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);

		saved[i] = context->general_purpose_registers[i];
	}
	entry->procedure(context, post);
	/* The hook loads back all that any of them may change. */
	for (uint64_t left = entry->kept; left != 0; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);

		context->general_purpose_registers[i] = saved[i];
	}
	if (context->program_counter == reported)
		context->program_counter = program_counter;
	context->extended_states = extended;
}

/* False: the thread goes on elsewhere, and there are no more calls here. */
static inline bool hook_list_call(const struct hook_list *list, const struct hook_list_entry *entry,
				  struct patch_exec_context *context, uint8_t post)
{
	const uintptr_t program_counter = context->program_counter;

	context->user_data = entry->user_data;
	if (entry->alike)
		entry->procedure(context, post);
	else
		hook_list_call_as_own(list, entry, context, post);
	return context->program_counter == program_counter;
}

/*
 * Walkers are probe procedures: of HOOK_AROUND, with two walks, and of HOOK_ENTRY, or of a hook that is both; of a
 * function's exits; and of all others, wherever the hook may be. They are what a hit costs, so that loops are written
 * out.
 */
static void hook_list_walk(struct patch_exec_context *context, uint8_t post)
{
	const struct hook_list *list = context->user_data;

	for (uint32_t i = 0; i < list->count; ++i) {
		const struct hook_list_entry *entry = &list->entries[i];

		hook_list_set_current(context, i + 1);
		if (!atomic_load_explicit(&entry->closed, memory_order_relaxed) &&
		    !hook_list_call(list, entry, context, post))
			return;
	}
}

/* Behind the instruction: those that were called in front of it. */
static void hook_list_walk_back(const struct hook_list *list, struct patch_exec_context *context)
{
	const uint64_t called = hook_pairs_top()->called;

	/* The pair says it. */
	hook_list_set_current(context, 0);
	for (uint32_t i = list->count; i-- > 0;) {
		const struct hook_list_entry *entry = &list->entries[i];

		if ((entry->around & called) != 0 && !hook_list_call(list, entry, context, 1))
			return;
	}
}

static void hook_list_walk_noting(struct patch_exec_context *context, uint8_t post)
{
	const struct hook_list *list = context->user_data;
	const uintptr_t base = (uintptr_t)context - ARCH_HOOK_FRAME_CONTEXT;
	uint64_t *word = list->when & HOOK_ENTRY & ~HOOK_BEFORE ? shadow_word(arch_hook_stack_pointer(base)) : NULL;
	uint64_t called = 0;

	if (post) {
		hook_list_walk_back(list, context);
		return;
	}
	for (uint32_t i = 0; i < list->count; ++i) {
		const struct hook_list_entry *entry = &list->entries[i];
		uint64_t pair;

		hook_list_set_current(context, i + 1);
		if (atomic_load_explicit(&entry->closed, memory_order_relaxed))
			continue;
		called |= entry->around;
		/* The last one that was opened is what all of them find. */
		pair = atomic_load_explicit(&entry->pair, memory_order_relaxed);
		if (word != NULL && pair > *word)
			*word = pair;
		/* The instruction is not executed, and there is no second call. */
		if (!hook_list_call(list, entry, context, 0)) {
			called = 0;
			break;
		}
	}
	if (!hook_includes(list->when, HOOK_AROUND))
		return;
	hook_pairs_next(list->slot, base)->called = called;
	hook_list_set_current(context, list->count + 1U);
}

/* At a function's exit: those that were called at its entry, since they were opened. */
static void hook_list_walk_exit(struct patch_exec_context *context, uint8_t post)
{
	const struct hook_list *list = context->user_data;
	const uint64_t *word = (const uint64_t *)((uintptr_t)context - ARCH_HOOK_FRAME_CONTEXT +
						  ARCH_HOOK_FRAME_REPORTED);
	const uint64_t noted = *word;

	for (uint32_t i = 0; i < list->count; ++i) {
		const struct hook_list_entry *entry = &list->entries[i];

		hook_list_set_current(context, i + 1);
		if (!atomic_load_explicit(&entry->closed, memory_order_relaxed) &&
		    (noted - atomic_load_explicit(&entry->pair, memory_order_relaxed)) >> 32 == 0 &&
		    !hook_list_call(list, entry, context, post))
			return;
	}
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static struct hook_list *lists;   /* that are some hook's */
static struct hook_list *retired; /* that threads may walk still; the last one first */
static size_t waiting;

static size_t hook_list_size(size_t count)
{
	return sizeof(struct hook_list) + count * sizeof(struct hook_list_entry);
}

static void hook_list_insert(struct hook_list **link, struct hook_list *list)
{
	list->next = *link;
	list->link = link;
	if (*link != NULL)
		(*link)->link = &list->next;
	*link = list;
}

static void hook_list_take_off(struct hook_list *list)
{
	*list->link = list->next;
	if (list->next != NULL)
		list->next->link = list->link;
}

struct hook_list *hook_list_alloc(size_t count, unsigned int when)
{
	struct hook_list *list = heap_alloc(hook_list_size(count));

	if (list == NULL)
		return NULL;
	list->record = (struct hook_record){ hook_list_walk, list, 0 };
	if (when & (HOOK_EXIT | HOOK_FALL))
		list->record = (struct hook_record){ hook_list_walk_exit, list, (uint64_t)HOOK_PAIR_ANY << 32 };
	else if (when & (HOOK_AROUND | HOOK_ENTRY) & ~HOOK_BEFORE)
		list->record.procedure = hook_list_walk_noting;
	list->when = (uint8_t)when;
	list->count = (uint32_t)count;
	hook_list_insert(&lists, list);
	return list;
}

static void hook_list_free(struct hook_list *list) REQUIRES(library_lock)
{
	hook_list_take_off(list);
	heap_free(list, hook_list_size(list->count));
}

void hook_list_retire(struct hook_list *list)
{
	if (!list->published) {
		hook_list_free(list);
		return;
	}
	hook_list_take_off(list);
	list->fence = memory_fence_count();
	hook_list_insert(&retired, list);
	++waiting;
}

void hook_list_close_retired(uint64_t id)
{
	for (struct hook_list *list = retired; list != NULL; list = list->next)
		for (size_t i = 0; i < list->count; ++i)
			if (list->entries[i].id == id)
				atomic_store(&list->entries[i].closed, true);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

static const struct hook_list *hook_list_of(const struct hook_list *list, uintptr_t record)
{
	while (list != NULL && (uintptr_t)&list->record != record)
		list = list->next;
	return list;
}

const struct hook_list *hook_list_find(uintptr_t record)
{
	const struct hook_list *list = hook_list_of(lists, record);

	return list != NULL ? list : hook_list_of(retired, record);
}

bool hook_list_is_in(const struct hook_list *list, const struct hook_use *use, uint64_t id)
{
	size_t i = 0;

	while (i < list->count && list->entries[i].id != id)
		++i;
	if (i == list->count)
		return false;
	/* In a frame that was not begun, `current` is what was on the stack before. */
	return i + 1 == use->current || (list->entries[i].around & use->called) != 0 ||
	       (list->entries[i].around != 0 && i + 1 < use->current);
}

size_t hook_list_waiting(void)
{
	return waiting;
}

bool hook_list_is_fenced(void)
{
	return retired == NULL || retired->fence != memory_fence_count();
}

void hook_list_see(uintptr_t record)
{
	for (struct hook_list *list = retired; list != NULL; list = list->next)
		list->seen |= (uintptr_t)&list->record == record;
}

void hook_list_looked(bool complete)
{
	for (struct hook_list *list = retired, *next; list != NULL; list = next) {
		next = list->next;
		if (!complete || list->seen) {
			list->seen = false;
			continue;
		}
		hook_list_free(list);
		--waiting;
	}
}
