/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that steps by its own, by TF: it is shown the steps from one of its instructions to the next, and none in
 * what is executed for an instruction. Those are taken one by one, in silence: the thread goes on where it is.
 *
 * Runs in entries of handlers, with all signals blocked. Takes no lock, allocates nothing but the thread's block (I9).
 */
#ifndef LIBPATCH_TRAP_STEP_H
#define LIBPATCH_TRAP_STEP_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

/* Is the signal a step's? */
bool step_is_made(const siginfo_t *info, const ucontext_t *context);

/* One that is not to be shown. Once for each step: what is shown is remembered. */
bool step_is_inner(const ucontext_t *context);

/* A trap has led the thread to the code for an instruction, which is no step. */
void step_has_begun(const ucontext_t *context);

#endif
