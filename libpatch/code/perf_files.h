/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two files of perf.h. Each is asked to begin in each process.
 */
#ifndef LIBPATCH_CODE_PERF_FILES_H
#define LIBPATCH_CODE_PERF_FILES_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct code_range;
/*
 * The next block of an arena, and its size, of its granules from *first, which grows, up to `last`; 0: no more. What is
 * given out and not used, or not written yet, has no rows, and is left out.
 */
uintptr_t perf_next_block(const struct code_range *range, size_t *first, size_t last, size_t *size);

/* 0 or -errno; *path: the file. */
long perf_map_begin(const char **path);
void perf_map_add(uintptr_t block, size_t size) REQUIRES(library_lock);
/* Code that is no block. */
void perf_map_add_range(uintptr_t lower, size_t size, const char *name);
void perf_map_flush(void);

long perf_dump_begin(const char **path);
/* All that arenas have given out since the last call. */
void perf_dump_add_new(void) REQUIRES(library_lock);

#endif
