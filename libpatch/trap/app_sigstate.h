/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the program believes about the signals that libpatch owns: which a thread blocks, and what their handlers are.
 * The kernel has our handler, and never blocks them in a thread that runs patched code. A child that borrows its
 * parent's memory (process.h) has a view of its own. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_APP_SIGSTATE_H
#define LIBPATCH_TRAP_APP_SIGSTATE_H

#include "base/compiler.h"
#include "trap/owned_signals.h"

/* Owned signals that the thread believes to block. */
uint64_t app_sigstate_blocked(void);
void app_sigstate_set_blocked(uint64_t blocked);

/* A thread with this thread pointer is about to be started by this one, whose mask it inherits. */
void app_sigstate_inherit(uintptr_t thread);
/* From now on no thread believes to block any. */
void app_sigstate_end(void);

/*
 * The program's action for one of signals_ownable[]; or, APP_SIGSTATE_FRONT more, that of a tool in front of us, which
 * hands on to libpatch_on_trap(): SIG_DFL when there is none.
 */
#define APP_SIGSTATE_FRONT SIGNALS_OWNABLE
void app_sigstate_action(int index, struct kernel_sigaction *action);
void app_sigstate_set_action(int index, const struct kernel_sigaction *action);

/* Owned signals in the sa_mask that the program gave the handler of any signal, and the kernel did not get. */
uint64_t app_sigstate_handler_mask(long signo);
void app_sigstate_set_handler_mask(long signo, uint64_t mask);

#endif
