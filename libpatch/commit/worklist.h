/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one commit is to do: the regions that were queued, in order of address, in batches. A batch goes through all
 * steps of the protocol before the next one begins, so that what all steps need of it - text, regions, entries - stays
 * in the processor's caches.
 */
#ifndef LIBPATCH_COMMIT_WORKLIST_H
#define LIBPATCH_COMMIT_WORKLIST_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/region.h"

struct worklist_item {
	uintptr_t start; /* of the region; first: sort_by_address() */
	struct region *region;
	uint8_t length;
	bool gone; /* its code is not mapped any more, or other code is there */
	bool written_over; /* the latter */
};

struct worklist {
	struct worklist_item *items;
	size_t room;
	size_t count;
	size_t first;   /* of the batch at hand */
	size_t next;    /* behind it */
	size_t largest; /* batch: regions */
	size_t longest; /* batch: bytes of all its regions */
	bool broken;    /* some change was not made */
};

/*
 * Takes all that is queued, but what changes whole or not at all; or, `whole`, what is the library's own. False: out of
 * memory, and everything is queued as before.
 */
bool worklist_begin(struct worklist *worklist, bool whole) REQUIRES(library_lock);
/* What was in no batch is queued again. */
void worklist_put_back(struct worklist *worklist) REQUIRES(library_lock);
void worklist_end(struct worklist *worklist) REQUIRES(library_lock);

/* The next batch: [first, next). False: that was all. */
bool worklist_next(struct worklist *worklist) REQUIRES(library_lock);

#endif
