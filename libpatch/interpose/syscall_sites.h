/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The instructions through which the modules of the process make the system calls that syscall_emul.h is about.
 */
#ifndef LIBPATCH_INTERPOSE_SYSCALL_SITES_H
#define LIBPATCH_INTERPOSE_SYSCALL_SITES_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct extent;
struct loaded;
struct others;

struct syscall_site {
	uintptr_t address; /* of the system call instruction */
	const struct extent *extent; /* what is around it */
	/* The window, as attach_in_window() wants it. */
	uintptr_t start;
	uintptr_t end;
	long of_loader; /* the dynamic linker's call that load.h or unload.h is about: its number; else -1 */
};

/* Patch the instruction. False: it cannot be. The library lock is held. */
typedef bool syscall_sites_patch_fn(const struct syscall_site *site);

/*
 * Find them in every module that is loaded now; in loaded_hold(). What is not patched is told to
 * mask_audit_incomplete(). False: some call of libc's is not.
 */
bool syscall_sites_find(const struct others *others, syscall_sites_patch_fn *patch) REQUIRES(library_lock);
/* The same for one module, which is not unloaded meanwhile. */
bool syscall_sites_find_in(const struct loaded *loaded, syscall_sites_patch_fn *patch) REQUIRES(library_lock);

#endif
