/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the patches at a window to a trampoline that serves them: which hooks they stand for, whether the region has a
 * trampoline that can do that, and else what a new one is built for. Nothing here leads text to it.
 */
#include "patch/hookset.h"

#include "arch/cpu.h"
#include "arch/trap_bytes.h"
#include "base/heap.h"
#include "base/thread_safety.h"

/* Once a window has so many trampolines, one with more hooks than are wanted will do. */
#define SPARE_FROM 8
/* From then on a new one is built for SPARE times the hooks that are wanted, if that makes fewer than LARGER_MAX. */
#define SPARE 2
#define LARGER_MAX 256

static enum hook_when hookset_when(const struct attachment *attachment)
{
	if (attachment->role == ROLE_RETURN)
		return HOOK_RETURNED;
	switch (attachment->patch->type) {
	case MODEL_SYSCALL:
		return HOOK_SYSCALL;
	case PATCH_EXEC_MODEL_PROBE_AROUND:
		return HOOK_AROUND;
	default:
		return HOOK_BEFORE;
	}
}

/* The hook that an attachment stands for. */
static void hookset_describe(const struct attachment *attachment, struct hook *hook)
{
	struct patch *patch = attachment->patch;

	*hook = (struct hook){
		.address = attachment->address,
		.when = hookset_when(attachment),
		.code = {
			.read = patch->read,
			.write = patch->write,
			.clobber = patch->clobber,
			.program_counter = patch->located,
			.post = attachment->role == ROLE_RETURN,
			.action = patch->action,
			.stamp = patch->stamp,
		},
		.record = patch_record(patch, attachment->role),
		.owner = &patch->owner,
	};
	/* A function of more than 4 GiB is as good as not known. */
	if (patch->upper - patch->lower <= UINT32_MAX) {
		hook->lower = patch->lower;
		hook->upper = patch->upper;
	}
}

static bool hookset_precedes(const struct attachment *a, const struct attachment *b)
{
	if (a->address != b->address)
		return a->address < b->address;
	return a->patch->order < b->patch->order;
}

bool hookset_add(struct hookset *set, struct attachment *attachment)
{
	size_t at;

	if (set->count == set->capacity) {
		size_t capacity = MAX(set->capacity * 2, (size_t)8);
		struct attachment **list =
			heap_grow(set->list, set->capacity * sizeof(*list), capacity * sizeof(*list));

		if (list == NULL)
			return false;
		set->list = list;
		set->capacity = capacity;
	}
	for (at = set->count; at > 0 && hookset_precedes(attachment, set->list[at - 1]); --at)
		set->list[at] = set->list[at - 1];
	set->list[at] = attachment;
	++set->count;
	return true;
}

bool hookset_add_region(struct hookset *set, const struct region *region)
{
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_released(a->patch) && !hookset_add(set, a))
			return false;
	return true;
}

void hookset_free(struct hookset *set)
{
	heap_free(set->list, set->capacity * sizeof(*set->list));
}

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

static struct patch *hookset_patch_of(struct hook_owner *owner)
{
	return (struct patch *)((uint8_t *)owner - offsetof(struct patch, owner));
}

static bool hookset_owner_is_released(const struct hook_owner *owner)
{
	return patch_is_released(hookset_patch_of((struct hook_owner *)(uintptr_t)owner));
}

/* The search among the trampolines of a region for one that serves `hooks`. */
struct hookset_search {
	const struct window *window;
	const struct hook *hooks;
	size_t count;
	uint16_t *map;
	const struct trampoline *now; /* that the text leads to, or is about to */
	struct trampoline *best;
	struct trampoline *largest; /* of all for the window */
	size_t others;              /* how many are for the window, without `now` */
};

