/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Upcalls: what generated code, and the unwinder's personality of hooks, reach in the layers above. Architecture code
 * knows these declarations and addresses only; runtime/ and trap/ define them.
 */
#ifndef LIBPATCH_ARCH_UPCALLS_H
#define LIBPATCH_ARCH_UPCALLS_H

#include "base/compiler.h"
#include "base/thread_block.h"

struct own_stack;

/* Words of a page of stack, one for each of the page's. */
struct shadow_leaf {
	uintptr_t page; /* its address */
	struct shadow_leaf *next;
	uint64_t unused[6];
	uint64_t words[512];
};

/*
 * What a thread tells about the hook that it runs, and about pairs that are not complete. Generated code reads and
 * writes `guard` and `top`, and the pairs by their distance from this structure; runtime/hook_guard.h says what guards
 * mean, runtime/hook_pairs.h in what order pairs are.
 */
struct hook_guard {
	/* 0: no hook runs; else the base of the running hook's frame, or a value above every stack pointer. */
	uintptr_t guard;
	uintptr_t saved; /* for runtime/ only */
	/*
	 * The pair noted last: its distance from this structure. 0 when there is none, or when those that are left are
	 * the ones that the ring has gone past (`gone_past`). What is there then, a guard, is no execution. The next
	 * one is noted a pair's size further; where that is in the thread's block, and there is none in the block yet,
	 * this is the distance of the block's first one, which is always 0.
	 */
	uintptr_t top;
	const struct shadow_leaf *shadow; /* the page that was looked at last; never NULL */
	/* The first one of HOOK_PAIRS. As a rule no thread has more: the others are in its block. */
	struct hook_pair pair;
	/* The ring has begun again at `pair`, and there may be pairs above `top`: 1, else 0. */
	uintptr_t gone_past;
	/* Signals that the kernel keeps blocked until the running hook's call ends (trap/put_off.h). */
	uint64_t put_off;
	/* The thread's own stack, never NULL; and a register of the program's while a hook has no stack yet. */
	struct own_stack *own;
	uintptr_t kept;
};
_Static_assert(offsetof(struct hook_guard, pair) == sizeof(struct hook_pair), "`top` of the first one");
extern TLS_INITIAL_EXEC struct hook_guard libpatch_hook_guard;

#define HOOK_PAIR_FIRST sizeof(struct hook_pair)

/*
 * What `top` is, with the n-th pair as the last one noted, and when the one behind it is about to be noted. `block`:
 * the distance of the thread's block.
 */
static inline uintptr_t hook_pair_top(uintptr_t block, size_t n)
{
	return n < 2 ? n * sizeof(struct hook_pair) : block + (n - 1) * sizeof(struct hook_pair);
}

static inline uintptr_t hook_pair_top_below(uintptr_t block, size_t n)
{
	return hook_pair_top(block, n + 1) - sizeof(struct hook_pair);
}

/* How many pairs there are up to `top`. */
static inline size_t hook_pair_number(uintptr_t block, uintptr_t top)
{
	return top <= HOOK_PAIR_FIRST ? top / sizeof(struct hook_pair) :
					1 + (top - block) / sizeof(struct hook_pair);
}

/* How many there are room for. */
static inline size_t hook_pair_room(const struct thread_block *block)
{
	return block != NULL ? HOOK_PAIRS : 1;
}

/*
 * A hook with its frame at `base` met a guard that is not 0: may the hook run, with the guard being 0 from now on? No
 * when the hook is below the frame of a running hook, or in a handler that interrupted one, or in a vfork() child of
 * one; or when the thread is not in the table of threads yet and there is no memory for it (counted). Called wherever a
 * hook may be, with the program's extended state: no libc, no lock, general registers only.
 */
bool hook_threads_may_run(uintptr_t guard, uintptr_t base) __attribute__((visibility("hidden"), used));

/* The thread has left a hook by unwinding, and its guard is 0: signals that were put off come now. */
void put_off_abandon(void) __attribute__((visibility("hidden"), used));

/*
 * Of a second hook: is there a pair of this execution? It is the top one then. Called as hook_threads_may_run(), with
 * the guard set.
 */
bool hook_pairs_find(uintptr_t execution) __attribute__((visibility("hidden"), used));
/* The same where the stack pointer of before is not known: is there a pair of this place? */
bool hook_pairs_find_at(uintptr_t place) __attribute__((visibility("hidden"), used));
/*
 * Of a first hook with its frame at `base`, before it notes a pair above the top one: there is room for it then. Called
 * in the same way.
 */
void hook_pairs_make_room(uintptr_t place, uintptr_t base) __attribute__((visibility("hidden"), used));
/* The leaf of the stack pointer's page is the thread's `shadow` now; no when there is no memory for it. The same. */
bool shadow_find(uintptr_t stack_pointer) __attribute__((visibility("hidden"), used));
/* The word of the stack pointer is 0 from now on. The same. */
void shadow_forget(uintptr_t stack_pointer) __attribute__((visibility("hidden"), used));
/* The same for a first hook that is passed over because its slot was 0: the second will not find what is there. */
void hook_pairs_pass(uintptr_t place, uintptr_t base) __attribute__((visibility("hidden"), used));
/* The same for a first hook that has noted its pair, when the instruction will not be executed. */
void hook_pairs_forget(uintptr_t execution) __attribute__((visibility("hidden"), used));

#endif
