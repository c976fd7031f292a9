/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hookset.h"

#include "heap.h"
#include "site.h"

/* Trampolines of one region that are looked through for one to use again. */
#define REUSE_DEPTH 1024
/* From so many on, one with hooks that are not wanted will do, too. */
#define SPARE_FROM 8
#define LARGER_MAX 96

static enum hook_when when_of(const struct attachment *attachment)
{
	return attachment->role == ROLE_RETURN ? HOOK_RETURNED : HOOK_BEFORE;
}

/* The hooks that one attachment stands for: one, or two for PROBE_AROUND on anything but a call. */
static size_t describe(const struct attachment *attachment, struct hook *hooks)
{
	struct patch *patch = attachment->patch;
	struct hook *hook = &hooks[0];

	*hook = (struct hook){
		.address = attachment->address,
		.when = when_of(attachment),
		.lower = patch->lower,
		.upper = patch->upper,
		.code = {
			.read = patch->model.probe.read_registers,
			.write = patch->model.probe.write_registers,
			.clobber = patch->model.probe.clobber_registers,
			.program_counter = patch->located,
			.post = attachment->role == ROLE_RETURN,
		},
		.record = &patch->records[attachment->role],
		.owner = patch,
	};
	if (patch->model.type == MODEL_INSTEAD) {
		hook->when = HOOK_INSTEAD;
		return 1;
	}
	if (patch->paired || patch->model.type != PATCH_EXEC_MODEL_PROBE_AROUND)
		return 1;
	hooks[1] = hooks[0];
	hooks[1].when = HOOK_AFTER;
	hooks[1].code.post = 1;
	return 2;
}

static bool precedes(const struct attachment *a, const struct attachment *b)
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
		struct attachment **list = heap_grow(set->list, set->capacity * sizeof(*list),
						     capacity * sizeof(*list));

		if (list == NULL)
			return false;
		set->list = list;
		set->capacity = capacity;
	}
	for (at = set->count; at > 0 && precedes(attachment, set->list[at - 1]); --at)
		set->list[at] = set->list[at - 1];
	set->list[at] = attachment;
	++set->count;
	return true;
}

bool hookset_add_region(struct hookset *set, const struct region *region)
{
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!a->patch->released && !hookset_add(set, a))
			return false;
	return true;
}

void hookset_free(struct hookset *set)
{
	heap_free(set->list, set->capacity * sizeof(*set->list));
}

/* Needed once a pad that threads may be at is led to another trampoline. */
static bool make_pad_entry(struct region *region)
{
	if (!region->pad_reachable || region->pad_entry != NULL)
		return true;
	region->pad_entry = registry_add(region->pad);
	if (region->pad_entry == NULL)
		return false;
	region->pad_entry->length = ARCH_JMP_SIZE;
	return true;
}

static bool is_released(const struct patch *patch)
{
	return patch->released;
}

/* Trampolines that a window has had, and what was wanted of one. */
struct search {
	const struct window *window;
	const struct hook *hooks;
	size_t count;
	uint16_t *map;
	struct trampoline *best;
	struct trampoline *largest; /* of all for the window */
	size_t others; /* that are out of use */
};

/* The best is the one with the fewest hooks that are not wanted. */
static void consider(struct search *search, struct trampoline *trampoline)
{
	if (trampoline == NULL || !trampoline_is_for(trampoline, search->window))
		return;
	if (search->largest == NULL || trampoline->hook_count > search->largest->hook_count)
		search->largest = trampoline;
	if ((search->best == NULL || trampoline->hook_count < search->best->hook_count) &&
	    trampoline_fits(trampoline, search->window, search->hooks, search->count, is_released, search->map))
		search->best = trampoline;
}

static struct trampoline *find(struct region *region, struct search *search)
{
	consider(search, region->next);
	consider(search, region->current);
	for (struct trampoline *old = region->old; search->others < REUSE_DEPTH && old != NULL; old = old->next) {
		++search->others;
		consider(search, old);
	}
	/* Hooks that are not wanted take their time, too; but this must not go on for ever. */
	if (search->best != NULL && search->best->hook_count > search->count && search->others < SPARE_FROM)
		return NULL;
	return search->best;
}