/* The best is the one with the fewest hooks that are not wanted. */
static void hookset_consider(struct hookset_search *search, struct trampoline *trampoline)
{
	if (trampoline == NULL || !trampoline_is_for(trampoline, search->window))
		return;
	search->others += trampoline != search->now;
	if (search->largest == NULL || trampoline->hook_count > search->largest->hook_count)
		search->largest = trampoline;
	if (search->best != NULL && search->best->hook_count <= trampoline->hook_count)
		return;
	if (trampoline_fits(trampoline, search->window, search->hooks, search->count, hookset_owner_is_released,
			    search->map))
		search->best = trampoline;
}

static struct trampoline *hookset_find(struct region *region, struct hookset_search *search)
{
	search->now = region_trampoline(region);
	hookset_consider(search, region->next);
	hookset_consider(search, region->current);
	for (struct trampoline *old = region->old; old != NULL; old = old->next)
		hookset_consider(search, old);
	/*
	 * Hooks that are not wanted cost time at each hit; but the number of trampolines of a window must have a bound
	 * (I7).
	 */
	if (search->best != NULL && search->best->hook_count > search->count && search->others < SPARE_FROM)
		return NULL;
	return search->best;
}

/* How many of these hooks have the place of this one. */
static size_t hookset_count_at(const struct hook *hooks, size_t count, const struct hook *place)
{
	size_t at = 0;

	for (size_t i = 0; i < count; ++i)
		at += trampoline_same_place(&hooks[i], place);
	return at;
}

static size_t hookset_count_alike(const struct hook *hooks, size_t count, const struct hook *hook)
{
	size_t alike = 0;

	for (size_t i = 0; i < count; ++i)
		alike += trampoline_alike(&hooks[i], hook);
	return alike;
}

static size_t hookset_count_of(const struct trampoline *trampoline, const struct hook *hook)
{
	size_t alike = 0;

	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		struct hook built = trampoline_hook(trampoline, i);

		alike += trampoline_alike(&built, hook);
	}
	return alike;
}

/* Hooks for more than is wanted. With LARGER_MAX of them the layout is too large to be built. */
struct hookset_layout {
	struct hook *hooks;
	size_t count;
};

/*
 * Add the hooks of one place. The kinds of hooks that are wanted there, and those that the largest trampoline has
 * there, take turns, so that hooks of any order find theirs; there are `spare` times as many turns as hooks are wanted,
 * so that patches that come later find hooks behind those of patches that stay.
 */
static void hookset_add_place(struct hookset_layout *layout, const struct hookset_search *search,
			      const struct hook *place, size_t spare)
{
	const struct trampoline *largest = search->largest;
	size_t begin = layout->count, kinds, turns = spare * hookset_count_at(search->hooks, search->count, place);

	if (hookset_count_at(layout->hooks, layout->count, place) > 0)
		return;
	for (size_t i = 0; i < largest->hook_count + search->count && layout->count < LARGER_MAX; ++i) {
		struct hook hook =
			i < largest->hook_count ? trampoline_hook(largest, i) : search->hooks[i - largest->hook_count];

		if (trampoline_same_place(&hook, place) &&
		    hookset_count_alike(layout->hooks + begin, layout->count - begin, &hook) == 0)
			layout->hooks[layout->count++] = hook;
	}
	kinds = layout->count - begin;
	/* One hook is called instead of the instruction: no more than one is needed. */
	if (place->when == HOOK_SYSCALL)
		return;
	if (spare > 1)
		turns = MAX(turns, hookset_count_of(largest, place));
	for (size_t i = kinds; i < kinds * turns && layout->count < LARGER_MAX; ++i)
		layout->hooks[layout->count++] = layout->hooks[begin + i % kinds];
}

/*
 * Where a window has many trampolines, a new one is built for more than is wanted: for all that the largest one can do,
 * in all orders. So their number has a bound: another one is needed only when, in each of them, a patch that stays has
 * one of the last places.
 */
