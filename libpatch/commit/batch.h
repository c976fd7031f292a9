/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions that go through the protocol together: what its phases are to write for each, and what was written. All that phases
 * need is here, one after the other: each region is somewhere else in memory.
 */
#ifndef LIBPATCH_COMMIT_BATCH_H
#define LIBPATCH_COMMIT_BATCH_H

#include "commit/worklist.h"
#include "base/base.h"
#include "patch/region.h"
#include "sys/text.h"

struct job {
	struct region *region;
	/*
	 * What the text holds as far as we wrote it, and what it is to hold after phase 1, 2 and 3 (phase_texts()). The region
	 * gets to know in the end: batch_record().
	 */
	uint8_t *texts;
	/* The region's. */
	uintptr_t start;
	uint8_t length;
	bool no_rmw;
	bool install; /* else remove */
	bool changes;     /* bytes of text change */
	bool pad_changes; /* the pad is led to another trampoline */
	bool new_pad;     /* nobody was led to it yet */
	bool punned;      /* a punned jump is installed */
	bool had_punned;  /* one is there */
	bool written;     /* some byte was */
	bool failed;
	bool gone; /* its page is not mapped any more */
	uint8_t pad_bytes[ARCH_JMP_SIZE];
};

struct batch {
	struct job *jobs;
	size_t count;
	uint8_t *texts;
	struct text_write *writes;
	size_t write_count;
	bool restored; /* somebody else put original bytes back */
	/* That there is memory for. */
	size_t largest;
	size_t longest;
};

/* Memory for any batch of the agenda. False: there is none. */
bool batch_begin(struct batch *batch, const struct worklist *agenda);
void batch_end(struct batch *batch);
/* The regions of the agenda's batch at hand. */
void batch_load(struct batch *batch, const struct worklist *agenda);
/* What has become of them. */
void batch_report(const struct batch *batch, struct worklist *agenda);
/*
 * One of the batch's jobs, of a pass over all of them that looks at their regions; and at more, by what is to be done: enum
 * region_part.
 */
struct job *batch_job(struct batch *batch, size_t index, unsigned int to_install, unsigned int to_remove);

/* The patches of a region whose change failed keep the state they have; the next commit tries again. */
void batch_fail(struct job *job, patch_status status, const char *message);

/* Step check (I8): the jobs, and does the text hold what we expect? */
void batch_check(struct batch *batch);
/* Write the pads that no thread was led to yet: in one go. */
void batch_write_pads(struct batch *batch);

/* What the text holds now (0), or is to hold after phase 1, 2, 3, by what is known now. */
static inline const uint8_t *batch_text(const struct job *job, int phase)
{
	return job->texts + (size_t)phase * job->length;
}

/* Is there anything to write for the job in this phase, 0 to 4 or PHASE_WHOLE? */
#define PHASE_WHOLE 5
bool batch_takes_part(const struct job *job, int phase);
/* Write what the phase changes, and remember what was written. */
void batch_write(struct batch *batch, int phase);

/* The region holds what was written. */
void batch_record(const struct job *job);

#endif
