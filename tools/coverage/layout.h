/* SPDX-License-Identifier: MIT */
/*
 * Where a process has what, and making this process the same. A layout is text: a line
 *
 *   break ADDRESS stack BYTES        hexadecimal: the program break, and the room that the main stack may grow into
 *
 * and then the lines of /proc/PID/maps.
 */
#ifndef EXAMPLES_COVERAGE_LAYOUT_H
#define EXAMPLES_COVERAGE_LAYOUT_H

#include <link.h>
#include <stdbool.h>
#include <sys/types.h>

/* The layout of a process, in a file that has no name; its descriptor, or -1 and errno. */
int layout_of(pid_t pid);

enum layout_result {
	LAYOUT_DONE,
	LAYOUT_COLLIDED, /* with something of this process; nothing can be said */
	LAYOUT_FAILED
};

/*
 * Occupy what the layout occupies, and map `file` where the layout has it. *info describes it then as
 * dl_iterate_phdr(3) does. `root` goes before the file's name. On failure *why says what is wrong.
 */
enum layout_result layout_enact(const char *layout, const char *root, const char *file, struct dl_phdr_info *info,
				const char **why);

#endif
