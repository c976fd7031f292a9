/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the patches at a window to a trampoline that serves them: which hooks they stand for, whether the region has a
 * trampoline that can do that, and else what a new one is built for. Nothing here leads text to it.
 *
 * What a window keeps (I7): one trampoline for each set of masks and counters that its places had at a time, whoever
 * the patches were and however often they came and went.
 */
#include "patch/hookset.h"

#include "arch/cpu.h"
#include "arch/trap_bytes.h"
#include "base/bug.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "patch/place.h"
#include "patch/quiesce.h"

#include <string.h>

static bool hookset_precedes(const struct attachment *a, const struct attachment *b)
{
	if (a->address != b->address)
		return a->address < b->address;
	return a->patch->order < b->patch->order;
}

bool hookset_add(struct hookset *set, struct attachment *attachment)
{
	size_t at;

	if (attachment->when == HOOK_LEAD)
		return true;
	if (!heap_reserve(&set->list, &set->capacity, set->count + 1, sizeof(*set->list)))
		return false;
	for (at = set->count; at > 0 && hookset_precedes(attachment, set->list[at - 1]); --at)
		set->list[at] = set->list[at - 1];
	set->list[at] = attachment;
	++set->count;
	return true;
}

bool hookset_add_region(struct hookset *set, const struct region *region)
{
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!hookset_add(set, a))
			return false;
	return true;
}

void hookset_free(struct hookset *set)
{
	heap_free(set->list, set->capacity * sizeof(*set->list));
}

/* ---- the hooks that are wanted ---------------------------------------------------------------------------------- */

/*
 * The hooks that the attachments of a set stand for: those that count in front of the one that calls, and those that
 * divert behind it.
 */
struct hookset_hooks {
	struct hook *list;
	size_t count;
	size_t capacity;
};

static struct hook hookset_describe(const struct attachment *attachment)
{
	const struct patch *patch = attachment->patch;
	const uint8_t when = attachment->when;
	struct hook hook = {
		.address = attachment->address,
		.when = when,
		.code = {
			.read = patch->read,
			.write = patch->write,
			.clobber = patch->clobber,
			.program_counter = attachment_reports(attachment),
			.action = patch->action,
			.stamp = patch->stamp,
			.own = patch->own_stack,
		},
	};

	/* A function of more than 4 GiB is as good as not known. */
	if (patch->upper - patch->lower <= UINT32_MAX) {
		hook.lower = patch->lower;
		hook.upper = patch->upper;
	}
	if (when == HOOK_SYSCALL)
		hook.instead = (arch_syscall_hook_fn *)(uintptr_t)attachment->record.procedure;
	return hook;
}

/* The order of execution at equal addresses. */
static unsigned int hookset_rank(const struct hook *hook)
{
	return hook->code.action == ARCH_DIVERT ? 2 : hook->code.action == ARCH_CALL_PROCEDURE;
}

/* What calls procedures at a place is one hook, which does what any of its patches needs. */
static void hookset_add_hook(struct hookset_hooks *hooks, const struct hook *hook)
{
	size_t at = hooks->count;

	for (size_t i = 0; hook->code.action == ARCH_CALL_PROCEDURE && i < hooks->count; ++i) {
		struct hook *other = &hooks->list[i];

		if (!trampoline_same_kind(other, hook))
			continue;
		other->when |= hook->when;
		/* One of them does not rely on what is known at a function's entry. */
		if (hook->code.program_counter == hook->address)
			other->code.program_counter = hook->address;
		other->code.read |= hook->code.read;
		other->code.write |= hook->code.write;
		other->code.own |= hook->code.own;
		other->code.clobber = arch_join_clobber(other->code.clobber, hook->code.clobber);
		return;
	}
	BUG_ON_RETURN(hooks->count == hooks->capacity);
	for (; at > 0 && hookset_rank(&hooks->list[at - 1]) > hookset_rank(hook); --at)
		hooks->list[at] = hooks->list[at - 1];
	hooks->list[at] = *hook;
	++hooks->count;
}

/* False: out of memory. */
static bool hookset_collect(const struct hookset *set, struct hookset_hooks *hooks) REQUIRES(library_lock)
{
	*hooks = (struct hookset_hooks){ .capacity = set->count };
	hooks->list = heap_alloc(hooks->capacity * sizeof(*hooks->list));
	if (hooks->list == NULL)
		return false;
	for (size_t i = 0; i < set->count; ++i) {
		const struct hook hook = hookset_describe(set->list[i]);

		/* A released patch with a hook of its own has it until it is gone; one that is called needs none. */
		if (hook.code.action != ARCH_CALL_PROCEDURE || !patch_is_released(set->list[i]->patch))
			hookset_add_hook(hooks, &hook);
	}
	return true;
}

