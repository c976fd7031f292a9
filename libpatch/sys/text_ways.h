/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What text.c takes from text_ways.c. Called with the library lock held.
 */
#ifndef LIBPATCH_SYS_TEXT_WAYS_H
#define LIBPATCH_SYS_TEXT_WAYS_H

#include "sys/text.h"

/*
 * A descriptor of /proc/self/mem, open for one batch, or between text_begin() and text_end(); or of a file that is to
 * be mapped. The program may close it and reuse its number at any time: device and inode tell whether it is still the
 * same file.
 */
struct text_mem {
	long fd; /* or -errno */
	uint64_t device;
	uint64_t inode;
};

/* Does the program allow pages that are writable and executable at once? Set by text_init(). */
extern bool text_may_be_writable_executable;
/* Why no way works, in words. */
extern const char *text_way_refusal;

/*
 * Write by one way. `writable`: the mapping is writable, and stays so. Returns 0 or errno; EIO: not all pages are
 * there, and part of the bytes may have been written.
 */
int text_way_write(enum text_way by, struct text_mem *mem, uintptr_t address, const uint8_t *bytes, size_t length,
		   bool writable);
/* The same by /proc/self/mem. */
int text_write_proc_mem(struct text_mem *mem, uintptr_t address, const uint8_t *bytes, size_t length);

/* Does the way work, on a page of the library's own? */
bool text_way_works(enum text_way by);
/* The best way from `first` on that works, or TEXT_NONE. */
enum text_way text_way_choose(enum text_way first);

/* Close the descriptor, unless it has become the program's. */
void text_mem_close(struct text_mem *mem);

#endif
