/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Other threads of the process, stopped for a moment: a child that shares the memory traces them. A thread that sleeps
 * in the kernel sleeps on, but calls that a debugger ends return EINTR (signal(7), "Interruption of system calls and
 * library functions by stop signals"). Every signal that a thread has is its own after that.
 *
 * The threads are named as in tasks.h. done[] says which were done: others have ended, are traced by somebody else,
 * must not be traced, wait for a child of vfork(), or got no processor for a second. Needs all signals blocked in the
 * calling thread, for as long as it takes.
 */
#ifndef LIBPATCH_SYS_SEIZE_H
#define LIBPATCH_SYS_SEIZE_H

#include "base/compiler.h"

#include <sys/types.h>

/*
 * Take `signals` out of their masks, also out of the masks that calls which wait put back. What each of them had
 * blocked of these is added to the word at `word` bytes from its thread pointer; a thread without thread-local storage,
 * or with the caller's, is left as it is.
 *
 * Where is_passing() says that what is blocked there is not the program's, and not for long, the thread goes on until
 * it is elsewhere. It is asked by the child: as below, and with all that the thread blocks.
 */
typedef bool seize_passing_fn(uintptr_t pc, long call, uint64_t blocked);
void seize_and_unblock(const pid_t *threads, bool *done, size_t count, uint64_t signals, intptr_t word,
		       seize_passing_fn *is_passing);

/*
 * done[]: those whose program counter is such a place, with the system call that is being made there, or just was, or
 * -1. It is asked by the child.
 */
typedef bool seize_place_fn(uintptr_t pc, long call);
void seize_and_look(const pid_t *threads, bool *done, size_t count, seize_place_fn *is_place);

#endif
