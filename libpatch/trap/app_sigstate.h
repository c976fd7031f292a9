/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the signals that libpatch owns a thread of the program believes to block. The kernel never blocks them in a
 * thread that runs patched code. A child that borrows its parent's memory (process.h) has a view of its own.
 * Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_APP_SIGSTATE_H
#define LIBPATCH_TRAP_APP_SIGSTATE_H

#include "base/compiler.h"
#include "trap/owned_signals.h"

/* Owned signals that the thread believes to block. */
uint64_t app_sigstate_blocked(void);
void app_sigstate_set_blocked(uint64_t blocked);

/* Is this a child with a view of its own? `begin`: if it is one that has none, it gets one. */
bool app_sigstate_is_child(bool begin);

/* The mask for the kernel of a thread that believes in `mask`. */
uint64_t app_sigstate_withheld(uint64_t mask);

/* A thread with this thread pointer is about to be started by this one, whose mask it inherits. */
void app_sigstate_inherit(uintptr_t thread);
/* Where a thread has its word, from its thread pointer. */
intptr_t app_sigstate_place(void);
/* From now on no thread believes to block any. */
void app_sigstate_end(void);

#endif
