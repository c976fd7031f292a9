/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing live text, the program's and our own; the only place that does.
 *
 * Three ways, the best that works is chosen once:
 *  1. /proc/self/mem, which writes through page protections into private copies (mm/gup.c, FOLL_FORCE). Opened anew for
 *     each batch, at a high number: a descriptor kept open could by then be the program's, or after fork the parent's.
 *     That it is still ours is looked at right before each write, and that the bytes arrived in memory after it. What
 *     remains is a program that closes it and gets its number between that look and the write.
 *  2. mprotect to writable and executable and back, only where the program allows such pages (enable_wxe 0).
 *  3. a private copy of the pages, made executable and moved over them with mremap(MREMAP_FIXED). Where memory may not
 *     become executable, the copy is filled by way 1; where that is not to be had either, or mremap() is not, it is a
 *     file without a name (memfd_create(2)), looked at as in way 1, and mapped over them with MAP_FIXED.
 *
 * A way that stops working later is replaced by the next one that works, for that batch.
 *
 * None ever takes execute permission from a page that threads may be running in. Called with the library lock held.
 */
#ifndef LIBPATCH_SYS_TEXT_H
#define LIBPATCH_SYS_TEXT_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>

enum text_way { TEXT_NONE, TEXT_PROC_MEM, TEXT_MPROTECT, TEXT_PAGE_SWAP };

struct text_write {
	uintptr_t address; /* first: sort_by_address() */
	const uint8_t *bytes;
	uint32_t length;
	/*
	 * The mapping is writable, and stays so: bytes between this and the next write may be changing, and must not be
	 * rewritten.
	 */
	bool no_rmw;
	/*
	 * What is there now, as far as the caller knows, or NULL. Looked at right before the write, which is left out,
	 * with ESTALE, where it is not so. A change between the two is lost: the kernel has no way to compare and write
	 * at once.
	 */
	const uint8_t *expected;
	int error; /* out: 0 or errno */
	void *cookie; /* the caller's, to know the write again */
};

/* Choose the way; PATCH_ENOTSUP when none works, or memory cannot be read. */
patch_status text_init(bool allow_writable_executable);
/* Why not, after PATCH_ENOTSUP. */
const char *text_refusal(void);
enum text_way text_way(void);
/* For tests. */
void text_set_way(enum text_way way);

/*
 * Perform the writes, which do not overlap, in ascending order of address (the array is sorted). Bytes of one write
 * reach other cores in any order. Writes near each other are joined to one of a page run, with the unchanged bytes
 * between them read right before. Returns the number of writes that failed.
 */
size_t text_apply(struct text_write *writes, size_t count) REQUIRES(library_lock);
/*
 * Write zeros to pages that hold nothing but zeros, where writing to a page that was never written to would otherwise
 * replace the kernel's page of zeros. Failures are ignored. A batch follows.
 */
void text_prefault(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/* Between these two the way stays prepared, which saves every batch some system calls. The library lock is held. */
void text_begin(void) REQUIRES(library_lock);
void text_end(void) REQUIRES(library_lock);

/*
 * Between these two, threads see each write whole or not at all: either there is no other thread, as also in a child
 * that has stopped all of its parent's (stop_world.h), or whole pages are exchanged, which is one step for everybody (a
 * thread that reads meanwhile waits in the kernel, mm/mremap.c).
 */
void text_begin_whole(void) REQUIRES(library_lock);
void text_end_whole(void) REQUIRES(library_lock);

uint64_t text_write_count(void);

#endif
