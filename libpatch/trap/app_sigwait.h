/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls in which a thread waits for signals that it blocks otherwise: sigtimedwait, sigsuspend, ppoll and their
 * like. The owned ones are not blocked in the kernel, and could arrive right before the call, which would then wait in
 * vain.
 */
#ifndef LIBPATCH_TRAP_APP_SIGWAIT_H
#define LIBPATCH_TRAP_APP_SIGWAIT_H

#include "arch/syscall.h"
#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

/* The thread is about to make such a call, which takes the owned signals in `accepted`. Not nested. */
void app_sigwait_begin(uint64_t accepted);
/*
 * The same for one that lets them through to their handler, behind which the thread is to believe that it blocks
 * `after`.
 */
void app_sigwait_begin_mask(uint64_t accepted, uint64_t after);
/* Make it: its result, or APP_SIGWAIT_ARRIVED when one has arrived since app_sigwait_begin(). */
#define APP_SIGWAIT_ARRIVED ARCH_WAIT_ARRIVED
long app_sigwait_call(const struct arch_call *call);
void app_sigwait_end(void);

/*
 * Between app_sigwait_begin() and app_sigwait_end(): what is held for the process is told to this thread, until
 * app_sigwait_withdraw().
 */
void *app_sigwait_offer(void);
void app_sigwait_withdraw(void *offer);

/*
 * A signal that others sent has arrived in this thread. When it is about to make such a call that takes the signal:
 * leave it pending for the call. True: done.
 */
bool app_sigwait_leave_pending(int signo, siginfo_t *info, ucontext_t *context);
/*
 * The program's handler is about to run. Returns the mask that the thread is to believe in when the handler has
 * returned: the mask that the interrupted call puts back, when the handler ends a wait, else `now`.
 */
uint64_t app_sigwait_blocked_after(uint64_t now);
/* A signal is held for the process: wake a thread that waits for it, by one that says nothing else. */
void app_sigwait_wake(int signo);
bool app_sigwait_is_wake(const siginfo_t *info);

#endif
