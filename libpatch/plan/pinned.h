/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code that works only where it is, because the kernel or libc compares program counters with its bounds (hazard 13):
 *
 *  - restartable sequences (rseq): the kernel leads a thread that it interrupts in one to the abort handler; at an int3
 * it has done so before anybody sees where the trap was, and in a displaced copy it never does. It also looks for a
 *    signature in front of the abort handler.
 *  - the system calls that are cancellation points (glibc from 2.41 on, musl): the handler of the cancellation signal
 * looks whether the call was made already.
 *
 * Called with the library lock held.
 */
#ifndef LIBPATCH_PLAN_PINNED_H
#define LIBPATCH_PLAN_PINNED_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "elf/module.h"

struct pinned {
	/* Nothing below `floor` or from `ceiling` on may be changed by a patch at the address. */
	uintptr_t floor;
	uintptr_t ceiling;
};

/*
 * NULL, and the bounds; or why the address must not be patched. [lower, upper): the function around it, upper 0 when
 * unknown. `mediated`: for a patch of the library's at a system call, which is before the call or behind it for each
 * handler that looks (S6), and so may be at a cancellation point.
 */
const char *pinned_examine(const struct module *module, uintptr_t address, uintptr_t lower, uintptr_t upper,
			   bool mediated, struct pinned *out) REQUIRES(library_lock);
#endif
