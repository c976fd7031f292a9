/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's own patches: on the instructions through which the modules of the process make the system calls that
 * syscall_emul.h is about.
 */
#ifndef LIBPATCH_INTERPOSE_INTERPOSE_H
#define LIBPATCH_INTERPOSE_INTERPOSE_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>

struct loaded;
struct others;

/*
 * Patch them in every module that is loaded now; in loaded_hold(), with the library lock held.
 * What cannot be patched makes threads be looked at instead (mask_audit.h); what is refused now is pending.
 */
void interpose_system_calls(const struct others *others) REQUIRES(library_lock);

/*
 * The same for a module that the dynamic linker has just mapped, in the thread that does: nobody runs its code yet.
 * Nothing is done where nothing is patched.
 */
void interpose_module(const struct loaded *loaded) REQUIRES(library_lock);

/*
 * Those that could not be changed (mask_audit_is_pending()) are tried again. True: all are. Then threads are to be
 * looked at as if calls were mediated from now on.
 */
bool interpose_try_again(void) REQUIRES(library_lock);

/* What was patched in [lower, upper) is over (patch/unmapped.h): there is nothing to restore. Was anything? */
bool interpose_forget(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/*
 * Is a thread there behind the instruction that has changed, and in front of the system call or at it? Library lock
 * held.
 */
bool interpose_is_in_window(uintptr_t pc);

/* Restore them. PATCH_OK, or as commit_run(). */
patch_status interpose_restore(void) REQUIRES(library_lock);

struct interpose_usage {
	uint64_t mediated;
	uint64_t regions; /* theirs */
	uint64_t kept;    /* modules that were not unmapped */
};
void interpose_usage(struct interpose_usage *usage) REQUIRES(library_lock);

#endif
