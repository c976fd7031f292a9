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

/* Is libpatch's handler in place? Only own.c says so. */
bool signals_owned(int signo);
void signals_set_owned(int signo, bool owned);
/*
 * Is the program's action for signals_ownable[index] known (app_sigstate.h)? From before libpatch's handler is in
 * place.
 */
bool signals_action_known(int index);
void signals_set_action_known(int index);

/* Would a thread with this mask be killed by a trap byte? Not if it is in our handler, where it meets none. */
bool signals_are_blocked(uint64_t blocked);

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
