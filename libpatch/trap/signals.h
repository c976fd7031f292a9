/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signals that trap bytes raise, and the program's own handlers for them.
 */
#ifndef LIBPATCH_TRAP_SIGNALS_H
#define LIBPATCH_TRAP_SIGNALS_H

#include "base/compiler.h"
#include "trap/owned_signals.h"

/*
 * Install libpatch_on_trap for `signo`, once, through sigaction(), so that a host that interposes it sees it. What was
 * there before gets every signal that is not ours. 0 or errno. Never installed again behind the program's back.
 */
int signals_own(int signo);
/* While nothing is mediated: if the program has put another handler there since, it is not owned. */
void signals_doubt(int signo);
bool signals_owned(int signo);
/* Would a thread with this mask be killed by a trap byte? Not if it is in our handler, where it meets none. */
bool signals_are_blocked(uint64_t blocked);
/* This thread is in signals_own(): what it sets is for the kernel. */
bool signals_is_installing(void);

/*
 * A tool may put a handler of its own in front of ours, which hands traps on to libpatch_on_trap(). Does this one, as far as
 * can be told: does the module that it is in refer to that function? Async-signal-safe.
 */
bool signals_forwards(uintptr_t handler);
/* Is there a handler in front that has not seen this trap? Then it is called. Whether it handed it on; false if there is none. */
bool signals_offer(int signo, siginfo_t *info, void *context);

/* What our handler returns through: code that must stay as it is. 0 before signals_own(). */
uintptr_t signals_restorer(void);

/* Give a signal that is not ours to the program: its handler, or the default action. Called from the trap handler. */
void signals_hand_on(int signo, siginfo_t *info, void *context);

#endif
