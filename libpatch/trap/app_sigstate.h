/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the program believes about the signals that libpatch owns: which a thread blocks, and what their handlers are. The
 * kernel has our handler, and never blocks them in a thread that runs patched code. A child that borrows its parent's memory
 * (process.h) has a view of its own. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_VIRTUAL_H
#define LIBPATCH_VIRTUAL_H

#include "base/base.h"
#include "trap/owned_signals.h"

/* Owned signals that the thread believes to block. */
uint64_t virtual_blocked(void);
void virtual_set_blocked(uint64_t blocked);

/* A thread with this thread pointer is about to be started by this one, whose mask it inherits. */
void virtual_inherit(uintptr_t thread);
/* From now on no thread believes to block any. */
void virtual_end(void);

/*
 * The program's action for one of signals_ownable[]; or, VIRTUAL_FRONT more, that of a tool in front of us, which hands on to
 * libpatch_on_trap(): SIG_DFL when there is none.
 */
#define VIRTUAL_FRONT SIGNALS_OWNABLE
void virtual_action(int slot, struct kernel_sigaction *action);
void virtual_set_action(int slot, const struct kernel_sigaction *action);

/* Owned signals in the sa_mask that the program gave the handler of any signal, and the kernel did not get. */
uint64_t virtual_handler_mask(long signo);
void virtual_set_handler_mask(long signo, uint64_t mask);

#endif
