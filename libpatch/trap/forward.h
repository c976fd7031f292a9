/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handing on: signals that libpatch owns, but that no trap byte of its own raised. Async-signal-safe; no lock.
 */
#ifndef LIBPATCH_TRAP_FORWARD_H
#define LIBPATCH_TRAP_FORWARD_H

#include "base/compiler.h"

#include <signal.h>

/*
 * A tool may put a handler of its own in front of ours, which hands traps on to libpatch_on_trap(). Does this one, as
 * far as can be told: does the module that it is in refer to that function?
 */
bool forward_reaches_us(uintptr_t handler);
/*
 * Is there a handler in front that has not seen this trap? Then it is called. Whether it handed it on; false if there
 * is none.
 */
bool forward_to_front(int signo, siginfo_t *info, void *context);

/* Give a signal that is not ours to the program: its handler, or the default action. Called from the trap handler. */
void forward_hand_on(int signo, siginfo_t *info, void *context);

#endif
