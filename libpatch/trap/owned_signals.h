/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which signals libpatch may own, which it does own, and the kernel's words for them. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_OWNED_SIGNALS_H
#define LIBPATCH_TRAP_OWNED_SIGNALS_H

#include "base/compiler.h"

#include <signal.h>

#define SIGNALS 64 /* of the kernel: 1 to 64 */
#define SIGNALS_BIT(signo) ((uint64_t)1 << ((signo)-1))

/* Those that libpatch may own. */
#define SIGNALS_OWNABLE 2
#define SIGNALS_OWNED (SIGNALS_BIT(SIGTRAP) | SIGNALS_BIT(SIGILL))
extern const int signals_ownable[SIGNALS_OWNABLE];
/* The signal's index there, or -1. */
int signal_index(int signo);

/* Are the signals libpatch's, and is what the program sets of them known? From patch_init() on. */
bool signals_owned(void);
void signals_set_owned(void);

/*
 * An event of the thread's own (perf_event_open with `sigtrap`), which the kernel sends, whether the thread blocks it
 * or not: it is held where the program does, and the kernel's word that it came late is then true.
 */
bool signal_is_event(const siginfo_t *info);
void signal_tell_event_late(siginfo_t *info);

/* The kernel does not block them, and says so (signal(7)). */
#define SIGNALS_NEVER_BLOCKED (SIGNALS_BIT(SIGKILL) | SIGNALS_BIT(SIGSTOP))

/* What the kernel blocks in a thread that enters or leaves a handler. */
#define SIGNALS_IN_ENTRY (~SIGNALS_BIT(SIGSYS))
/* Would a thread with this mask be killed by a trap byte? Not if it enters or leaves a handler, where it meets none. */
bool signals_are_blocked(uint64_t blocked);

/* All of them are blocked for the calling thread. Returns the mask from before, which is to be put back. */
uint64_t signals_block(void);
void signals_set_mask(uint64_t mask);

/* The kernel's struct sigaction (arch/x86/include/uapi/asm/signal.h); libc's has another layout. */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* By word: a copy of the whole structure could become a call (I9). Volatile: the program's memory, read once. */
static inline void kernel_sigaction_copy(struct kernel_sigaction *to, const volatile struct kernel_sigaction *from)
{
	to->handler = from->handler;
	to->flags = from->flags;
	to->restorer = from->restorer;
	to->mask = from->mask;
}

#endif
