/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Can a trampoline that is there do what is wanted now? Compares hooks and windows. Pure: nothing is emitted or
 * changed.
 */
#include "code/trampoline.h"

#include <string.h>

#define HOOK_EXCESS 1024
/* Extended state costs more than all general purpose registers. */
#define STATE_EXCESS 64

struct hook trampoline_hook(const struct trampoline *trampoline, size_t index)
{
	const struct built_hook *hook = &trampoline->hooks[index];
	const bool masks = hook->action != ARCH_DIVERT;

	return (struct hook){
		.address = trampoline->start + hook->at,
		.when = hook->when,
		.code = {
			.read = masks ? hook->read : 0,
			.write = masks ? hook->write : 0,
			.clobber = masks ? hook->clobber : 0,
			.program_counter = trampoline->start + (uintptr_t)(intptr_t)hook->program_counter,
			.slot = hook->slot,
			.action = hook->action,
			.stamp = hook->stamp,
			.own = hook->own,
		},
	};
}

bool trampoline_same_kind(const struct hook *a, const struct hook *b)
{
	return a->address == b->address && (a->when == b->when || (a->when & b->when & HOOK_BEFORE) != 0) &&
	       a->code.action == b->code.action && a->code.stamp == b->code.stamp;
}

/* May what wants `wanted` use this one? */
static bool trampoline_hook_serves(const struct trampoline *trampoline, size_t index, const struct hook *wanted)
{
	struct hook hook = trampoline_hook(trampoline, index);

	return trampoline_same_kind(&hook, wanted) && hook_includes(hook.when, wanted->when) &&
	       (hook.code.own || !wanted->code.own) && (wanted->code.read & ~hook.code.read) == 0 &&
	       (wanted->code.write & ~hook.code.write) == 0 &&
	       arch_join_clobber(wanted->code.clobber, hook.code.clobber) == hook.code.clobber;
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
	       trampoline->strategy == window->strategy && trampoline->lead_count == window->lead_count &&
	       (window->strategy == PATCH_STRATEGY_TRAP || window->strategy == PATCH_STRATEGY_JUMP ||
		trampoline_jump_target(trampoline) == window->pad);
}

/*
 * How many of the hooks in front of this one are of its kind: several that count or divert at a place need a hook each.
 */
static size_t trampoline_rank(const struct hook *hooks, size_t index)
{
	size_t rank = 0;

	for (size_t i = 0; i < index; ++i)
		rank += trampoline_same_kind(&hooks[i], &hooks[index]);
	return rank;
}

/* The hook of this rank among those that serve; hook_count: there is none. */
static size_t trampoline_find(const struct trampoline *trampoline, const struct hook *wanted, size_t rank)
{
	size_t i;

	for (i = 0; i < trampoline->hook_count; ++i)
		if (trampoline_hook_serves(trampoline, i, wanted) && rank-- == 0)
			break;
	return i;
}

static unsigned int trampoline_more(uint64_t has, uint64_t wanted)
{
	return (unsigned int)__builtin_popcountll(has & ~wanted);
}

static unsigned int trampoline_more_kinds(unsigned int has, unsigned int wanted)
{
	const unsigned int more = has & ~wanted;

	return ((more & HOOK_AROUND) != 0 ? HOOK_EXCESS : 0) + ((more & HOOK_ENTRY) != 0 ? STATE_EXCESS : 0);
}

unsigned int trampoline_excess(const struct trampoline *trampoline, const struct hook *hooks, size_t count)
{
	unsigned int excess;

	if (trampoline->hook_count < count)
		return TRAMPOLINE_UNFIT;
	excess = (unsigned int)(trampoline->hook_count - count) * HOOK_EXCESS;
	for (size_t w = 0; w < count; ++w) {
		size_t index = trampoline_find(trampoline, &hooks[w], trampoline_rank(hooks, w));
		struct hook hook;

		if (index == trampoline->hook_count)
			return TRAMPOLINE_UNFIT;
		hook = trampoline_hook(trampoline, index);
		excess += trampoline_more_kinds(hook.when, hooks[w].when) +
			  (hook.code.own && !hooks[w].code.own ? STATE_EXCESS : 0) +
			  trampoline_more(hook.code.read, hooks[w].code.read) +
			  trampoline_more(hook.code.write, hooks[w].code.write) +
			  trampoline_more(hook.code.clobber & ARCH_GENERAL, hooks[w].code.clobber) +
			  (((hook.code.clobber ^ hooks[w].code.clobber) & ~ARCH_GENERAL) != 0 ? STATE_EXCESS : 0);
	}
	return excess;
}
