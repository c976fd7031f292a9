/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls in which a thread waits for signals that it blocks otherwise: sigtimedwait, sigsuspend, ppoll and their like.
 * The owned ones are not blocked in the kernel, and could arrive right before the call, which would then wait in vain.
 */
#ifndef LIBPATCH_WAIT_H
#define LIBPATCH_WAIT_H

#include "arch/arch.h"
#include "base/base.h"

#include <signal.h>
#include <ucontext.h>

/* The thread is about to make such a call, which takes the owned signals in `accepted`. Not nested. */
void wait_begin(uint64_t accepted);
/* The same for one that lets them through to their handler, behind which the thread is to believe that it blocks `after`. */
void wait_begin_mask(uint64_t accepted, uint64_t after);
/* Make it: its result, or WAIT_ARRIVED when one has arrived since wait_begin(). */
#define WAIT_ARRIVED -512 /* ERESTARTSYS, which no system call returns to programs */
long wait_call(const struct arch_call *call);
void wait_end(void);

/* Between wait_begin() and wait_end(): what is held for the process is told to this thread, until wait_withdraw(). */
void *wait_offer(void);
void wait_withdraw(void *offer);

/*
 * A signal that others sent has arrived in this thread. When it is about to make such a call that takes the signal: leave it
 * pending for the call. True: done.
 */
bool wait_leave_pending(int signo, siginfo_t *info, ucontext_t *context);
/*
 * The program's handler is about to run: what the thread is to believe to block behind it. `now`, but where it lets an
 * interrupted call come back: that takes one signal.
 */
uint64_t wait_blocked_after(uint64_t now);
/* A signal is held for the process: wake a thread that waits for it, by one that says nothing else. */
void wait_wake(int signo);
bool wait_is_wake(const siginfo_t *info);

#endif
