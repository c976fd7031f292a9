/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guard of each thread: the stack pointer below which no further hook may run in that thread.
 * runtime/hook_threads.h says who reads other threads' guards, and why that is enough.
 *
 *   0              the thread runs no hook
 *   an address     the base of the frame of the hook that runs: no hook runs below it
 *   GUARD_INSIDE   the thread is inside the library; `saved` holds the guard from before
 *   GUARD_UNKNOWN  the thread has not run a hook yet
 */
#ifndef LIBPATCH_RUNTIME_HOOK_GUARD_H
#define LIBPATCH_RUNTIME_HOOK_GUARD_H

#include "arch/upcalls.h"

/* Both are above every stack pointer. */
#define GUARD_INSIDE UINTPTR_MAX
#define GUARD_UNKNOWN (UINTPTR_MAX - 1)

#endif
