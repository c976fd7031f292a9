/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handlers of the program begin and end in libpatch_signal_enter() and libpatch_signal_leave() (arch/signal_entry.h):
 *
 *  - What a handler interrupted is a state of the program (S6). A mediated call is not made yet, or made.
 *  - A thread's belief about owned signals is one word (app_sigstate.h) while it runs, and bits of `uc_sigmask` in the
 *    frames of handlers that have begun and not returned. A handler that returns takes it from there (S7), so that what
 *    it changes in its frame counts, and one that leaves by a jump leaves nothing behind.
 */
#ifndef LIBPATCH_TRAP_SIGNAL_FRAME_H
#define LIBPATCH_TRAP_SIGNAL_FRAME_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

/* The thread was interrupted in a mediated call that is not made: the call begins anew. No handler is entered. */
void signal_frame_begin_anew(ucontext_t *context);

/* The thread returns through this frame: it believes what the frame says (S7). */
void signal_frame_return(ucontext_t *context);

/* Raise what was held of these owned signals, one of each, now that the thread lets them through. */
void signal_frame_raise_held(uint64_t open);

#endif
