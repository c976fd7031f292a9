/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code that is unmapped while patches are on it: the patches end, and what comes to be mapped there next is none of
 * ours. Called with the library lock held.
 */
#ifndef LIBPATCH_PATCH_UNMAPPED_H
#define LIBPATCH_PATCH_UNMAPPED_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * [lower, upper) is about to be unmapped, or is already. Guarantees, at return:
 *  - patches that have any byte there are over: patch_info() and patch_enable() say so, patch_unmake() releases them;
 *  - no address there is registered: a trap there is the program's (I6);
 *  - no region is there: what is mapped there next can be patched like any code.
 * No thread may execute this code any more, nor return to it: that is the business of who unmaps it, patched or not. So
 * none is in the displaced copies either. Their memory is kept, though, until a later call of unmapped_collect() finds
 * other bytes there, or none: the unmapping may fail. Cheap when nothing is patched there. Writes no text; allocates
 * nothing. What was looked up of the mapping is for the caller to forget (site_forget()).
 */
void unmapped_end(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/*
 * The same for one region, where other code came without the library's knowing of it, mapped or written over the one
 * that was there. Whether threads are in the copies nobody can tell: they are kept for good.
 */
struct region;
void unmapped_end_written_over(struct region *region) REQUIRES(library_lock);

/* The same for a region that owned no entries yet: replan.c made it, and its code went before it was used. */
void unmapped_abandon(struct region *region) REQUIRES(library_lock);

/* Free what unmapped_end() left (I7), as far as its code is gone. */
void unmapped_collect(void) REQUIRES(library_lock);

#endif
