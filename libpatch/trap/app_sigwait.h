/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that wait for owned signals of the process, in sigtimedwait, sigsuspend, ppoll and their like. The kernel
 * does not block owned signals in any thread, so that it may give one to a thread that only believes to block it: that
 * thread tells one that waits. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_APP_SIGWAIT_H
#define LIBPATCH_TRAP_APP_SIGWAIT_H

#include "base/compiler.h"
#include "trap/mediated.h"

#include <signal.h>

/* The thread is in the call, and takes these owned signals or lets them through, until app_sigwait_withdraw(). */
void app_sigwait_offer(struct mediated *call, uint64_t accepted);
/* No more. True: one was told to the thread (call->told), and is held nowhere else. May be cut short and begin anew. */
bool app_sigwait_withdraw(struct mediated *call);

/* One is held for the process: tell it to a thread that waits for it, if there is any. */
void app_sigwait_tell(int signo);
/* The thread has no use for what was told to it: it is the process's again. */
void app_sigwait_pass_on(struct mediated *call);
/* Is it one that only says that another was told? */
bool app_sigwait_is_wake(const siginfo_t *info);
/* In a forked child no other thread waits. */
void app_sigwait_forget(void);

#endif
