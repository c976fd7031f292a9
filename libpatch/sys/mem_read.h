/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading memory of this process that may not be mapped, or not be readable, which is not the same: code without read
 * permission is there. Async-signal-safe, but mem_trust(), which needs the library
 * lock.
 */
#ifndef LIBPATCH_SYS_MEM_READ_H
#define LIBPATCH_SYS_MEM_READ_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * Read memory that may not be mapped: bytes read, from the start, before the first page that cannot be read. Pages
 * without read permission are read as well, where the kernel allows it. When the result is less than `size`, *error is
 * EFAULT if the memory is not mapped, and only then, else why it could not be read.
 */
size_t mem_read(uintptr_t address, void *buffer, size_t size, int *error);
/* The same, but up to the first page without read permission: code that is planned with must be readable. */
size_t mem_read_readable(uintptr_t address, void *buffer, size_t size);
/* Do the pages of [lower, upper) have read permission now? True where the kernel refuses to say. */
bool mem_is_readable(uintptr_t lower, uintptr_t upper);
/*
 * [lower, upper) stays mapped until the library lock is released. If all of it is readable now, it is read without
 * asking the kernel again, until the next call for what is not in it. The caller ends that with an empty range, before
 * the library lock is released.
 */
void mem_trust(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

#endif
