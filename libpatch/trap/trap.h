/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trap dispatch: from a trap byte to the code that stands for the instruction under it. Only reads: the registry under
 * its read side, and one byte of text. The public entry is libpatch_on_trap() in <libpatch/trap_handler.h>.
 */
#ifndef LIBPATCH_TRAP_TRAP_H
#define LIBPATCH_TRAP_TRAP_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

struct action;

/*
 * An owned signal has come (trap/signal_frame.c). True: the handler of the program's action is to be entered. False:
 * all is done, and the context tells where the thread goes on.
 */
bool trap_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index, bool ends_wait);
/* The same in a thread whose storage is not libc's (sys/tls.h): no thread-local variable is read or written. */
bool trap_enter_without_storage(int signo, siginfo_t *info, ucontext_t *context, const struct action *action);
/* A handler of the program's returns. */
void trap_leave(ucontext_t *context);

/* Traps served since the start. */
uint64_t trap_count(void);

#endif
