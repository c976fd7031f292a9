/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling unwinders and debuggers of generated code. One description covers a whole range, for as long as the process
 * lives, so that nothing is told for a patch.
 */
#ifndef LIBPATCH_CODE_UNWINDERS_H
#define LIBPATCH_CODE_UNWINDERS_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/code_ranges.h"

/* Which other unwinders has the program loaded? In patch_init(), without the library lock: calls the dynamic linker. */
void unwinders_find(void);

/* Describe a range, the next that will be counted, to be registered. False when there is no memory. */
bool unwinders_describe(const struct code_range *range) REQUIRES(library_lock);

/*
 * What was described under the lock is taken under it, and registered after it: that takes mutexes of the unwinders',
 * which whoever waits for our lock may hold. So no lock of ours is held meanwhile, no signal is blocked, and nobody
 * waits for a thread that is at it. A handler or a procedure that comes in between leaves its own to the call that it
 * interrupted; and a procedure under which libgcc is on the stack, which may hold that mutex, leaves it to the next
 * call. `interrupted`: the stack pointer that the procedure's probe was met with; 0: the thread is in no procedure.
 */
struct unwinders_range;
struct unwinders_range *unwinders_take(void) REQUIRES(library_lock);
void unwinders_register(struct unwinders_range *taken, uintptr_t interrupted);

#endif
