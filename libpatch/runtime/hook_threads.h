/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which record each thread uses: the read side of quiescence, and who looks at it.
 *
 * A hook does, in this order:
 *
 *   frame.record = 0;  guard = frame;  r = *slot;  if r is 0: guard = 0, passed over;  frame.record = r;  calls r's
 *   procedure; guard = 0
 *
 * with plain moves. Who closed a slot (stored 0, or another record, in it) and then made a memory fence
 * ((membarrier.h)) finds out whether a thread can still use the record R that was there:
 *
 *  - the thread is not in the table, or its guard is 0: it does not, nor will it. A hook that loaded R did so before
 *    the fence, with its guard, and its place in the table, stored before that: both are seen. One that loads later
 *    loads no R.
 *  - its guard is a frame whose record is not 0 and not R: the same. It was in a hook with another record, or has left
 *    that frame since, and whatever hook it is in now began behind the fence.
 *  - the record is R: it does.
 *  - the record is 0: it may be about to store R: nobody knows; to be looked at again.
 *
 * A hook whose pair is not complete has left the record in the thread's pairs (hook_pairs.h), and the second hook takes
 * it from there instead of from a slot. So pairs are looked at, too, after the guard and the record in the frame: R
 * comes into a pair before the first hook's guard is 0, and goes from there only when the second hook is done with it.
 *
 * A record may be that of a list of patches, which the thread walks: patch/hook_list.h tells which of them it uses.
 *
 * No program counter is looked at and no thread is interrupted: it may run, sleep, or be stopped. A frame is the
 * running hook's for as long as its guard stands: also of one that longjmp() has left, until the thread's next hook, or
 * its next call of the library, clears it. A thread has one hook at a time: hooks below its frame, or in a handler on
 * the signal stack, are passed over.
 *
 * The table holds the address of each thread's thread-local storage, and is written to without a lock by a thread's
 * first hook. It is read with the library lock held.
 */
#ifndef LIBPATCH_RUNTIME_HOOK_THREADS_H
#define LIBPATCH_RUNTIME_HOOK_THREADS_H

#include "arch/upcalls.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

/* Before the first hook runs. */
void hook_threads_init(void);

/* The calling thread's guard, or 0 if its hook was left by longjmp(). */
uintptr_t hook_threads_own_guard(void);

/* In a child of fork(), by the thread that is left. */
void hook_threads_forget_others(void);

/* Has a handler on the thread's signal stack, with its frame here, interrupted what is not on that stack? */
bool hook_threads_in_handler_above(uintptr_t stack_pointer);

/* What a thread's hook, or a pair of it, uses. */
struct hook_use {
	uintptr_t record; /* 0: it is not known yet */
	uint32_t current; /* of a hook: ARCH_HOOK_FRAME_CURRENT; else 0 */
	uint64_t called;  /* of a pair: as there; else 0 */
};
typedef void hook_threads_visit_fn(const struct hook_use *use, void *data);
/* Those of the calling thread, which is in the library. */
void hook_threads_visit_own(hook_threads_visit_fn *visit, void *data);
/* Those of each thread. After a memory fence. Returns whether the table could be read. */
bool hook_threads_visit(hook_threads_visit_fn *visit, void *data) REQUIRES(library_lock);

struct hook_threads_usage {
	uint64_t known;   /* in the table */
	uint64_t missed;  /* hooks passed over for want of memory */
	uint64_t bytes;   /* mapped for the table */
};
void hook_threads_usage(struct hook_threads_usage *usage);

#endif
