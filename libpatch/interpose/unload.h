/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic linker unmaps a module: the system call that it does so by is patched, and this is what happens instead
 * of it.
 */
#ifndef LIBPATCH_INTERPOSE_UNLOAD_H
#define LIBPATCH_INTERPOSE_UNLOAD_H

#include "arch/syscall.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * At the linker's munmap(): patches on the module's code, and patches that call its code, end now, before something
 * else is mapped there, and the module is unmapped with the library lock held. While a thread is in a procedure of the
 * module, or a destroy function in it is still to be called, the module stays where it is instead, and the linker does
 * not notice. False: nothing was done, as this thread cannot have the lock; the linker's own call is to be made.
 */
bool unload_munmap(struct arch_call *call);

/* How many modules were kept so. */
uint64_t unload_kept(void) REQUIRES(library_lock);

#endif
