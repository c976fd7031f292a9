/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scratch memory, for what is too large for the stack, which may be a small sigaltstack. Only the holder of the library
 * lock has any: it takes blocks, gives the last one back first, and has given all of them back when it releases the
 * lock. So what is never needed at the same time is the same memory.
 */
#ifndef LIBPATCH_BASE_SCRATCH_H
#define LIBPATCH_BASE_SCRATCH_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * Room for what is taken at once. The most is in trampoline_build(): the candidates that are tried (candidates.h), the
 * builder (trampoline_builder.h), and a run of text (text.c), as staging is flushed when it is full. Each asserts its
 * part. In front of the builder, candidates are taken twice (leads.c).
 */
#define SCRATCH_CANDIDATES 4096UL
#define SCRATCH_BUILDER (160 * 1024UL)
#define SCRATCH_RUN (64 * 1024UL)
#define SCRATCH_SIZE (SCRATCH_CANDIDATES + SCRATCH_BUILDER + SCRATCH_RUN)

/* Aligned to a cache line, and not zeroed. NULL: there is no room, which is a bug, and is in the chain of errors. */
void *scratch_take(size_t size) REQUIRES(library_lock);
/* Give back the block that was taken last, with its size as given to scratch_take(). NULL is ignored. */
void scratch_give(void *block, size_t size) REQUIRES(library_lock);
/* The lock is about to be released: nothing is taken. */
void scratch_end(void) REQUIRES(library_lock);

#endif
