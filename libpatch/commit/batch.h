/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions that go through the protocol together: what its phases are to write for each, and what was written. Changes
 * stand one after the other, with copies of what the phases need: the regions themselves are scattered over memory.
 * Called with the library lock held.
 */
#ifndef LIBPATCH_COMMIT_BATCH_H
#define LIBPATCH_COMMIT_BATCH_H

#include "arch/trap_bytes.h"
#include "commit/worklist.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/region.h"
#include "sys/text.h"

/* What the protocol does to one region. */
struct region_change {
	struct region *region;
	/*
	 * What the text holds as far as we wrote it, and what it is to hold after phase 1, 2 and 3 (phase_texts()). The
	 * region gets to know in the end: batch_record().
	 */
	uint8_t *texts;
	/* As in the region, which the phases need not look at so. */
	uintptr_t start;
	uint8_t length;
	bool no_rmw;
	bool install;      /* the region is to be in the text; else the original bytes are */
	bool text_changes; /* bytes of the text are to change */
	bool pad_changes;  /* the pad is led to another trampoline */
	bool new_pad;      /* no thread was led to the pad yet */
	bool punned;       /* a punned jump is installed */
	bool had_punned;   /* a punned jump is there */
	bool written;      /* some byte was written */
	bool failed;
	bool gone; /* the page is not mapped any more, or other code is there */
	bool written_over; /* the latter */
	uint8_t pad_bytes[ARCH_JMP_SIZE];
};

struct batch {
	struct region_change *changes;
	size_t count;
	uint8_t *texts;
	struct text_write *writes;
	size_t write_count;
	uint8_t *view;  /* room for the text that is compared */
	bool restored;  /* original bytes were there that the library had not put back */
	size_t largest; /* how many changes there is memory for */
	size_t longest; /* and how many bytes of text, of all regions together */
};

/* Take memory for any batch of the worklist. False: there is none. */
bool batch_begin(struct batch *batch, const struct worklist *worklist) REQUIRES(library_lock);
/* Give the memory back. */
void batch_end(struct batch *batch) REQUIRES(library_lock);
/* Begin with the regions of the worklist's batch at hand. */
void batch_load(struct batch *batch, const struct worklist *worklist) REQUIRES(library_lock);
/* Tell the worklist what has become of them. */
void batch_report(const struct batch *batch, struct worklist *worklist) REQUIRES(library_lock);
/* What a pass over all changes is about to look at: it is fetched into the processor's caches some changes ahead. */
enum batch_prefetch {
	PREFETCH_NOTHING, /* the change alone */
	PREFETCH_CHECK,
	PREFETCH_PADS,
	PREFETCH_PUBLISH,
	PREFETCH_ENTRIES,
	PREFETCH_SETTLE
};
void batch_fetch(const struct batch *batch, size_t index, enum batch_prefetch prefetch) REQUIRES(library_lock);

/* The change at the index; NULL behind the last one. */
static inline struct region_change *batch_change(struct batch *batch, size_t index, enum batch_prefetch prefetch)
	REQUIRES(library_lock)
{
	if (index >= batch->count)
		return NULL;
	if (prefetch != PREFETCH_NOTHING)
		batch_fetch(batch, index, prefetch);
	return &batch->changes[index];
}

#define for_each_change(batch, change, prefetch)                                                                       \
	for (size_t change##_index = 0; ((change) = batch_change(batch, change##_index, prefetch)) != NULL;            \
	     ++change##_index)

/* The patches of a region whose change failed keep the state they have; the next commit tries again. */
void batch_fail(struct region_change *change, patch_status status, const char *message) REQUIRES(library_lock);

/* Step check (I8): the changes, and does the text hold what we expect? */
void batch_check(struct batch *batch) REQUIRES(library_lock);
/* Write the pads that no thread was led to yet: in one go. */
void batch_write_pads(struct batch *batch) REQUIRES(library_lock);

/* What the text holds now (0), or is to hold after phase 1, 2, 3, as computed last. */
static inline const uint8_t *batch_text(const struct region_change *change, int phase)
{
	return change->texts + (size_t)phase * change->length;
}

/* Is there anything to write for the change in this phase, 0 to 4 or PHASE_WHOLE? */
#define PHASE_WHOLE 5
bool batch_takes_part(const struct region_change *change, int phase) REQUIRES(library_lock);
/* Write what the phase changes, and remember what was written. */
void batch_write(struct batch *batch, int phase) REQUIRES(library_lock);

/* The region gets to know what is in the text. */
void batch_record(const struct region_change *change) REQUIRES(library_lock);

#endif
