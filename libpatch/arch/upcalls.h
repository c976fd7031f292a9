/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Upcalls: what generated code, and the unwinder's personality of hooks, reach in the layers above. Architecture code
 * knows these declarations and addresses only; runtime/ defines all of them.
 */
#ifndef LIBPATCH_ARCH_UPCALLS_H
#define LIBPATCH_ARCH_UPCALLS_H

#include "base/compiler.h"

/*
 * What a thread tells about the hook that it runs. Generated code reads and writes `guard` by its distance from the
 * thread pointer; runtime/hook_guard.h says what the values mean.
 */
struct hook_guard {
	/* 0: no hook runs; else the base of the running hook's frame, or a value above every stack pointer. */
	uintptr_t guard;
	uintptr_t saved; /* for runtime/ only */
};
extern TLS_INITIAL_EXEC struct hook_guard libpatch_hook_guard;

/*
 * A hook with its frame at `base` met a guard that is not 0: may the hook run, with the guard being 0 from now on? No
 * when the hook is below the frame of a running hook, or in a handler that interrupted one, or in a vfork() child of
 * one; or when the thread is not in the table of threads yet and there is no memory for it (counted). Called wherever a
 * hook may be, with the program's extended state: no libc, no lock, general registers only.
 */
bool hook_threads_may_run(uintptr_t guard, uintptr_t base) __attribute__((visibility("hidden"), used));

#endif
