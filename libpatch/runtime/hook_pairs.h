/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pairs of the two calls of PROBE_AROUND: a pair that began is completed, by the record that the first call was made
 * with, though the slot may be closed by then; and without a first call there is no second.
 *
 * They are a ring, the first one in struct hook_guard of the thread (arch/upcalls.h), the others in its block, which it
 * gets when it needs a second one. Without memory for that the ring has one place. They are written by the thread's
 * hooks only, with its guard set:
 *
 *   first hook:   calls the procedure;  pair = { execution, record, stack pointer }, above the top one;  guard = 0
 *   second hook:  the top pair, if it is of the same execution: frame.record = its record;  calls the procedure;
 *                 pair = 0;  guard = 0
 *
 * An execution is a place and the stack pointer of before the instruction, which the second hook knows from its own
 * (arch_stack_change()): an execution in a handler has another one. Where the instruction sets the stack pointer to
 * something else, as `leave` does, or a child may go on with another one behind a system call, the second hook takes
 * the last pair of the place: if a handler has executed that instruction and was left inside itself, a wrong one.
 *
 * Behind the last place the ring begins again at the first one, over the oldest pair. That `top` is 0 does not say then
 * that there are no pairs; `gone_past` does.
 *
 * A first hook that is passed over while there are pairs notes so there, as its second might find the one of the
 * execution that a handler has interrupted. Between both one instruction is executed. What a handler notes meanwhile is
 * above, and is gone when the handler returns. A pair of which the second hook never comes, because a handler was left
 * by siglongjmp() or an exception, stays: until its place is executed again with the same stack pointer or a higher
 * one, or another pair is noted by a function that called the one with the pair, or it is the oldest of HOOK_PAIRS. Its
 * record is in use for as long.
 *
 * Who looks for records in use reads a thread's guard, then the record in its frame, then its pairs (hook_threads.h): a
 * record is in the pair before it leaves the first hook's frame, and until after it has left the second's. Not the
 * other way round: with several patches at an instruction, the record of the next one takes its place in the frame.
 */
#ifndef LIBPATCH_RUNTIME_HOOK_PAIRS_H
#define LIBPATCH_RUNTIME_HOOK_PAIRS_H

#include "arch/upcalls.h"

/* Where the first hook at the place, with its frame at `base`, will note the pair when its procedure has returned. */
struct hook_pair *hook_pairs_next(uintptr_t place, uintptr_t base);
/* The pair that the second hook has found. */
struct hook_pair *hook_pairs_top(void);

#endif
