/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A batch in steps. Every region of the batch is at the same step.
 *
 *   check     the text holds what we expect (I8)
 *   publish   generated code written; entries active, so that a trap from here on is served (I3)
 *   phase 0   0xCC on the first byte of punned jumps that go: what they read may change from here on (I11)
 *   sync 0    no core executes them any more
 *   phase 1   trap bytes: 0xCC on the first byte, the final trap byte on every boundary (I4)
 *   sync 1    no core executes the old bytes any more
 *   phase 2   the other bytes; every way in to them is a trap byte (I2)
 *   sync 2    no core executes a jump with old displacement bytes
 *   phase 3   the first byte; after a removal, boundaries, too
 *   sync 3    no trap byte of ours is executed where its entry is retired, nor bytes of ours where a punned jump reads
 *   phase 4   the first byte of punned jumps: what they read is the original by now (I11)
 *   settle    entries of removals retired (I5), trampolines out of use retired (I7)
 *
 * After any step the text is in a resting state: each site works, by trap or by jump, because the batch, and in the end
 * region->live, says what is there and the entries are active. A batch that is cut short is finished or undone by the next one.
 * Phases 0 and 4 are left out where there are no such jumps: they are rare. A sync is left out where nothing was written since
 * the one before, and sync 3 where neither follows: then a core that still has a trap byte is served by its entry.
 */
#include "commit/commit.h"

#include "arch/arch.h"
#include "commit/batch.h"
#include "base/error.h"
#include "patch/unmapped.h"
#include "base/inject.h"
#include "commit/phase.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "trap/registry.h"
#include "sys/membarrier.h"
#include "sys/text.h"

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

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static bool is_active(struct registry_entry *entry)
{
	return REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_ACTIVE;
}

/* Nothing of the region is in the text any more (I5). Entries that were never active stay so. */
static void retire_entries(const struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i)
		if (is_active(region->entries[i]))
			registry_retire(region->entries[i]);
}

/*
 * Is the entry to be retired, of a region that is installed? So are those of instructions on which a trap byte was needed for
 * the transition only: not of those that a jump begins with.
 */
static bool is_bystander(const struct job *job, unsigned int i)
{
	const struct region *region = job->region;
	uint8_t byte = batch_text(job, 0)[region->offsets[i]];

	return (i > 0 || region->strategy == PATCH_STRATEGY_TRAP) && byte == region->original[region->offsets[i]] &&
	       arch_trap_class(byte) == ARCH_TRAP_NONE && is_active(region->entries[i]);
}

static void retire_bystanders(const struct job *job)
{
	for (unsigned int i = 0; i < job->region->count; ++i)
		if (is_bystander(job, i))
			registry_retire(job->region->entries[i]);
}

/* Also when it was an interrupted batch before this one that led the pad elsewhere. */
static bool is_pad_led(const struct region *region)
{
	return region->pad_entry != NULL && is_active(region->pad_entry) && region->pad_live[0] != ARCH_INT3;
}

/* Will settle_region() retire any entry? */
static bool retires(const struct job *job)
{
	const struct region *region = job->region;

	if (job->failed)
		return false;
	if (is_pad_led(region))
		return true;
	for (unsigned int i = 0; i < region->count; ++i)
		if (job->install ? is_bystander(job, i) : is_active(region->entries[i]))
			return true;
	return false;
}

static void open_hooks(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		quiesce_set_open(a->patch, patch_is_wanted(a->patch));
}

/* What failed stays as it was. */
static void reset_hooks(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		quiesce_set_open(a->patch, a->patch->enabled);
}

/* `first` and `last`: the bytes there after phase 1 and after phase 3. */
static void activate(struct registry_entry *entry, uintptr_t target, uint8_t first, uint8_t last)
{
	enum arch_trap_class class = arch_trap_class(last);

	if (class != ARCH_TRAP_NONE)
		registry_activate(entry, target, class);
	if (arch_trap_class(first) != ARCH_TRAP_NONE && arch_trap_class(first) != class)
		registry_activate(entry, target, arch_trap_class(first));
}

