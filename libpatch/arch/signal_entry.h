/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where handlers of the program begin and end. The kernel calls a thunk in place of the handler, and the handler
 * returns through a restorer: the address of either names the action of the program's that they stand for.
 */
#ifndef LIBPATCH_ARCH_SIGNAL_ENTRY_H
#define LIBPATCH_ARCH_SIGNAL_ENTRY_H

#include "arch/syscall.h"
#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

#define ARCH_SIGNAL_THUNKS 1024

uintptr_t arch_signal_thunk(unsigned int index);
uintptr_t arch_signal_restorer(unsigned int index);
/* The index of the thunk or the restorer at the address; -1: there is none. */
int arch_signal_index(uintptr_t address);

/*
 * The upper layers' part of it (trap/signal_frame.h), called with all signals but SIGSYS blocked. The first returns
 * the handler and the mask that it begins with, or 0: the thread returns from the signal at once. The second is called
 * when the handler has returned, with the frame of the kernel.
 */
uintptr_t libpatch_signal_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index, uint64_t *mask);
void libpatch_signal_leave(ucontext_t *context);

/*
 * A thread that was interrupted between libpatch_signal_enter() and the first instruction of the handler, with the
 * handler's mask in effect already: put it to that instruction. False: it is elsewhere.
 */
bool arch_signal_finish_entry(greg_t *registers);

/* The information that belongs to the frame of the kernel with this context. */
siginfo_t *arch_signal_info(ucontext_t *context);

/* Words of a frame of the kernel that neither the kernel nor a program looks at, kept for as long as the frame. */
#define ARCH_SIGNAL_WORDS 4
uint64_t *arch_signal_words(ucontext_t *context);

#endif
