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

/*
 * The thread is about to make such a call, which takes the owned signals in `accepted`: from here to app_sigwait_end()
 * a signal of the process may be told to it, so that it looks at what is held after this. Not nested.
 */
void app_sigwait_begin(uint64_t accepted);
/*
 * The same for one that lets them through to their handler, behind which the thread is to believe that it blocks
 * `after`.
 */
void app_sigwait_begin_mask(uint64_t accepted, uint64_t after);
/* Make it: its result, or APP_SIGWAIT_ARRIVED when one has arrived since app_sigwait_begin(). */
#define APP_SIGWAIT_ARRIVED ARCH_WAIT_ARRIVED
long app_sigwait_call(const struct arch_call *call);
/* True: one was told to the thread meanwhile. It is in *info, and held nowhere else. */
bool app_sigwait_end(siginfo_t *info);

/* One is held for the process: tell it to a thread that waits for it, if there is any. */
void app_sigwait_tell(int signo);
/* The thread has no use for what was told to it: it is the process's again. */
void app_sigwait_pass_on(const siginfo_t *info);
/* Is it one that only says that another was told? */
bool app_sigwait_is_wake(const siginfo_t *info);
/* It has arrived. True: the thread lets what it was told through to the handler, and it is in *info. */
bool app_sigwait_told(siginfo_t *info);
/* In a forked child no other thread waits. */
void app_sigwait_forget(void);

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

#endif
