/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's stack overflows, not by an instruction of the program: in the frame of a hook, or in what a hook calls.
 * The program's handler is shown a fault of the instruction that the hook is on (S11), with what the registers were:
 * those that functions keep are found by unwinding to the hook. A handler that returns with these registers has the
 * thread go on where it was; one that changes them, or leaves by a jump, leaves the hook.
 *
 * The address stays what it is: that of a page that somebody may know as a guard. Some handlers want it near the stack
 * pointer instead, which it is not, by the hook's frame and all that is below. One that refuses the fault, by taking
 * the default action and returning, is shown it once more, with such an address.
 *
 * Runs in entries and ends of handlers. Takes no lock, allocates nothing (I9).
 */
#ifndef LIBPATCH_TRAP_OVERFLOW_H
#define LIBPATCH_TRAP_OVERFLOW_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

/*
 * Can the signal be an overflow of the stack? Below the stack pointer functions may use their red zone; probes of
 * stacks go further. What is above it overflow_show() finds out, which needs some stack of its own.
 */
#define OVERFLOW_BELOW 65536
#define OVERFLOW_NEEDS 4096
static inline bool overflow_is_possible(int signo, const siginfo_t *info, const ucontext_t *context,
					uintptr_t stack_pointer)
{
	return (signo == SIGSEGV || signo == SIGBUS) && info->si_code > 0 &&
	       (uintptr_t)info->si_addr >= stack_pointer - OVERFLOW_BELOW &&
	       (uintptr_t)context - (uintptr_t)context->uc_stack.ss_sp >= OVERFLOW_NEEDS;
}

/*
 * With the frame showing what was interrupted, out of generated code already; `stack_pointer` is what it was there, and
 * `index` the action's. True: it is an overflow of ours, which the frame shows now, and overflow_resume() is called
 * when the handler has returned.
 */
bool overflow_show(siginfo_t *info, ucontext_t *context, uintptr_t stack_pointer, unsigned int index);
void overflow_resume(ucontext_t *context);

#endif
