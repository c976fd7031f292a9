/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals that come while a procedure runs. Its frames are none of the program's, so that a handler of the program is
 * not to see them, nor to leave them by a jump: the handler runs when the hook's call has returned (S10). The kernel
 * holds the signal meanwhile, blocked for the thread.
 */
#ifndef LIBPATCH_TRAP_PUT_OFF_H
#define LIBPATCH_TRAP_PUT_OFF_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

/*
 * With the registers being those of the thread's code, not of a mediated call. True: the thread returns from the signal
 * at once, and it comes again at the end of the call.
 */
bool put_off_signal(int signo, siginfo_t *info, ucontext_t *context);
/* Does the thread run what a hook calls, with this stack pointer? */
bool put_off_is_called(uintptr_t stack_pointer);
/* When a signal has come: if the call has returned, it is over, and what was put off is not blocked any more. */
void put_off_end(ucontext_t *context);

/*
 * Where the thread goes on they are not blocked, unless the program blocks them: they come there, and are put off once
 * more if that is in the procedure still.
 */
void put_off_forget(ucontext_t *context);

/* Signals that the kernel blocks for the calling thread though the program does not. */
uint64_t put_off_blocked(void);
/* The program blocks these now: they do not come at the end of the call. */
void put_off_keep_blocked(uint64_t signals);

#endif
