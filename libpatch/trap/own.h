/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owning the signals that trap bytes raise: libpatch's handler is the kernel's, whatever the program sets.
 */
#ifndef LIBPATCH_TRAP_OWN_H
#define LIBPATCH_TRAP_OWN_H

#include "base/compiler.h"

#include <signal.h>

typedef void own_handler_fn(int signo, siginfo_t *info, void *context);

/*
 * Install the handler for `signo`, once, through sigaction(), so that a host that interposes it sees it. There is one
 * handler for all signals. What was there before gets every signal that is not ours (forward.h). 0 or errno. Never
 * installed again behind the program's back.
 */
int own_signal(int signo, own_handler_fn *handler);
/* While nothing is mediated: if the program has put another handler there since, the signal is not owned. */
void own_doubt_signal(int signo);
/* This thread is in own_signal(): what it sets is for the kernel. */
bool own_is_installing(void);
/* Is this the handler that own_signal() was given? Async-signal-safe. */
bool own_is_handler(uintptr_t handler);

/* What our handler returns through: code that must stay as it is. 0 before own_signal(). */
uintptr_t own_restorer(void);

#endif
