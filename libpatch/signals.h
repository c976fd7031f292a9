/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signals that trap bytes raise, and the program's own handlers for them.
 */
#ifndef LIBPATCH_SIGNALS_H
#define LIBPATCH_SIGNALS_H

#include "base.h"

#include <signal.h>

/*
 * Install libpatch_on_trap for `signo`, once, through sigaction(), so that a host that interposes it sees it. What was
 * there before gets every signal that is not ours. 0 or errno. Never installed again behind the program's back.
 */
int signals_own(int signo);
bool signals_owned(int signo);

/* What our handler returns through: code that must stay as it is. 0 before signals_own(). */
uintptr_t signals_restorer(void);

/* Give a signal that is not ours to the program: its handler, or the default action. Called from the trap handler. */
void signals_hand_on(int signo, siginfo_t *info, void *context);

#endif
