/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic linker maps a module: the system calls that it does so by are patched, and these are their
 * arch_syscall_hook_fns. It maps the segments of a module one by one, and then closes the file: the code is whole by
 * then, and nobody has run any of it.
 */
#ifndef LIBPATCH_INTERPOSE_LOAD_H
#define LIBPATCH_INTERPOSE_LOAD_H

#include "arch/syscall.h"
#include "base/compiler.h"

/* Remembers where code of a file is mapped. */
bool load_mmap(struct arch_call *call);
/* Behind that: the module's own system calls are mediated from now on. The file is closed by the linker. */
bool load_close(struct arch_call *call);

#endif
