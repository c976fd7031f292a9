/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files in /tmp that are named for this process, grow, and are read by others. No descriptor is kept, as the program
 * may close any, and use its number: a file is opened for each write, and must still be the same. Whoever else may
 * write to /tmp cannot have another file written to. Raw system calls only.
 */
#ifndef LIBPATCH_SYS_OUTPUT_FILE_H
#define LIBPATCH_SYS_OUTPUT_FILE_H

#include "base/compiler.h"

#include <sys/uio.h>

struct output_file {
	char path[48];
	uint64_t device;
	uint64_t inode;
};

/*
 * /tmp/PREFIX-PID.SUFFIX, where PID is the process's in its own namespace. It may be there already, if `shared`, and is
 * this user's then. Returns 0 or -errno.
 */
long output_file_create(struct output_file *file, const char *prefix, const char *suffix, bool shared);
/* All of it, or a negative errno: then the file may end with a part of it. */
long output_file_append(const struct output_file *file, const struct iovec *parts, size_t count);
/* Map the first page, for others to see, until the process ends. Returns 0 or -errno. */
long output_file_show(const struct output_file *file);
void output_file_remove(const struct output_file *file);

#endif
