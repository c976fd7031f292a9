/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All other threads of the process stopped at once, where what is done must not be met half-way by any of them and
 * cannot be done in one step. They sleep on where they sleep in the kernel, but calls that a debugger ends return EINTR
 * (signal(7)), and every signal that a thread has is its own.
 */
#ifndef LIBPATCH_SYS_STOP_WORLD_H
#define LIBPATCH_SYS_STOP_WORLD_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * Run it while no other thread of the process executes anything, in a child with the same memory (tracer.h), for which
 * the process has one thread (tasks_is_single()). False: it was not run. A thread is traced already, must not be, does
 * not stop within a second, or waits for a child of vfork(), which executes the same text; or /proc does not tell. Not
 * from a child that has borrowed the memory, which does not find the threads. Needs all signals blocked.
 */
bool stop_world_and_run(void (*run)(void *), void *data) REQUIRES(library_lock);

#endif
