/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hooks seldom ask of the ring of pairs. Wherever a hook may be: no libc, no lock, general registers only. Only
 * the calling thread's pairs are touched; and none is moved, because a thread that looks for records might miss it.
 */
#include "runtime/hook_pairs.h"

#include "arch/x86_64/hook_frame.h"
#include "runtime/hook_threads.h"
#include "sys/process.h"

#define LAST (HOOK_PAIRS * sizeof(struct hook_pair))

/* In a place: its first hook was passed over, and so is the second. */
#define PASSED ((uintptr_t)1)

static struct hook_pair *hook_pairs_at(uintptr_t offset)
{
	return (struct hook_pair *)((uintptr_t)&libpatch_hook_guard + offset);
}

/* Below the lowest one are those that the ring has gone past. */
static uintptr_t hook_pairs_below(uintptr_t offset)
{
	return offset > sizeof(struct hook_pair) ? offset - sizeof(struct hook_pair) : LAST;
}

static uintptr_t hook_pairs_above(uintptr_t offset)
{
	return offset < LAST ? offset + sizeof(struct hook_pair) : sizeof(struct hook_pair);
}

static void hook_pairs_clear(struct hook_pair *pair)
{
	*(volatile uintptr_t *)&pair->place = 0;
	*(volatile uintptr_t *)&pair->record = 0;
}

/*
 * A child in its parent's memory has the parent's pairs, and the parent will look for its own when the child is gone:
 * the child gets another one like it.
 */
static void hook_pairs_lend(void)
{
	struct hook_pair *mine = hook_pairs_at(libpatch_hook_guard.top);
	uintptr_t offset = hook_pairs_above(libpatch_hook_guard.top);

	if (!process_is_borrowed())
		return;
	*hook_pairs_at(offset) = *mine;
	libpatch_hook_guard.top = offset;
}

/* Above it are pairs of handlers that were left. */
static void hook_pairs_set_top(uintptr_t offset)
{
	for (uintptr_t top = libpatch_hook_guard.top; top != 0 && top != offset; top = hook_pairs_below(top))
		hook_pairs_clear(hook_pairs_at(top));
	libpatch_hook_guard.top = offset;
}

static void hook_pairs_drop(void)
{
	hook_pairs_clear(hook_pairs_at(libpatch_hook_guard.top));
	libpatch_hook_guard.top -= sizeof(struct hook_pair);
}

bool hook_pairs_find(uintptr_t place)
{
	uintptr_t top = libpatch_hook_guard.top, offset = top != 0 ? top : LAST;

	for (size_t i = 0; i < HOOK_PAIRS; ++i, offset = hook_pairs_below(offset)) {
		uintptr_t there = hook_pairs_at(offset)->place;

		if ((there & ~PASSED) != place)
			continue;
		hook_pairs_set_top(offset);
		if (there & PASSED) {
			hook_pairs_drop();
			return false;
		}
		hook_pairs_lend();
		return true;
	}
	return false;
}

/*
 * The second call of a pair will not come when its function is not running any more, or when its instruction is about
 * to be executed once more. A handler on the signal stack may have interrupted it on another one.
 */
static bool hook_pairs_is_gone(const struct hook_pair *pair, uintptr_t place, uintptr_t stack_pointer)
{
	if (pair->stack_pointer == stack_pointer)
		return (pair->place & ~PASSED) == place;
	return pair->stack_pointer < stack_pointer && !hook_threads_in_handler_above(pair->stack_pointer);
}

void hook_pairs_make_room(uintptr_t place, uintptr_t base)
{
	uintptr_t stack_pointer = base + ARCH_HOOK_FRAME_TOTAL;
	uintptr_t top = libpatch_hook_guard.top;
	bool any = false;

	for (size_t i = 0; i < HOOK_PAIRS; ++i) {
		struct hook_pair *pair = &libpatch_hook_guard.pairs[i];

		if (pair->place != 0 && hook_pairs_is_gone(pair, place, stack_pointer))
			hook_pairs_clear(pair);
		any |= pair->place != 0;
	}
	while (top != 0 && hook_pairs_at(top)->place == 0)
		top -= sizeof(struct hook_pair);
	/* Behind the last one the ring begins again. */
	if (top == LAST)
		libpatch_hook_guard.gone_past = 1;
	if (!any)
		libpatch_hook_guard.gone_past = 0;
	libpatch_hook_guard.top = top < LAST ? top : 0;
}

static bool hook_pairs_is_empty(void)
{
	return libpatch_hook_guard.top == 0 && libpatch_hook_guard.gone_past == 0;
}

struct hook_pair *hook_pairs_next(uintptr_t place, uintptr_t base)
{
	if (!hook_pairs_is_empty())
		hook_pairs_make_room(place, base);
	return hook_pairs_at(libpatch_hook_guard.top + sizeof(struct hook_pair));
}

struct hook_pair *hook_pairs_top(void)
{
	return hook_pairs_at(libpatch_hook_guard.top);
}

void hook_pairs_pass(uintptr_t place, uintptr_t base)
{
	struct hook_pair *pair;

	hook_pairs_make_room(place, base);
	/* Nothing that the second hook might find. */
	if (hook_pairs_is_empty())
		return;
	pair = hook_pairs_at(libpatch_hook_guard.top + sizeof(struct hook_pair));
	pair->record = 0;
	pair->stack_pointer = base + ARCH_HOOK_FRAME_TOTAL;
	pair->place = place | PASSED;
	libpatch_hook_guard.top += sizeof(struct hook_pair);
}

void hook_pairs_forget(uintptr_t place, uintptr_t base)
{
	uintptr_t top = libpatch_hook_guard.top, offset = top != 0 ? top : LAST;

	for (size_t i = 0; i < HOOK_PAIRS; ++i, offset = hook_pairs_below(offset)) {
		const struct hook_pair *pair = hook_pairs_at(offset);

		if (pair->place != place || pair->stack_pointer != base + ARCH_HOOK_FRAME_TOTAL)
			continue;
		hook_pairs_set_top(offset);
		hook_pairs_drop();
		return;
	}
}
