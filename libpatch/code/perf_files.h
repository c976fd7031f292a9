/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two files of perf.h. Each is asked to begin in each process.
 */
#ifndef LIBPATCH_CODE_PERF_FILES_H
#define LIBPATCH_CODE_PERF_FILES_H

#include "base/compiler.h"
#include "base/thread_safety.h"

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
