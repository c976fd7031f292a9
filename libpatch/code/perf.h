/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling perf of generated code, by files that it reads when it reports: a map of names (tools/perf/Documentation/
 * jit-interface.txt in Linux), and a dump of the code with its unwind description (jitdump-specification.txt there).
 * Only where patch_init() was told to. A file that cannot be written any more is left as it is, and nobody is told.
 */
#ifndef LIBPATCH_CODE_PERF_H
#define LIBPATCH_CODE_PERF_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "sys/text.h"

/*
 * Make the files that are wanted, in patch_init(). Returns 0, or -errno and the file: then none is written. Alone, or
 * with the lock: not analysed.
 */
struct perf_files {
	bool map;
	bool dump;
};
long perf_begin(const struct perf_files *wanted, const char **path);

/* These blocks of arenas were written. */
void perf_tell(const struct text_write *blocks, size_t count) REQUIRES(library_lock);
/* And so were all that were given out. */
void perf_told(void) REQUIRES(library_lock);

#endif
