/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A batch in steps. Every region of the batch is at the same step.
 *
 *   check     the text holds what we expect (I8)
 *   publish   generated code written; entries active, so that a trap from here on is served (I3)
 *   phase 0   a trap byte on the first byte of punned jumps that go: what they read may change from here on (I11)
 *   sync 0    no core executes them any more
 *   phase 1   trap bytes: on the first byte, and the final ones on every boundary (I4)
 *   sync 1    no core executes the old bytes any more
 *   phase 2   the other bytes; every way in to them is a trap byte (I2)
 *   sync 2    no core executes a jump with old displacement bytes
 *   phase 3   the first byte; after a removal, boundaries, too
 *   sync 3    no trap byte of ours is executed where its entry is retired, nor bytes of ours where a punned jump reads
 *   phase 4   the first byte of punned jumps: what they read is the original by now (I11)
 *   settle    entries of removals retired (I5), trampolines out of use retired (I7)
 *
 * After any step the text is in a resting state: each site works, by trap or by jump, because the batch, and in the end
 * region->live, says what is there and the entries are active. A batch that is cut short is finished or undone by the
 * next one. Phases 0 and 4 are left out where there are no such jumps: they are rare. A sync is left out where nothing
 * was written since the one before, and sync 3 where neither follows: then a core that still has a trap byte is served
 * by its entry.
 */
#include "commit/commit.h"

#include "arch/trap_bytes.h"
#include "code/staging.h"
#include "commit/batch.h"
#include "base/error.h"
#include "patch/unmapped.h"
#include "base/inject.h"
#include "base/thread_safety.h"
#include "commit/phase.h"
#include "commit/publish.h"
#include "patch/region.h"
#include "sys/mem_read.h"
#include "trap/registry.h"
#include "sys/membarrier.h"
#include "sys/text.h"

#include <errno.h>
#include <string.h>

#define ORIGIN "patch_commit"

static uint64_t commits;
/* Text was written since the last sync, by this batch or one before: there may be cores that have not seen it. */
static bool unseen;
/* A batch was cut short: the next one goes on, though it may have nothing to write. */
static bool cut_short;

uint64_t commit_count(void)
{
	return commits;
}

/* How text is changed: commit_change_text(), commit_change_text_whole(), commit_spare_text(). */
enum commit_way { COMMIT_IN_PHASES, COMMIT_WHOLE, COMMIT_NO_TEXT };

/* ---- the batch -------------------------------------------------------------------------------------------------- */

REQUIRES(library_lock)
static void commit_write_phase(struct batch *batch, int phase)
{
	batch_write(batch, phase);
	unseen |= batch->write_count > 0;
}

static int commit_sync_written(void)
{
	int error = unseen ? core_sync() : 0;

	unseen &= error != 0;
	return error;
}

/*
 * A sync failed, and the batch ends here. What is in the text stays and works; the next commit goes on from there. A
 * patch all of whose regions are in the text, be it by traps, opens; one that was to be removed is closed.
 */
REQUIRES(library_lock)
static patch_status commit_interrupted(struct batch *batch, int error)
{
	struct region_change *change;

	cut_short = true;
	for_each_change(batch, change, PREFETCH_NOTHING) {
		batch_record(change);
		region_queue(change->region);
		change->region->led |= change->install && !change->failed && (change->written || !change->text_changes);
		commit_open_patches(change->region);
	}
	return error_raise_sys(PATCH_ESYS, ORIGIN,
			       "core synchronisation failed (membarrier(2)); the next commit completes the batch",
			       error);
}

/* Sync 3 must come before an entry is retired (I5) and before a punned jump is written (I11). Will either be done? */
REQUIRES(library_lock)
static bool commit_needs_sync_3(struct batch *batch)
{
	const struct region_change *change;

	for_each_change(batch, change, PREFETCH_ENTRIES)
		if (batch_takes_part(change, 4) || commit_retires(change))
			return true;
	return false;
}

REQUIRES(library_lock)
static bool commit_any_changes(struct batch *batch)
{
	const struct region_change *change;

	if (cut_short)
		return true;
	for_each_change(batch, change, PREFETCH_NOTHING)
		if ((change->text_changes || change->pad_changes) && !change->failed)
			return true;
	return unseen && commit_needs_sync_3(batch);
}

/* ---- punned jumps ----------------------------------------------------------------------------------------------- */

/*
 * Steps phase 0 and sync 0. Without the sync a core could execute a punned jump, fetched before phase 0, with bytes
 * that phase 1 has changed.
 */
REQUIRES(library_lock)
static int commit_cut_punned(struct batch *batch)
{
	const struct region_change *change;
	bool any = false;
	int error;

	for_each_change(batch, change, PREFETCH_NOTHING)
		any |= batch_takes_part(change, 0);
	if (!any)
		return 0;
	commit_write_phase(batch, 0);
	(void)INJECT(INJECT_COMMIT_PHASE_0);
	error = commit_sync_written();
	if (error != 0)
		return error;
	for_each_change(batch, change, PREFETCH_NOTHING)
		if (batch_takes_part(change, 0))
			region_clear_punned(change->region);
	return 0;
}

