/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handing on: signals that libpatch owns, but that no trap byte of its own raised. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_FORWARD_H
#define LIBPATCH_TRAP_FORWARD_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

struct kernel_sigaction;

/*
 * A tool may put a handler of its own in front of ours, which hands traps on to libpatch_on_trap(). Does this one, as
 * far as can be told: does the module that it is in refer to that function?
 */
bool forward_reaches_us(uintptr_t handler);
/* Is it libpatch_on_trap() itself? */
bool forward_is_ours(uintptr_t handler);
/* Is the handler in front to see the signal now? No when the thread blocks it. */
bool forward_offer(int signo, siginfo_t *info, ucontext_t *context, bool ends_wait);
/* It has handed it on. */
void forward_take(ucontext_t *context);
/* The handler that was entered with this context returns. True: it was one in front, and has handed nothing on. */
bool forward_end(ucontext_t *context);

/* Own the signals: their actions are ours, and stand for the program's. 0 or errno. */
int forward_own_signals(void);
/* The program has set an action for an owned signal: it is looked up. */
void forward_find_action(int signo);
/* All of them. */
void forward_find_actions(void);

/*
 * A signal that is not ours has come, to the action with this index; `ends_wait`: out of a wait that lets it through.
 * True: the program's handler is to be entered. False: all is done.
 */
bool forward_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index, bool ends_wait);
/* The same where nothing is known of the thread: what others send is not held. */
bool forward_enter_without_storage(const struct kernel_sigaction *program, int signo, siginfo_t *info,
				   ucontext_t *context);
/* The same of a signal that somebody else's handler has handed on: the program's is called from here. */
void forward_hand_on(int signo, siginfo_t *info, ucontext_t *context);

#endif