static void activate_install(const struct job *job, const struct trampoline *trampoline)
{
	const struct region *region = job->region;
	const uint8_t *first = batch_text(job, 1);
	const uint8_t *last = batch_text(job, 3);

	for (unsigned int i = 0; i < region->count; ++i)
		activate(region->entries[i], trampoline_entry(trampoline, i), first[region->offsets[i]],
			 last[region->offsets[i]]);
}

/* Step publish (I3). */
static void publish(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = batch_job(batch, i, REGION_PATCHES | REGION_TRAMPOLINE | REGION_ENTRIES,
					    REGION_PATCHES | REGION_TRAMPOLINE);
		struct region *region = job->region;
		struct trampoline *trampoline = region_trampoline(region);

		if (job->failed)
			continue;
		open_hooks(region);
		/* A removal puts trap bytes only where they are served already: over a jump, or on an instruction with bytes of one. */
		if (!job->install)
			continue;
		activate_install(job, trampoline);
		if (job->pad_changes)
			registry_activate(region->pad_entry, trampoline_entry(trampoline, 0), ARCH_TRAP_SIGTRAP);
		trampoline->reachable = true;
	}
}

/* A write that failed wholly, in phase 1, left the text as it was: so must the registry be. */
static void withdraw(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct job *job = &batch->jobs[i];

		if (job->failed && job->install && !job->written && !job->region->installed)
			retire_entries(job->region);
	}
}

/* Step settle. */
static void settle_region(struct job *job)
{
	struct region *region = job->region;

	if (region->next != NULL && job->install) {
		struct trampoline *before = region->current;

		region->current = region->next;
		region->next = NULL;
		region_retire(region, before);
	}
	if (is_pad_led(region))
		registry_retire(region->pad_entry);
	if (job->install) {
		retire_bystanders(job);
	} else {
		retire_entries(region);
		region_set_installed(region, false);
	}
	/* One that failed elsewhere keeps its state: whichever of its regions is first. */
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_pending(a->patch))
			a->patch->enabled = patch_is_wanted(a->patch);
}

static void settle(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = batch_job(batch, i, REGION_PATCHES | REGION_ENTRIES, REGION_PATCHES | REGION_ENTRIES);

		batch_record(job);
		if (job->failed)
			reset_hooks(job->region);
		else
			settle_region(job);
	}
}

/* ---- the batch -------------------------------------------------------------------------------------------------- */

static void write_phase(struct batch *batch, int phase)
{
	batch_write(batch, phase);
	unseen |= batch->write_count > 0;
}

static int sync_written(void)
{
	int error = unseen ? core_sync() : 0;

	unseen &= error != 0;
	return error;
}

/*
 * Interrupted: what is in the text stays and works; the next commit goes on from there. Patches are in the state that their hooks
 * are in: those of removals are closed.
 */
static patch_status interrupted(struct batch *batch, int error)
{
	cut_short = true;
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		batch_record(job);
		region_queue(job->region);
		if (job->failed)
			reset_hooks(job->region);
		else if (!job->install || job->region->installed)
			for (struct attachment *a = job->region->attachments; a != NULL; a = a->next)
				a->patch->enabled = patch_is_wanted(a->patch);
	}
	return error_raise_sys(PATCH_ESYS, ORIGIN, "core synchronisation failed; the next commit completes the batch",
			       error);
}

/* Will an entry be retired, or a punned jump be written? Not before all cores have seen what was written (I5, I11). */
static bool is_sync_3_needed(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct job *job = batch_job(batch, i, REGION_ENTRIES, REGION_ENTRIES);

		if (batch_takes_part(job, 4) || retires(job))
			return true;
	}
	return false;
}

static bool any_changes(struct batch *batch)
{
	if (cut_short)
		return true;
	for (size_t i = 0; i < batch->count; ++i)
		if ((batch->jobs[i].changes || batch->jobs[i].pad_changes) && !batch->jobs[i].failed)
			return true;
	return unseen && is_sync_3_needed(batch);
}