static void hookset_free_hooks(struct hookset_hooks *hooks) REQUIRES(library_lock)
{
	heap_free(hooks->list, hooks->capacity * sizeof(*hooks->list));
}

/* ---- a trampoline that can do it -------------------------------------------------------------------------------- */

/*
 * With so many trampolines of a window, one that does more than is wanted will do; and where none does, the next one
 * does all that any of them does. So there are no more of them than times that something can be added to that (I7).
 */
#define EXACT 8

/* All trampolines of a region, one after the other. NULL: begin; or that was the last one. */
static struct trampoline *hookset_built(const struct region *region, const struct trampoline *before)
{
	if (before == NULL && region->next != NULL)
		return region->next;
	if ((before == NULL || before == region->next) && region->current != NULL)
		return region->current;
	return before == NULL || before == region->next || before == region->current ? region->old : before->next;
}

/* The search among the trampolines of a region for the one that does the least beside what is wanted. */
struct hookset_search {
	struct trampoline *best;
	unsigned int excess;
	unsigned int count; /* of trampolines for the window */
};

static struct hookset_search hookset_search(const struct region *region, const struct window *window,
					    const struct hookset_hooks *hooks)
{
	struct hookset_search search = { .excess = TRAMPOLINE_UNFIT };
	struct trampoline *one = NULL;

	while ((one = hookset_built(region, one)) != NULL) {
		unsigned int excess;

		if (!trampoline_is_for(one, window))
			continue;
		++search.count;
		excess = trampoline_excess(one, hooks->list, hooks->count);
		if (excess < search.excess) {
			search.excess = excess;
			search.best = one;
		}
	}
	return search;
}

static void hookset_add_all(struct hookset_hooks *hooks, const struct trampoline *trampoline)
{
	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		struct hook hook = trampoline_hook(trampoline, i);

		/* Of counters and diverts each patch has its own. */
		if (hook.code.action != ARCH_CALL_PROCEDURE || hook.when == HOOK_SYSCALL)
			continue;
		hook.lower = hooks->list[0].lower;
		hook.upper = hooks->list[0].upper;
		hookset_add_hook(hooks, &hook);
	}
}

/* What is wanted, and all that the window's trampolines do. False: out of memory. */
static bool hookset_widen(struct hookset_hooks *wide, const struct hookset_hooks *hooks, const struct region *region,
			  const struct window *window) REQUIRES(library_lock)
{
	struct trampoline *one = NULL;

	*wide = (struct hookset_hooks){ .capacity = hooks->count };
	while ((one = hookset_built(region, one)) != NULL)
		wide->capacity += one->hook_count;
	wide->list = heap_alloc(wide->capacity * sizeof(*wide->list));
	if (wide->list == NULL)
		return false;
	memcpy(wide->list, hooks->list, hooks->count * sizeof(*hooks->list));
	wide->count = hooks->count;
	while ((one = hookset_built(region, one)) != NULL)
		if (trampoline_is_for(one, window))
			hookset_add_all(wide, one);
	return true;
}

static patch_status hookset_build_wide(const struct region *region, struct window *window,
				       const struct hookset_hooks *hooks, struct trampoline **out,
				       const char **message) REQUIRES(library_lock)
{
	struct hookset_hooks wide;
	patch_status status = PATCH_ENOMEM;

	if (hookset_widen(&wide, hooks, region, window))
		status = trampoline_build(window, wide.list, wide.count, out, message);
	hookset_free_hooks(&wide);
	return status;
}

/* One that the region has, or a new one: *is_new. */
static patch_status hookset_find_or_build(const struct region *region, struct window *window,
					  const struct hookset_hooks *hooks, struct trampoline **out, bool *is_new,
					  const char **message) REQUIRES(library_lock)
{
	const struct hookset_search search = hookset_search(region, window, hooks);
	patch_status status;

	*out = search.best;
	*is_new = false;
	if (search.excess == 0 || (search.best != NULL && search.count >= EXACT))
		return PATCH_OK;
	status = PATCH_ENOMEM;
	if (search.count >= EXACT && hooks->count > 0)
		status = hookset_build_wide(region, window, hooks, out, message);
	if (status != PATCH_OK)
		status = trampoline_build(window, hooks->list, hooks->count, out, message);
	*is_new = status == PATCH_OK;
	if (status == PATCH_OK || search.best == NULL)
		return status;
	/* Slower than it need be, and right. */
	*out = search.best;
	return PATCH_OK;
}

/* ---- the set ---------------------------------------------------------------------------------------------------- */

