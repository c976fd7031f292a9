/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hooks seldom ask of the ring of pairs. Wherever a hook may be: no libc, no lock, general registers only. Only
 * the calling thread's pairs are touched; and none is moved, because a thread that looks for records might miss it.
 */
#include "runtime/hook_pairs.h"

#include "arch/x86_64/hook_frame.h"
#include "runtime/hook_threads.h"
#include "runtime/own_stack.h"
#include "sys/process.h"

#define PAIR sizeof(struct hook_pair)

/* In an execution, whose two addresses are far below it: its first hook was passed over, and so is the second. */
#define PASSED ((uintptr_t)1 << 63)

static struct hook_pair *hook_pairs_at(uintptr_t offset)
{
	return (struct hook_pair *)((uintptr_t)&libpatch_hook_guard + offset);
}

/* The distance of the thread's block. */
static uintptr_t hook_pairs_block(void)
{
	return (uintptr_t)thread_block_known() - (uintptr_t)&libpatch_hook_guard;
}
_Static_assert(offsetof(struct thread_block, pairs) == 0, "hook_pairs_block()");

static size_t hook_pairs_room(void)
{
	return hook_pair_room(thread_block_known());
}

static size_t hook_pairs_number(void)
{
	return hook_pair_number(hook_pairs_block(), libpatch_hook_guard.top);
}

/* From 1 on. */
static struct hook_pair *hook_pairs_nth(size_t n)
{
	return hook_pairs_at(hook_pair_top(hook_pairs_block(), n));
}

/* Below the lowest one are those that the ring has gone past. */
static size_t hook_pairs_below(size_t n)
{
	return n > 1 ? n - 1 : hook_pairs_room();
}

static size_t hook_pairs_above(size_t n)
{
	return n < hook_pairs_room() ? n + 1 : 1;
}

static uintptr_t hook_pairs_place(const struct hook_pair *pair)
{
	return (pair->execution & ~PASSED) - pair->stack_pointer;
}

static void hook_pairs_clear(struct hook_pair *pair)
{
	*(volatile uintptr_t *)&pair->execution = 0;
	*(volatile uintptr_t *)&pair->record = 0;
}

/*
 * A child in its parent's memory has the parent's pairs, and the parent will look for its own when the child is gone:
 * the child gets another one like it.
 */
static void hook_pairs_lend(void)
{
	struct hook_pair *mine = hook_pairs_top();
	size_t above;

	if (!process_is_borrowed())
		return;
	/* Without a block there is room for one. */
	(void)thread_block();
	above = hook_pairs_above(hook_pairs_number());
	*hook_pairs_nth(above) = *mine;
	libpatch_hook_guard.top = hook_pair_top(hook_pairs_block(), above);
}

static void hook_pairs_drop(void)
{
	hook_pairs_clear(hook_pairs_at(libpatch_hook_guard.top));
	libpatch_hook_guard.top -= PAIR;
}

struct hook_pair *hook_pairs_top(void)
{
	return hook_pairs_at(libpatch_hook_guard.top);
}

static bool hook_pairs_is_of(const struct hook_pair *pair, uintptr_t execution, uintptr_t place)
{
	return pair->execution != 0 && ((pair->execution & ~PASSED) == execution || hook_pairs_place(pair) == place);
}

/*
 * The last one noted that is of the execution, or of any at the place, becomes the top one: above it are pairs of
 * handlers that were left. False: there is none.
 */
static bool hook_pairs_seek(uintptr_t execution, uintptr_t place)
{
	const size_t last = libpatch_hook_guard.top != 0 ? hook_pairs_number() : hook_pairs_room();
	size_t found = last;

	while (!hook_pairs_is_of(hook_pairs_nth(found), execution, place)) {
		found = hook_pairs_below(found);
		if (found == last)
			return false;
	}
	for (size_t above = last; above != found; above = hook_pairs_below(above))
		hook_pairs_clear(hook_pairs_nth(above));
	libpatch_hook_guard.top = hook_pair_top(hook_pairs_block(), found);
	return true;
}

/* Of the top one. */
static bool hook_pairs_is_called(void)
{
	if (!(hook_pairs_top()->execution & PASSED))
		return true;
	hook_pairs_drop();
	return false;
}

bool hook_pairs_find(uintptr_t execution)
{
	return hook_pairs_seek(execution, 0) && hook_pairs_is_called();
}

bool hook_pairs_find_at(uintptr_t place)
{
	if (!hook_pairs_seek(0, place) || !hook_pairs_is_called())
		return false;
	hook_pairs_lend();
	return true;
}

/*
 * The second call of a pair will not come when its function is not running any more, or when its instruction is about
 * to be executed once more. A handler on the signal stack, or on the thread's own, may have interrupted it on another
 * one.
 */
static bool hook_pairs_is_gone(const struct hook_pair *pair, uintptr_t place, uintptr_t stack_pointer)
{
	if (pair->stack_pointer == stack_pointer)
		return hook_pairs_place(pair) == place;
	if (own_stack_is_own(stack_pointer) && !own_stack_is_own(pair->stack_pointer))
		return false;
	return pair->stack_pointer < stack_pointer && !hook_threads_in_handler_above(pair->stack_pointer);
}

void hook_pairs_make_room(uintptr_t place, uintptr_t base)
{
	uintptr_t stack_pointer = arch_hook_stack_pointer(base);
	size_t top = hook_pairs_number();
	bool any = false;

	for (size_t n = 1; n <= hook_pairs_room(); ++n) {
		struct hook_pair *pair = hook_pairs_nth(n);

		if (pair->execution != 0 && hook_pairs_is_gone(pair, place, stack_pointer))
			hook_pairs_clear(pair);
		any |= pair->execution != 0;
	}
	while (top != 0 && hook_pairs_nth(top)->execution == 0)
		--top;
	if (top != 0)
		(void)thread_block();
	/* Behind the last one the ring begins again. */
	if (top == hook_pairs_room())
		libpatch_hook_guard.gone_past = 1;
	if (!any)
		libpatch_hook_guard.gone_past = 0;
	libpatch_hook_guard.top = hook_pair_top_below(hook_pairs_block(), top < hook_pairs_room() ? top : 0);
}

static bool hook_pairs_is_empty(void)
{
	return libpatch_hook_guard.top == 0 && libpatch_hook_guard.gone_past == 0;
}

struct hook_pair *hook_pairs_next(uintptr_t place, uintptr_t base)
{
	if (!hook_pairs_is_empty())
		hook_pairs_make_room(place, base);
	return hook_pairs_at(libpatch_hook_guard.top + PAIR);
}

void hook_pairs_pass(uintptr_t place, uintptr_t base)
{
	struct hook_pair *pair;

	hook_pairs_make_room(place, base);
	/* Nothing that the second hook might find. */
	if (hook_pairs_is_empty())
		return;
	pair = hook_pairs_at(libpatch_hook_guard.top + PAIR);
	pair->record = 0;
	pair->stack_pointer = arch_hook_stack_pointer(base);
	pair->execution = (place + pair->stack_pointer) | PASSED;
	libpatch_hook_guard.top += PAIR;
}

void hook_pairs_forget(uintptr_t execution)
{
	if (hook_pairs_seek(execution, 0))
		hook_pairs_drop();
}
