/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls of the program that would make a trap fatal, or tell the program what is not so: made in its stead, with
 * the signals that libpatch owns kept out of masks and handlers. What the program reads back is what it set.
 */
#ifndef LIBPATCH_INTERPOSE_SYSCALL_EMUL_H
#define LIBPATCH_INTERPOSE_SYSCALL_EMUL_H

#include "arch/syscall.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

/* Is the call with this number one of them? */
bool syscall_emul_concerns(long number);
/* An arch_syscall_hook_fn. Any thread, any state of its masks; async-signal-safe. */
bool syscall_emulate(struct arch_call *call);

/*
 * Bring what was set before under the same rule: handlers' masks, and what the calling thread blocks, also in the mask
 * that it is about to get back.
 */
void syscall_emul_adopt(uint64_t *mask) REQUIRES(library_lock);
/*
 * Take over the handlers that the program has. Has it any? As soon as it is known, app_handlers.h is told. Threads that
 * were there before may be about to install one, so that it may take a few calls.
 */
void syscall_emul_look_for_handlers(void);
/* The same now and then, for calls that are many and come before the first commit. */
void syscall_emul_poll_handlers(void);

/*
 * The end of it, with nothing mediated any more: handlers' masks and the calling thread's are for the kernel again.
 * What other threads believe to block they do not, until they set it again.
 */
void syscall_emul_release(void);

#endif