/* When a pad that threads may be at is led to another trampoline, traps at the pad are served by this entry. */
static bool hookset_make_pad_entry(struct region *region) REQUIRES(library_lock)
{
	if (!region->pad_reachable || region->pad_entry != NULL)
		return true;
	region->pad_entry = registry_add(region->pad);
	if (region->pad_entry == NULL)
		return false;
	region->pad_entry->length = ARCH_JMP_SIZE;
	return true;
}

/* Where the instruction branches to. */
REQUIRES(library_lock)
static void hookset_add_lead(struct window *window, const struct arch_insn *insn)
{
	const struct registry_entry *entry;
	struct lead *lead;

	if (!arch_is_direct_jump(insn->kind) || insn->target - window->start < window->length ||
	    window->lead_count == WINDOW_LEADS_MAX)
		return;
	entry = registry_find(insn->target);
	lead = entry != NULL ? registry_lead(entry) : NULL;
	if (lead == NULL)
		return;
	for (unsigned int i = 0; i < window->lead_count; ++i)
		if (window->leads[i].target == insn->target)
			return;
	window->leads[window->lead_count++] = (struct window_lead){ insn->target, lead };
}

REQUIRES(library_lock)
static struct window hookset_window(const struct region *region, const struct arch_insn *insns)
{
	struct window window = {
		.start = region->start,
		.length = region->length,
		.count = region->count,
		.strategy = region->strategy,
		.offsets = region->offsets,
		.original = region->original,
		.insns = insns,
		.pad = region->pad,
		.shadow_stack = arch_has_shadow_stack(),
	};

	for (unsigned int i = 0; i < region->count; ++i) {
		uint8_t offset = region->offsets[i];
		struct arch_insn decoded;

		if (insns != NULL)
			hookset_add_lead(&window, &insns[i]);
		else if (arch_decode(region->original + offset, region->offsets[i + 1] - offset, region->start + offset,
				     &decoded))
			hookset_add_lead(&window, &decoded);
	}
	return window;
}

/* Lists that no thread walks any more are found when threads are looked at: not only in commits. */
#define LISTS_WAITING_MAX 64

patch_status hookset_build(const struct hookset *set, struct region *region, const struct arch_insn *insns,
			   struct trampoline **out, struct refusal *refusal)
{
	struct window window = hookset_window(region, insns);
	struct hookset_hooks hooks;
	patch_status status = PATCH_ENOMEM;
	bool is_new = false;

	refusal->irritant = region->start;
	refusal->message = "out of memory";
	if (hookset_collect(set, &hooks) && hookset_make_pad_entry(region)) {
		status = hookset_find_or_build(region, &window, &hooks, out, &is_new, &refusal->message);
		region->pad = window.pad;
	}
	hookset_free_hooks(&hooks);
	if (status != PATCH_OK)
		return status;
	if (!place_use(*out, set->list, set->count)) {
		if (is_new)
			trampoline_free(*out);
		refusal->message = "out of memory";
		return PATCH_ENOMEM;
	}
	quiesce_lists(LISTS_WAITING_MAX);
	return PATCH_OK;
}

void hookset_settle_for_less(struct region *region)
{
	struct window window = hookset_window(region, NULL);
	struct hookset_hooks hooks;
	struct hookset set = { 0 };

	/* Mostly there is no other trampoline. */
	if (region->old == NULL && (region->next == NULL || region->current == NULL))
		return;
	if (hookset_add_region(&set, region) && hookset_collect(&set, &hooks)) {
		struct trampoline *less;

		less = hooks.count > 0 ? hookset_search(region, &window, &hooks).best : NULL;
		if (less != NULL && less != region_trampoline(region) && hookset_make_pad_entry(region) &&
		    place_use(less, set.list, set.count))
			region_set_next(region, less);
		hookset_free_hooks(&hooks);
	}
	hookset_free(&set);
}

static bool hookset_is_wanted(const struct hookset *set)
{
	for (size_t i = 0; i < set->count; ++i)
		if (!patch_is_released(set->list[i]->patch))
			return true;
	return false;
}

patch_status hookset_build_trap(struct region *region, struct trampoline **out, struct refusal *refusal)
{
	struct hookset set = { 0 };
	uint8_t strategy = region->strategy;
	patch_status status = PATCH_ENOMEM;

	*refusal = (struct refusal){ "out of memory", region->start };
	*out = NULL;
	region->strategy = PATCH_STRATEGY_TRAP;
	if (hookset_add_region(&set, region))
		status = hookset_is_wanted(&set) ? hookset_build(&set, region, NULL, out, refusal) : PATCH_OK;
	hookset_free(&set);
	region->strategy = strategy;
	return status;
}