/* ---- punned jumps ----------------------------------------------------------------------------------------------- */

/*
 * Steps phase 0 and sync 0. Without the sync a core could execute a punned jump, fetched before phase 0, with bytes that
 * phase 1 has changed.
 */
static int cut_punned(struct batch *batch)
{
	bool any = false;
	int error;

	for (size_t i = 0; i < batch->count && !any; ++i)
		any = batch_takes_part(&batch->jobs[i], 0);
	if (!any)
		return 0;
	write_phase(batch, 0);
	(void)INJECT(INJECT_COMMIT_PHASE_0);
	error = sync_written();
	for (size_t i = 0; error == 0 && i < batch->count; ++i)
		if (batch_takes_part(&batch->jobs[i], 0))
			region_clear_punned(batch->jobs[i].region);
	return error;
}

/* A jump that could not be cut reads the bytes behind it still: they must stay (I11). */
static void spare_what_is_read(struct batch *batch)
{
	for (size_t i = 0; registry_any_punned() && i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		uint64_t before = job->changes && !job->failed ? registry_may_have_before(job->start) : 0;

		for (uintptr_t back = 1; !job->failed && back < ARCH_JMP_SIZE; ++back) {
			const struct registry_entry *entry =
				before & 1ULL << (63 - back) ? registry_find(job->start - back) : NULL;

			if (entry != NULL && entry->punned)
				batch_fail(job, PATCH_ECONF, "a jump in front of it, which reads its bytes, could not be removed");
		}
	}
}

/* Step phase 4. */
static void write_punned(struct batch *batch)
{
	bool any = false;

	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		const struct region *region = job->region;
		uint8_t text[ARCH_JMP_SIZE];
		int error;

		if (!batch_takes_part(job, 4))
			continue;
		/* I8, for bytes that are not ours to change. */
		if (text_read(region->start, text, sizeof(text), &error) != sizeof(text) ||
		    memcmp(text + region->length, region->original + region->length, sizeof(text) - region->length) != 0) {
			batch_fail(job, PATCH_ECHANGED, "the bytes behind it, which its jump would consist of, were changed");
			continue;
		}
		registry_set_punned(region->entries[0], true);
		any = true;
	}
	if (!any)
		return;
	write_phase(batch, 4);
	(void)INJECT(INJECT_COMMIT_PHASE_4);
}

/* ---- the text --------------------------------------------------------------------------------------------------- */

static patch_status change_text(struct batch *batch)
{
	int error;

	error = cut_punned(batch);
	if (error != 0)
		return interrupted(batch, error);
	spare_what_is_read(batch);
	write_phase(batch, 1);
	withdraw(batch);
	(void)INJECT(INJECT_COMMIT_PHASE_1);
	/*
	 * Sync 1 (I2). Without it a core could still execute an original instruction fetched before phase 1 while phase 2
	 * rewrites its bytes.
	 */
	error = sync_written();
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_1);

	write_phase(batch, 2);
	(void)INJECT(INJECT_COMMIT_PHASE_2);
	/* Sync 2 (I4). Without it a core that sees the first byte could see displacement bytes from before. */
	error = sync_written();
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_2);

	write_phase(batch, 3);
	(void)INJECT(INJECT_COMMIT_PHASE_3);
	/*
	 * Sync 3 (I5). Without it a core could raise a trap that we wrote after its entry was retired; or execute a punned jump
	 * with bytes that were there before (I11).
	 */
	error = is_sync_3_needed(batch) ? sync_written() : 0;
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_3);
	write_punned(batch);
	cut_short = false;
	return PATCH_OK;
}

/*
 * Instead of the phases. Threads see each write whole: what they execute at the first byte or at a boundary is either what was
 * there or what is there now (I1, I2). Original bytes are right wherever a thread is; other bytes only where it is not: of an
 * install, only the first instruction changes.
 */
