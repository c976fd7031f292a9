/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Can a trampoline that is there do what is wanted now? Compares hooks, windows and owners. Pure: nothing is emitted or
 * changed.
 */
#include "code/trampoline.h"

#include <string.h>

struct hook trampoline_hook(const struct trampoline *trampoline, size_t index)
{
	const struct built_hook *hook = &trampoline->hooks[index];
	uintptr_t address = trampoline->start + hook->at;

	return (struct hook){
		.address = address,
		.when = (enum hook_when)hook->when,
		.lower = hook->behind != 0 ? address - hook->before : 0,
		.upper = hook->behind != 0 ? address + hook->behind : 0,
		.code = {
			.read = hook->read,
			.write = hook->write,
			.clobber = hook->clobber,
			.program_counter = trampoline->start + (uintptr_t)(intptr_t)hook->program_counter,
			.slot = hook->slot,
			.post = hook->post,
			.action = hook->action,
			.stamp = hook->stamp,
		},
	};
}

bool trampoline_alike(const struct hook *a, const struct hook *b)
{
	return a->address == b->address && a->when == b->when && a->lower == b->lower && a->upper == b->upper &&
	       a->code.read == b->code.read && a->code.write == b->code.write && a->code.clobber == b->code.clobber &&
	       a->code.program_counter == b->code.program_counter && a->code.post == b->code.post &&
	       a->code.action == b->code.action && a->code.stamp == b->code.stamp;
}

static uintptr_t trampoline_jump_target(const struct trampoline *trampoline)
{
	int32_t displacement;

	memcpy(&displacement, trampoline->jump + 1, sizeof(displacement));
	return trampoline->start + ARCH_JMP_SIZE + displacement;
}

bool trampoline_is_for(const struct trampoline *trampoline, const struct window *window)
{
	return trampoline->start == window->start && trampoline->length == window->length &&
	       trampoline->strategy == window->strategy &&
	       (window->strategy == PATCH_STRATEGY_TRAP || window->strategy == PATCH_STRATEGY_JUMP ||
		trampoline_jump_target(trampoline) == window->pad);
}

/* What is around an instruction is before it, too. */
static enum hook_when trampoline_instant(enum hook_when when)
{
	return when == HOOK_AROUND ? HOOK_BEFORE : when;
}

bool trampoline_same_place(const struct hook *a, const struct hook *b)
{
	return a->address == b->address && trampoline_instant(a->when) == trampoline_instant(b->when);
}

static bool trampoline_hook_is(const struct trampoline *trampoline, size_t index, const struct hook *wanted)
{
	struct hook hook = trampoline_hook(trampoline, index);

	return trampoline_alike(&hook, wanted);
}

/* Where the hook is its patch's already: threads may be on their way to it, so that no other will do. */
static size_t trampoline_own_index(const struct trampoline *trampoline, const struct hook *wanted)
{
	size_t i = 0;

	while (i < trampoline->hook_count &&
	       !(trampoline->hooks[i].owner != NULL && trampoline->hooks[i].owner == wanted->owner &&
		 trampoline_hook_is(trampoline, i, wanted)))
		++i;
	return i;
}

static size_t trampoline_free_index(const struct trampoline *trampoline, const struct hook *wanted, size_t from)
{
	while (from < trampoline->hook_count &&
	       !(trampoline->hooks[from].owner == NULL && trampoline_hook_is(trampoline, from, wanted)))
		++from;
	return from;
}

static bool trampoline_is_mapped(const uint16_t *map, size_t count, size_t index)
{
	while (count > 0 && map[count - 1] != index)
		--count;
	return count > 0;
}

bool trampoline_fits(const struct trampoline *trampoline, const struct window *window, const struct hook *hooks,
		     size_t count, bool (*ignore)(const struct hook_owner *owner), uint16_t *map)
{
	if (trampoline->hook_count < count || !trampoline_is_for(trampoline, window))
		return false;
	/* The first one that will do is the best: none of those behind it is lost. */
	for (size_t w = 0; w < count; ++w) {
		size_t index = trampoline_own_index(trampoline, &hooks[w]), from = 0;

		for (size_t before = w; before > 0 && from == 0; --before)
			if (trampoline_same_place(&hooks[before - 1], &hooks[w]))
				from = map[before - 1] + 1U;
		if (index == trampoline->hook_count)
			index = trampoline_free_index(trampoline, &hooks[w], from);
		if (index < from || index == trampoline->hook_count)
			return false;
		map[w] = (uint16_t)index;
	}
	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		const struct hook_owner *owner = trampoline->hooks[i].owner;

		if (owner != NULL && !ignore(owner) && !trampoline_is_mapped(map, count, i))
			return false;
	}
	return true;
}