/* A punned jump that could not be cut still reads the bytes behind it: changes of those bytes fail (I11). */
REQUIRES(library_lock)
static void commit_spare_what_is_read(struct batch *batch)
{
	struct region_change *change;

	if (!registry_any_punned())
		return;
	for_each_change(batch, change, PREFETCH_NOTHING) {
		uint64_t before = change->text_changes && !change->failed ? registry_may_have_before(change->start) : 0;

		for (uintptr_t back = 1; !change->failed && back < ARCH_JMP_SIZE; ++back) {
			const struct registry_entry *entry =
				before & 1ULL << (63 - back) ? registry_find(change->start - back) : NULL;

			if (entry != NULL && entry->punned)
				batch_fail(change, PATCH_ECONF,
					   "a jump in front of it, which reads its bytes, could not be removed");
		}
	}
}

/* Step phase 4. */
REQUIRES(library_lock)
static void commit_write_punned(struct batch *batch)
{
	struct region_change *change;
	bool any = false;

	for_each_change(batch, change, PREFETCH_NOTHING) {
		const struct region *region = change->region;
		uint8_t text[ARCH_JMP_SIZE];
		int error;

		if (!batch_takes_part(change, 4))
			continue;
		/* I8, for the bytes that the jump only reads. */
		if (mem_read(region->start, text, sizeof(text), &error) != sizeof(text) ||
		    memcmp(text + region->length, region->original + region->length, sizeof(text) - region->length) !=
			    0) {
			batch_fail(change, PATCH_ECHANGED,
				   "the bytes behind it, which its jump would consist of, were changed");
			continue;
		}
		registry_set_punned(region->entries[0], true);
		any = true;
	}
	if (!any)
		return;
	commit_write_phase(batch, 4);
	(void)INJECT(INJECT_COMMIT_PHASE_4);
}

/* ---- the text --------------------------------------------------------------------------------------------------- */

REQUIRES(library_lock)
static patch_status commit_change_text(struct batch *batch)
{
	int error;

	error = commit_cut_punned(batch);
	if (error != 0)
		return commit_interrupted(batch, error);
	commit_spare_what_is_read(batch);
	commit_write_phase(batch, 1);
	commit_withdraw(batch);
	(void)INJECT(INJECT_COMMIT_PHASE_1);
	/*
	 * Sync 1 (I2). Without it a core could still execute an original instruction fetched before phase 1 while phase
	 * 2 rewrites its bytes.
	 */
	error = commit_sync_written();
	if (error != 0)
		return commit_interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_1);

	commit_write_phase(batch, 2);
	(void)INJECT(INJECT_COMMIT_PHASE_2);
	/* Sync 2 (I4). Without it a core that sees the first byte could see displacement bytes from before. */
	error = commit_sync_written();
	if (error != 0)
		return commit_interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_2);

	commit_write_phase(batch, 3);
	(void)INJECT(INJECT_COMMIT_PHASE_3);
	/*
	 * Sync 3 (I5). Without it a core could raise a trap that we wrote after its entry was retired; or execute a
	 * punned jump with bytes that were there before (I11).
	 */
	error = commit_needs_sync_3(batch) ? commit_sync_written() : 0;
	if (error != 0)
		return commit_interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_3);
	commit_write_punned(batch);
	cut_short = false;
	return PATCH_OK;
}

/*
 * Instead of the phases. Threads see each write whole: what they execute at the first byte or at a boundary is either
 * what was there or what is there now (I1, I2). Original bytes are right wherever a thread is; other bytes only where
 * it is not: of an install, only the first instruction changes.
 */
REQUIRES(library_lock)
static patch_status commit_change_text_whole(struct batch *batch)
{
	struct region_change *change;
	int error;

	for_each_change(batch, change, PREFETCH_NOTHING)
		if (change->install && change->text_changes && !change->failed &&
		    (change->pad_changes ||
		     !phase_is_one_instruction(change->region, change->install, batch_text(change, 0))))
			batch_fail(change, PATCH_ECONF, "more than one instruction would change");
	text_begin_whole();
	commit_write_phase(batch, PHASE_WHOLE);
	text_end_whole();
	/*
	 * Nothing rests on what an install has written before the next batch writes, and syncs behind that: where a
	 * sync has to wait for the kernel's registration, as other threads are there, it is left to that one.
	 */
	error = core_sync_is_registered() || commit_needs_sync_3(batch) ? commit_sync_written() : 0;
	if (error != 0)
		return commit_interrupted(batch, error);
	cut_short = false;
	return PATCH_OK;
}