/*
 * Where there are many already, a new one is built for more than is wanted: for all that the largest can do, so that some day
 * one can do everything. How long that gets is bounded: each hook that may be wanted as often as there are such hooks.
 */
static patch_status build_larger(struct window *window, struct search *search, struct trampoline **out)
{
	const struct trampoline *largest = search->largest;
	struct hook *hooks;
	const char *message;
	size_t size, count = 0, wanted = 0;
	patch_status status;

	if (search->others < SPARE_FROM || largest == NULL || largest->hook_count + search->count > LARGER_MAX)
		return PATCH_ENOMEM;
	size = (largest->hook_count + search->count) * sizeof(*hooks);
	hooks = heap_alloc(size);
	if (hooks == NULL)
		return PATCH_ENOMEM;
	for (size_t i = 0; i < largest->hook_count; ++i) {
		if (wanted < search->count && trampoline_alike(&largest->hooks[i], &search->hooks[wanted]))
			search->map[wanted++] = (uint16_t)i;
		hooks[count++] = largest->hooks[i];
	}
	while (wanted < search->count) {
		hooks[count] = search->hooks[wanted];
		search->map[wanted++] = (uint16_t)count++;
	}
	status = trampoline_build(window, hooks, count, out, &message);
	heap_free(hooks, size);
	return status;
}

static patch_status build(struct window *window, struct search *search, struct trampoline **out, const char **message)
{
	if (build_larger(window, search, out) == PATCH_OK)
		return PATCH_OK;
	for (size_t i = 0; i < search->count; ++i)
		search->map[i] = (uint16_t)i;
	return trampoline_build(window, search->hooks, search->count, out, message);
}

/* The hooks are their patches' from now on, and open if those are. */
static void hand_over(struct trampoline *trampoline, const struct search *search)
{
	for (size_t i = 0; i < search->count; ++i) {
		struct hook *hook = &trampoline->hooks[search->map[i]];
		struct patch *patch = search->hooks[i].owner;

		if (hook->owner == patch)
			continue;
		hook->record = search->hooks[i].record;
		hook->owner = patch;
		hook->link = &patch->hooks;
		hook->next = patch->hooks;
		if (hook->next != NULL)
			hook->next->link = &hook->next;
		patch->hooks = hook;
		atomic_store((_Atomic uintptr_t *)hook->code.slot, patch->open ? (uintptr_t)hook->record : 0);
	}
}

static struct window window_of(const struct region *region)
{
	return (struct window){ region->start,   region->length,   region->count, region->strategy,
				region->offsets, region->original, region->pad, site_has_shadow_stack() };
}

/* A trampoline for these attachments: one the region has, or a new one. */
patch_status hookset_build(const struct hookset *set, struct region *region, struct trampoline **out,
			   struct refusal *refusal)
{
	size_t hooks_size = set->count * 2 * sizeof(struct hook);
	size_t map_size = set->count * 2 * sizeof(uint16_t);
	struct window window = window_of(region);
	struct hook *hooks = heap_alloc(hooks_size);
	struct search search = { .window = &window, .hooks = hooks, .map = heap_alloc(map_size) };
	patch_status status = PATCH_ENOMEM;

	refusal->irritant = region->start;
	refusal->message = "out of memory";
	if (hooks != NULL && search.map != NULL && make_pad_entry(region)) {
		for (size_t i = 0; i < set->count; ++i)
			search.count += describe(set->list[i], &hooks[search.count]);
		status = PATCH_OK;
		*out = find(region, &search);
		if (*out == NULL)
			status = build(&window, &search, out, &refusal->message);
		else
			trampoline_fits(*out, &window, hooks, search.count, is_released, search.map);
		region->pad = window.pad;
	}
	if (status == PATCH_OK)
		hand_over(*out, &search);
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
		status = set.count == 0 ? PATCH_OK : hookset_build(&set, region, out, refusal);
	hookset_free(&set);
	region->strategy = strategy;
	return status;
}
