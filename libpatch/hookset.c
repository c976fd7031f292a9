/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hookset.h"

#include "around.h"
#include "heap.h"
#include "site.h"

/* Trampolines of one region that are looked through for one to use again. */
#define REUSE_DEPTH 1024

static enum hook_when when_of(const struct attachment *attachment)
{
	return attachment->role == ROLE_RETURN ? HOOK_RETURNED : HOOK_BEFORE;
}

/* The hooks that one attachment stands for: one, or two for PROBE_AROUND on anything but a call. */
static size_t describe(const struct attachment *attachment, bool gated, struct hook *hooks)
{
	const struct patch *patch = attachment->patch;
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
			.procedure = (uintptr_t)patch->model.probe.procedure,
			.user_data = (uintptr_t)patch->model.probe.user_data,
			.program_counter = patch->located,
			.gate = gated ? patch->gate->address : 0,
			.post = attachment->role == ROLE_RETURN,
		},
	};
	if (patch->model.type == MODEL_INSTEAD) {
		hook->when = HOOK_INSTEAD;
		hook->code.gate = 0;
		return 1;
	}
	if (patch->pair != NULL) {
		hook->code.procedure = (uintptr_t)(attachment->role == ROLE_RETURN ? around_return : around_call);
		hook->code.user_data = (uintptr_t)patch->pair;
		return 1;
	}
	if (patch->model.type != PATCH_EXEC_MODEL_PROBE_AROUND)
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

static bool has_several_patches(const struct hookset *set)
{
	for (size_t i = 1; i < set->count; ++i)
		if (set->list[i]->patch != set->list[0]->patch)
			return true;
	return false;
}

/* Would its hooks be the same code? */
static bool is_alike(const struct gate *gate, const struct patch *patch)
{
	const struct patch_exec_model *a = &gate->model;
	const struct patch_exec_model *b = &patch->model;

	return gate->located == patch->located && a->type == b->type &&
	       a->probe.read_registers == b->probe.read_registers &&
	       a->probe.write_registers == b->probe.write_registers &&
	       a->probe.clobber_registers == b->probe.clobber_registers && a->probe.user_data == b->probe.user_data &&
	       a->probe.procedure == b->probe.procedure;
}

/* One that a patch now gone had for the same hooks, so that trampolines built for it fit again; or a new one. */
static struct gate *make_gate(struct patch *patch)
{
	struct registry_entry *entry = registry_find(patch->attachments[ROLE_SITE].address);
	struct gate *gate;

	for (gate = entry->gates; gate != NULL; gate = gate->next)
		if (gate->owner == NULL && is_alike(gate, patch))
			break;
	if (gate == NULL) {
		gate = heap_alloc(sizeof(*gate));
		if (gate == NULL)
			return NULL;
		gate->address = arena_gate_alloc(entry->address);
		if (gate->address == 0) {
			heap_free(gate, sizeof(*gate));
			return NULL;
		}
		gate->located = patch->located;
		gate->model = patch->model;
		gate->next = entry->gates;
		entry->gates = gate;
	}
	gate->owner = patch;
	return gate;
}

/*
 * Patches that share a region are enabled one by one without touching text: each has a gate, a byte that its hooks look at.
 */
static bool make_gates(const struct hookset *set)
{
	for (size_t i = 0; i < set->count; ++i) {
		struct patch *patch = set->list[i]->patch;

		if (patch->gate != NULL)
			continue;
		patch->gate = make_gate(patch);
		if (patch->gate == NULL)
			return false;
		*(volatile uint8_t *)patch->gate->address = patch->enabled;
	}
	return true;
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

static bool matches(const struct trampoline *trampoline, const struct window *window, const struct hook *hooks,
		    size_t count)
{
	return trampoline != NULL && trampoline_matches(trampoline, window, hooks, count);
}

static struct trampoline *find(struct region *region, const struct window *window, const struct hook *hooks, size_t count)
{
	struct trampoline *old = region->old;

	if (matches(region->next, window, hooks, count))
		return region->next;
	if (matches(region->current, window, hooks, count))
		return region->current;
	for (size_t i = 0; i < REUSE_DEPTH && old != NULL; ++i, old = old->next)
		if (trampoline_matches(old, window, hooks, count))
			return old;
	return NULL;
}

static struct window window_of(const struct region *region)
{
	return (struct window){ region->start,   region->length,   region->count, region->strategy,
				region->offsets, region->original, region->pad, site_has_shadow_stack() };
}

/* A trampoline for exactly these attachments: one the region has, or a new one. */
patch_status hookset_build(const struct hookset *set, struct region *region, struct trampoline **out,
			   struct refusal *refusal)
{
	bool gated = has_several_patches(set);
	size_t capacity = set->count * 2 * sizeof(struct hook);
	struct window window = window_of(region);
	struct hook *hooks = heap_alloc(capacity);
	patch_status status = PATCH_OK;
	size_t count = 0;

	refusal->irritant = region->start;
	refusal->message = "out of memory";
	if (hooks == NULL || !make_pad_entry(region) || (gated && !make_gates(set))) {
		heap_free(hooks, capacity);
		return PATCH_ENOMEM;
	}
	for (size_t i = 0; i < set->count; ++i)
		count += describe(set->list[i], gated, &hooks[count]);
	*out = find(region, &window, hooks, count);
	if (*out == NULL)
		status = trampoline_build(&window, hooks, count, out, &refusal->message);
	heap_free(hooks, capacity);
	region->pad = window.pad;
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