static patch_status hookset_build_larger(struct window *window, const struct hookset_search *search, size_t spare,
					 struct trampoline **out) REQUIRES(library_lock)
{
	const struct trampoline *largest = search->largest;
	struct hookset_layout layout = { .hooks = heap_alloc(LARGER_MAX * sizeof(*layout.hooks)) };
	const char *message;
	patch_status status = PATCH_ENOMEM;

	if (layout.hooks == NULL)
		return PATCH_ENOMEM;
	for (size_t i = 0; i < search->count; ++i)
		hookset_add_place(&layout, search, &search->hooks[i], spare);
	for (size_t i = 0; i < largest->hook_count; ++i) {
		struct hook hook = trampoline_hook(largest, i);

		hookset_add_place(&layout, search, &hook, spare);
	}
	if (layout.count < LARGER_MAX)
		status = trampoline_build(window, layout.hooks, layout.count, out, &message);
	heap_free(layout.hooks, LARGER_MAX * sizeof(*layout.hooks));
	return status;
}

static patch_status hookset_build_new(struct window *window, const struct hookset_search *search,
				      struct trampoline **out, const char **message) REQUIRES(library_lock)
{
	if (search->others >= SPARE_FROM && search->largest != NULL)
		for (size_t spare = SPARE; spare > 0; --spare)
			if (hookset_build_larger(window, search, spare, out) == PATCH_OK)
				return PATCH_OK;
	return trampoline_build(window, search->hooks, search->count, out, message);
}

/* Give the hooks to their patches, and open those whose patch is open. */
static void hookset_hand_over(struct trampoline *trampoline, const struct hookset_search *search)
{
	for (size_t i = 0; i < search->count; ++i) {
		struct built_hook *hook = &trampoline->hooks[search->map[i]];
		struct hook_owner *owner = search->hooks[i].owner;

		if (hook->owner == owner)
			continue;
		hook->owner = owner;
		hook->next = owner->hooks;
		owner->hooks = hook;
		atomic_store((_Atomic uintptr_t *)hook->slot,
			     patch_is_open(hookset_patch_of(owner)) ? (uintptr_t)search->hooks[i].record : 0);
	}
}

static struct window hookset_window(const struct region *region, const struct arch_insn *insns)
{
	return (struct window){ region->start,          region->length,   region->count, region->strategy,
				region->offsets,        region->original, insns,         region->pad,
				arch_has_shadow_stack() };
}

/* A trampoline for these attachments: one the region has, or a new one. */
patch_status hookset_build(const struct hookset *set, struct region *region, const struct arch_insn *insns,
			   struct trampoline **out, struct refusal *refusal)
{
	size_t hooks_size = set->count * sizeof(struct hook);
	size_t map_size = set->count * sizeof(uint16_t);
	struct window window = hookset_window(region, insns);
	struct hook *hooks = heap_alloc(hooks_size);
	struct hookset_search search = {
		.window = &window, .hooks = hooks, .count = set->count, .map = heap_alloc(map_size)
	};
	patch_status status = PATCH_ENOMEM;

	refusal->irritant = region->start;
	refusal->message = "out of memory";
	if (hooks != NULL && search.map != NULL && hookset_make_pad_entry(region)) {
		for (size_t i = 0; i < set->count; ++i)
			hookset_describe(set->list[i], &hooks[i]);
		status = PATCH_OK;
		*out = hookset_find(region, &search);
		if (*out == NULL)
			status = hookset_build_new(&window, &search, out, &refusal->message);
		region->pad = window.pad;
	}
	if (status == PATCH_OK) {
		trampoline_fits(*out, &window, hooks, search.count, hookset_owner_is_released, search.map);
		hookset_hand_over(*out, &search);
	}
	heap_free(hooks, hooks_size);
	heap_free(search.map, map_size);
	return status;
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
		status = set.count == 0 ? PATCH_OK : hookset_build(&set, region, NULL, out, refusal);
	hookset_free(&set);
	region->strategy = strategy;
	return status;
}