/*
 * Instead of the phases, where no trap byte must be met: whatever would change text, or a pad, fails. What is left
 * opens and closes hooks. Of it, only entries that are retired need a core sync (I5).
 */
REQUIRES(library_lock)
static patch_status commit_spare_text(struct batch *batch)
{
	struct region_change *change;
	int error;

	for_each_change(batch, change, PREFETCH_NOTHING)
		if ((change->text_changes || change->pad_changes) && !change->failed)
			batch_fail(change, PATCH_EBLOCKED, "its text must not be changed now");
	error = commit_needs_sync_3(batch) ? commit_sync_written() : 0;
	return error != 0 ? commit_interrupted(batch, error) : PATCH_OK;
}

/* Generated code could not be written. Nothing has been done to the text: everything waits for the next commit. */
REQUIRES(library_lock)
static patch_status commit_unwritten(struct batch *batch, int error)
{
	const struct region_change *change;

	for_each_change(batch, change, PREFETCH_NOTHING)
		region_queue(change->region);
	return error_raise_sys(error == ENOMEM ? PATCH_ENOMEM : PATCH_ESYS, ORIGIN,
			       "generated code could not be written", error);
}

REQUIRES(library_lock)
static patch_status commit_run_batch(struct batch *batch, enum commit_way way)
{
	patch_status status = PATCH_OK;
	int error;

	batch_check(batch);
	unseen |= batch->restored;
	(void)INJECT(INJECT_COMMIT_CHECKED);
	/* Generated code of this batch, and of the batches behind it. */
	error = staging_flush();
	if (error != 0)
		return commit_unwritten(batch, error);
	if (way == COMMIT_NO_TEXT)
		status = commit_spare_text(batch);
	if (status != PATCH_OK)
		return status;
	batch_write_pads(batch);
	commit_publish(batch);
	(void)INJECT(INJECT_COMMIT_PUBLISHED);
	if (way != COMMIT_NO_TEXT && commit_any_changes(batch))
		status = way == COMMIT_WHOLE ? commit_change_text_whole(batch) : commit_change_text(batch);
	if (status == PATCH_OK)
		commit_settle(batch);
	return status;
}

/* ---- all batches ------------------------------------------------------------------------------------------------ */

/*
 * End what was on pages that are not mapped any more. unmapped_end() takes all regions of a page with the first one of
 * them; their memory stays until unmapped_collect().
 */
REQUIRES(library_lock)
static void commit_end_gone(const struct worklist *worklist)
{
	for (size_t i = 0; i < worklist->next; ++i) {
		struct region *region = worklist->items[i].region;

		if (!worklist->items[i].gone || region->gone)
			continue;
		if (worklist->items[i].written_over)
			unmapped_end_written_over(region);
		else
			unmapped_end(ALIGN_DOWN(region->start, PAGE_SIZE), region->start + region->length);
	}
}

REQUIRES(library_lock)
static patch_status commit_run_all(struct worklist *worklist, struct batch *batch, enum commit_way way)
{
	patch_status status = PATCH_OK;

	text_begin();
	while (status == PATCH_OK && worklist_next(worklist)) {
		batch_load(batch, worklist);
		status = commit_run_batch(batch, way);
		batch_report(batch, worklist);
	}
	text_end();
	worklist_put_back(worklist);
	commit_end_gone(worklist);
	return status == PATCH_OK && worklist->broken ? PATCH_EFAIL : status;
}

REQUIRES(library_lock)
static patch_status commit_queued(enum commit_way way)
{
	struct worklist worklist;
	struct batch batch;
	const bool begun = worklist_begin(&worklist, way == COMMIT_WHOLE);
	patch_status status;

	if (begun && worklist.count == 0) {
		status = PATCH_OK;
	} else if (begun && batch_begin(&batch, &worklist)) {
		status = commit_run_all(&worklist, &batch, way);
		batch_end(&batch);
	} else {
		worklist_put_back(&worklist);
		status = error_raise(PATCH_ENOMEM, ORIGIN, "out of memory", NULL);
	}
	worklist_end(&worklist);
	return status;
}

REQUIRES(library_lock)
static patch_status commit_all(enum commit_way way)
{
	patch_status status;

	LOCK_ASSERT_HELD();
	++commits;
	status = region_queued() > 0 ? commit_queued(way) : PATCH_OK;
	registry_poll();
	return status;
}

bool commit_changes_text(void)
{
	for (size_t i = 0; i < region_queued(); ++i) {
		const struct region *region = region_queued_at(i);

		if (!region_waits_for_whole(region) && phase_changes_text(region, region_wanted(region)))
			return true;
	}
	return false;
}

patch_status commit_run(void)
{
	return commit_all(COMMIT_IN_PHASES);
}

patch_status commit_run_whole(void)
{
	return commit_all(COMMIT_WHOLE);
}

patch_status commit_run_without_text(void)
{
	return commit_all(COMMIT_NO_TEXT);
}
