/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owned signals that others sent while the program believes that it blocks them. The kernel does not block them, or it
 * would end the process at the first trap byte, so they are kept here until the program takes them: one of each for the
 * process and one for each thread, as the kernel keeps them; a child that borrows the memory has its own.
 * Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_APP_SIGPENDING_H
#define LIBPATCH_TRAP_APP_SIGPENDING_H

#include "base/compiler.h"

#include <signal.h>

/* Sent to the thread, not to the process? */
bool app_sigpending_is_threads(const siginfo_t *info);
/* Keep one that arrived in this thread. A second one is lost, as a pending standard signal is. */
void app_sigpending_put(int signo, const siginfo_t *info);
/* Take one of the signals in `mask`, the thread's before the process's: its number, or 0. */
int app_sigpending_take(uint64_t mask, siginfo_t *info);
/* The same of the process's alone. */
bool app_sigpending_take_of_process(int signo, siginfo_t *info);
bool app_sigpending_is_of_process(int signo);
/* Which are there for this thread? */
uint64_t app_sigpending_pending(void);
/*
 * Those that are held now, as the thread sees it. The program ignores them: those are dropped, and none that has come
 * since, which may be for another action.
 */
struct app_sigpending_names {
	uint64_t of_thread;
	uint64_t of_process;
};
struct app_sigpending_names app_sigpending_names(int signo);
void app_sigpending_discard(int signo, struct app_sigpending_names those);
/* A forked child has none. */
void app_sigpending_forget(void);

#endif