static patch_status change_text_whole(struct batch *batch)
{
	int error;

	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		if (job->install && job->changes && !job->failed &&
		    (job->pad_changes || !phase_is_one_instruction(job->region, job->install, batch_text(job, 0))))
			batch_fail(job, PATCH_ECONF, "more than one instruction would change");
	}
	text_begin_whole();
	write_phase(batch, PHASE_WHOLE);
	text_end_whole();
	error = sync_written();
	if (error != 0)
		return interrupted(batch, error);
	cut_short = false;
	return PATCH_OK;
}

/* Nothing has been done to the text. */
static patch_status unwritten(struct batch *batch, int error)
{
	for (size_t i = 0; i < batch->count; ++i)
		region_queue(batch->jobs[i].region);
	return error_raise_sys(error == ENOMEM ? PATCH_ENOMEM : PATCH_ESYS, ORIGIN, "generated code could not be written", error);
}

static patch_status run(struct batch *batch, bool whole)
{
	patch_status status = PATCH_OK;
	int error;

	batch_check(batch);
	unseen |= batch->restored;
	(void)INJECT(INJECT_COMMIT_CHECKED);
	/* All of it, also that of batches to come. */
	error = text_flush();
	if (error != 0)
		return unwritten(batch, error);
	batch_write_pads(batch);
	publish(batch);
	(void)INJECT(INJECT_COMMIT_PUBLISHED);
	if (any_changes(batch))
		status = whole ? change_text_whole(batch) : change_text(batch);
	if (status == PATCH_OK)
		settle(batch);
	return status;
}

/* ---- all batches ------------------------------------------------------------------------------------------------ */

/* Those that share a page went with the first one; they stay allocated until unmapped_collect(). */
static void end_gone(const struct worklist *agenda)
{
	for (size_t i = 0; i < agenda->next; ++i) {
		const struct region *region = agenda->items[i].region;

		if (agenda->items[i].gone && !region->gone)
			unmapped_end(ALIGN_DOWN(region->start, PAGE_SIZE), region->start + region->length);
	}
}

static patch_status run_all(struct worklist *agenda, struct batch *batch, bool whole)
{
	patch_status status = PATCH_OK;

	text_begin();
	while (status == PATCH_OK && worklist_next(agenda)) {
		batch_load(batch, agenda);
		status = run(batch, whole);
		batch_report(batch, agenda);
	}
	text_end();
	worklist_put_back(agenda);
	end_gone(agenda);
	return status == PATCH_OK && agenda->broken ? PATCH_EFAIL : status;
}

static patch_status commit_queued(bool whole)
{
	struct worklist agenda;
	struct batch batch;
	patch_status status;

	if (worklist_begin(&agenda) && batch_begin(&batch, &agenda)) {
		status = run_all(&agenda, &batch, whole);
		batch_end(&batch);
	} else {
		worklist_put_back(&agenda);
		status = error_raise(PATCH_ENOMEM, ORIGIN, "out of memory", NULL);
	}
	worklist_end(&agenda);
	return status;
}

static patch_status commit(bool whole)
{
	patch_status status;

	++commits;
	status = region_queued() > 0 ? commit_queued(whole) : PATCH_OK;
	registry_poll();
	return status;
}

bool commit_needs_sigill(void)
{
	for (size_t i = 0; trampoline_any_sigill() && i < region_queued(); ++i) {
		const struct region *region = region_queued_at(i);

		if (region_wanted(region) && region_needs_sigill(region, region_trampoline(region)))
			return true;
	}
	return false;
}

bool commit_changes_text(void)
{
	for (size_t i = 0; i < region_queued(); ++i) {
		const struct region *region = region_queued_at(i);

		if (phase_changes_text(region, region_wanted(region)))
			return true;
	}
	return false;
}

patch_status commit_run(void)
{
	return commit(false);
}

patch_status commit_run_whole(void)
{
	return commit(true);
}
