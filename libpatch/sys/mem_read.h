/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading memory of this process that may not be mapped. Async-signal-safe, but mem_trust(), which needs the library
 * lock.
 */
#ifndef LIBPATCH_SYS_MEM_READ_H
#define LIBPATCH_SYS_MEM_READ_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * Read memory that may not be mapped: bytes read, from the start, before the first unreadable page. When that is less
 * than `size`, *error is EFAULT if the memory is not mapped, else why it could not be read.
 */
size_t mem_read(uintptr_t address, void *buffer, size_t size, int *error);
/*
 * [lower, upper) is known to be readable, and to stay so until the next call: it is read without asking the kernel. The
 * caller ends that with an empty range, before the library lock is released.
 */
void mem_trust(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

#endif
