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
 *   sync 3    no trap byte of ours is executed where the original is back
 *   phase 4   the first byte of punned jumps: what they read is the original by now (I11)
 *   sync 4    like sync 3
 *   settle    entries of removals retired (I5), trampolines out of use retired (I7)
 *
 * After any step the text is in a resting state: each site works, by trap or by jump, because region->live says what is
 * there and the entries are active. A batch that is cut short is finished or undone by the next one. Phases 0 and 4, and
 * their syncs, are left out where there are no such jumps: they are rare.
 */
#include "commit.h"

#include "arch/arch.h"
#include "error.h"
#include "gone.h"
#include "heap.h"
#include "inject.h"
#include "phase.h"
#include "quiesce.h"
#include "region.h"
#include "registry.h"
#include "sync.h"
#include "text.h"

#include <string.h>

#define ORIGIN "patch_commit"
#define CHANGED                                                                                                        \
	"the bytes are not the ones that were there: a debugger, a probe of the kernel, or the program changed them"

struct job {
	struct region *region;
	bool install; /* else remove */
	bool changes;     /* bytes of text change */
	bool pad_changes; /* the pad is led to another trampoline */
	bool failed;
	bool gone; /* its page is not mapped any more */
	uint8_t *bytes; /* what to write in this phase: room for the whole region */
	uint8_t pad_bytes[ARCH_JMP_SIZE];
};

struct batch {
	struct job *jobs;
	size_t count;
	uint8_t *bytes;
	size_t byte_count;
	struct text_write *writes;
	size_t write_count;
	bool broken;   /* some job failed */
	bool restored; /* somebody else put original bytes back */
};

static uint64_t commits;
/* A batch was cut short: cores may not have seen all of the text yet. */
static bool unsynchronised;
/* Entries whose `punned` is set. */
static size_t punned;

uint64_t commit_count(void)
{
	return commits;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* The pad's bytes are to change while threads may be led to it. */
static bool pad_changes(const struct job *job)
{
	const struct region *region = job->region;
	uint8_t bytes[ARCH_JMP_SIZE];

	if (!job->install || region->strategy == PATCH_STRATEGY_TRAP || region->pad == 0 || !region->pad_reachable)
		return false;
	trampoline_pad_bytes(region_trampoline(region), region->pad, bytes);
	return memcmp(bytes, region->pad_live, sizeof(bytes)) != 0;
}

/* The patches of a region whose change failed keep the state they have; the next commit tries again. */
static void fail(struct batch *batch, struct job *job, patch_status status, const char *message)
{
	job->failed = true;
	batch->broken = true;
	error_raise_at(status, ORIGIN, message, job->region->start);
	region_queue(job->region);
}

static bool is_active(struct registry_entry *entry)
{
	return REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_ACTIVE;
}

/* Are traps of this class at it led to code that stands for the instruction? */
static bool is_served(struct registry_entry *entry, enum arch_trap_class class)
{
	return is_active(entry) && (REGISTRY_CLASSES(atomic_load(&entry->state)) & 1U << class) != 0;
}

/* Nothing of the region is in the text any more (I5). Entries that were never active stay so. */
static void retire_entries(const struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i)
		if (is_active(region->entries[i]))
			registry_retire(region->entries[i]);
}

/* Instructions on which a trap byte was needed for the transition only: not those that a jump begins with. */
static void retire_bystanders(const struct region *region)
{
	for (unsigned int i = region->strategy == PATCH_STRATEGY_TRAP ? 0 : 1; i < region->count; ++i) {
		uint8_t byte = region->live[region->offsets[i]];

		if (is_active(region->entries[i]) && byte == region->original[region->offsets[i]] &&
		    arch_trap_class(byte) == ARCH_TRAP_NONE)
			registry_retire(region->entries[i]);
	}
}

static void set_punned(struct registry_entry *entry, bool now)
{
	if (entry->punned != now)
		punned += now ? 1 : (size_t)-1;
	entry->punned = now;
}

void commit_clear_punned(const struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i)
		set_punned(region->entries[i], false);
}

static bool has_punned(const struct region *region)
{
	for (unsigned int i = 0; punned > 0 && i < region->count; ++i)
		if (region->entries[i]->punned)
			return true;
	return false;
}

/* The module was unmapped, and everything of ours in it with it. */
static void lose(struct batch *batch, struct job *job)
{
	job->failed = true;
	job->gone = true;
	if (job->install) {
		batch->broken = true;
		error_raise_at(PATCH_EFAULT, ORIGIN, "the code was unmapped", job->region->start);
	}
}

/*
 * I8. Bytes that are the original ones again, by whomever, are as good as expected, each for itself: regions that were
 * restored may have been taken in since, and debuggers and the kernel put back single bytes, whatever has become of those
 * beside them. Nothing of anybody else's is lost with such a mixture.
 */
static void compare(struct batch *batch, struct job *job, const uint8_t *text)
{
	struct region *region = job->region;

	if (memcmp(text, region->live, region->length) == 0)
		return;
	for (unsigned int at = 0; at < region->length; ++at) {
		if (text[at] != region->live[at] && text[at] != region->original[at]) {
			fail(batch, job, PATCH_ECHANGED, CHANGED);
			return;
		}
	}
	memcpy(region->live, text, region->length);
	job->changes = phase_changes_text(job->region, job->install);
	batch->restored = true;
}

/* Step check (I8). Pages are read once for all regions on them. */
static void check(struct batch *batch)
{
	static uint8_t view[2 * PAGE_SIZE];
	uintptr_t view_start = 0;
	size_t view_size = 0;
	int error = 0;

	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		struct region *region = job->region;

		if (!job->changes && !region->installed)
			continue;
		if (region->start < view_start || region->start + region->length > view_start + view_size) {
			view_start = ALIGN_DOWN(region->start, PAGE_SIZE);
			view_size = text_read(view_start, view, sizeof(view), &error);
		}
		if (region->start + region->length <= view_start + view_size)
			compare(batch, job, view + (region->start - view_start));
		else if (error == EFAULT)
			lose(batch, job);
		else
			fail(batch, job, PATCH_ESYS,
			     "the text cannot be read: the kernel refuses process_vm_readv() and reading /proc/self/mem");
	}
}

static bool is_due(const struct patch *patch)
{
	return patch->wanted && !patch->released;
}

static void open_hooks(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		quiesce_set_open(a->patch, is_due(a->patch));
}

/* What failed stays as it was. */
static void reset_hooks(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		quiesce_set_open(a->patch, a->patch->enabled);
}

/* `first` and `final`: the bytes there after phase 1 and in the end. */
static void activate(struct registry_entry *entry, uintptr_t target, uint8_t first, uint8_t final)
{
	enum arch_trap_class class = arch_trap_class(final);

	if (class != ARCH_TRAP_NONE)
		registry_activate(entry, target, class);
	if (arch_trap_class(first) != ARCH_TRAP_NONE && arch_trap_class(first) != class)
		registry_activate(entry, target, arch_trap_class(first));
}

static void activate_install(const struct region *region, const struct trampoline *trampoline)
{
	uint8_t first[PLAN_LENGTH_MAX], final[PLAN_LENGTH_MAX];

	phase_bytes(region, true, 1, first);
	phase_final_bytes(region, true, final);
	for (unsigned int i = 0; i < region->count; ++i)
		activate(region->entries[i], trampoline_entry(trampoline, i), first[region->offsets[i]],
			 final[region->offsets[i]]);
}

/*
 * A removal, where a trap byte goes over what others left there: the entry may have been for the other class of traps, or
 * for none. False: none such, as a rule.
 */
static bool activate_removal(const struct region *region, const struct trampoline *trampoline)
{
	uint8_t first[PLAN_LENGTH_MAX];
	bool any = false;

	phase_bytes(region, false, 1, first);
	for (unsigned int i = 0; i < region->count; ++i) {
		unsigned int at = region->offsets[i];

		/* Over a jump the trap of its install, for this class, is still known. */
		if (first[at] == region->live[at] || is_served(region->entries[i], ARCH_TRAP_SIGTRAP))
			continue;
		registry_activate(region->entries[i], trampoline_entry(trampoline, i), ARCH_TRAP_SIGTRAP);
		any = true;
	}
	return any;
}

/* Step publish (I3). */
static void publish(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		struct region *region = job->region;
		struct trampoline *trampoline = region_trampoline(region);

		if (job->failed)
			continue;
		open_hooks(region);
		if (!job->install) {
			if (job->changes && activate_removal(region, trampoline))
				trampoline->reachable = true;
			continue;
		}
		activate_install(region, trampoline);
		if (job->pad_changes)
			registry_activate(region->pad_entry, trampoline_entry(trampoline, 0), ARCH_TRAP_SIGTRAP);
		trampoline->reachable = true;
	}
}

static void add_writes(struct batch *batch, struct job *job)
{
	const struct region *region = job->region;

	for (unsigned int at = 0; at < region->length;) {
		unsigned int end = at;

		while (end < region->length && job->bytes[end] != region->live[end])
			++end;
		if (end == at) {
			++at;
			continue;
		}
		batch->writes[batch->write_count++] = (struct text_write){
			.address = region->start + at,
			.bytes = job->bytes + at,
			.length = end - at,
			.exact = region->exact,
			.expected = region->live + at,
			.owner = job,
		};
		at = end;
	}
}

/* A pad is one instruction: trap byte, the rest, first byte. */
static void add_pad_writes(struct batch *batch, struct job *job, int phase)
{
	const struct region *region = job->region;
	unsigned int at = phase == 2 ? 1 : 0;

	trampoline_pad_bytes(region_trampoline(region), region->pad, job->pad_bytes);
	if (phase == 1)
		job->pad_bytes[0] = ARCH_INT3;
	batch->writes[batch->write_count++] = (struct text_write){
		.address = region->pad + at,
		.bytes = job->pad_bytes + at,
		.length = phase == 2 ? ARCH_JMP_SIZE - 1 : 1,
		.owner = job,
	};
}

static bool is_in_pad(const struct region *region, uintptr_t address)
{
	return region->pad != 0 && address - region->pad < ARCH_JMP_SIZE;
}

/* A write failed, perhaps half-way: what there is now works by trap, and is what the next commit starts from. */
static void refresh(struct region *region)
{
	uint8_t text[PLAN_LENGTH_MAX];
	int error;

	if (text_read(region->start, text, region->length, &error) == region->length)
		memcpy(region->live, text, region->length);
	if (memcmp(region->live, region->original, region->length) != 0)
		region_set_installed(region, true);
}

/* Is there anything to write for it in this phase? */
static bool takes_part(const struct job *job, int phase)
{
	if (job->failed)
		return false;
	if (phase == PHASE_WHOLE)
		return job->changes;
	if (phase == 0)
		return (job->changes || !job->install) && has_punned(job->region);
	return job->changes && (phase < 4 || (job->install && job->region->strategy == PATCH_STRATEGY_PUNNED_JUMP));
}

/* Steps phase 0 to 4: write what the phase changes, and remember what was written. */
static void write_phase(struct batch *batch, int phase)
{
	bool told = false;

	batch->write_count = 0;
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		if (job->pad_changes && !job->failed && phase >= 1 && phase <= 3)
			add_pad_writes(batch, job, phase);
		if (takes_part(job, phase)) {
			phase_bytes(job->region, job->install, phase, job->bytes);
			add_writes(batch, job);
		}
	}
	text_apply(batch->writes, batch->write_count);
	for (size_t i = 0; i < batch->write_count; ++i) {
		const struct text_write *write = &batch->writes[i];
		struct job *job = write->owner;
		struct region *region = job->region;

		if (write->error == 0 && is_in_pad(region, write->address)) {
			memcpy(region->pad_live + (write->address - region->pad), write->bytes, write->length);
		} else if (write->error == 0) {
			memcpy(region->live + (write->address - region->start), write->bytes, write->length);
			region_set_installed(region, true);
		} else if (write->error == ESTALE) {
			/* What is foreign must not be taken for expected: not refresh(). What was written works by trap. */
			if (!job->failed)
				fail(batch, job, PATCH_ECHANGED, CHANGED);
		} else if (!job->failed) {
			refresh(region);
			fail(batch, job, PATCH_ESYS, "the kernel refused to write the bytes");
			if (!told)
				error_raise_sys(PATCH_ESYS, ORIGIN, "text could not be written", write->error);
			told = true;
		}
	}
}

/* A write that failed wholly, in phase 1, left the text as it was: so must the registry be. */
static void withdraw(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct job *job = &batch->jobs[i];

		if (job->failed && !job->region->installed && job->install)
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
	/* Also when it was an interrupted batch before this one that led the pad elsewhere. */
	if (region->pad_entry != NULL && is_active(region->pad_entry) && region->pad_live[0] != ARCH_INT3)
		registry_retire(region->pad_entry);
	if (job->install) {
		retire_bystanders(region);
	} else {
		retire_entries(region);
		region_set_installed(region, false);
	}
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		a->patch->enabled = is_due(a->patch);
}

static void settle(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		if (batch->jobs[i].failed)
			reset_hooks(batch->jobs[i].region);
		else
			settle_region(&batch->jobs[i]);
	}
}

/* Those that share a page went with the first one; they stay allocated until gone_collect(). */
static void end_gone(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct region *region = batch->jobs[i].region;

		if (batch->jobs[i].gone && !region->gone)
			module_gone(ALIGN_DOWN(region->start, PAGE_SIZE), region->start + region->length);
	}
}

/* ---- the batch -------------------------------------------------------------------------------------------------- */

/* Interrupted: what is in the text stays and works; the next commit goes on from there. */
static patch_status interrupted(struct batch *batch, int error)
{
	unsynchronised = true;
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		region_queue(job->region);
		if (!job->install || job->failed || !job->region->installed)
			continue;
		for (struct attachment *a = job->region->attachments; a != NULL; a = a->next)
			a->patch->enabled = is_due(a->patch);
	}
	return error_raise_sys(PATCH_ESYS, ORIGIN, "core synchronisation failed; the next commit completes the batch",
			       error);
}

static bool any_changes(const struct batch *batch)
{
	if (unsynchronised || batch->restored)
		return true;
	for (size_t i = 0; i < batch->count; ++i)
		if ((batch->jobs[i].changes || batch->jobs[i].pad_changes) && !batch->jobs[i].failed)
			return true;
	return false;
}

/* Pads that no thread was led to yet are written along with the generated code. */
static void stage_pads(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		struct region *region = job->region;

		if (!job->install || job->failed || region->strategy == PATCH_STRATEGY_TRAP || region->pad == 0 ||
		    region->pad_reachable)
			continue;
		trampoline_pad_bytes(region_trampoline(region), region->pad, region->pad_live);
		if (text_stage(region->pad, region->pad_live, ARCH_JMP_SIZE) != NULL)
			region->pad_reachable = true;
		else
			fail(batch, job, PATCH_ENOMEM, "out of memory");
	}
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
		any = takes_part(&batch->jobs[i], 0);
	if (!any)
		return 0;
	write_phase(batch, 0);
	(void)INJECT(INJECT_COMMIT_PHASE_0);
	error = core_sync();
	for (size_t i = 0; error == 0 && i < batch->count; ++i)
		if (takes_part(&batch->jobs[i], 0))
			commit_clear_punned(batch->jobs[i].region);
	return error;
}

/* A jump that could not be cut reads the bytes behind it still: they must stay (I11). */
static void spare_what_is_read(struct batch *batch)
{
	for (size_t i = 0; punned > 0 && i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		for (uintptr_t back = 1; job->changes && !job->failed && back < ARCH_JMP_SIZE; ++back) {
			const struct registry_entry *entry = registry_find(job->region->start - back);

			if (entry != NULL && entry->punned)
				fail(batch, job, PATCH_ECONF, "a jump in front of it, which reads its bytes, could not be removed");
		}
	}
}

/* Steps phase 4 and sync 4. */
static int write_punned(struct batch *batch)
{
	bool any = false;

	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];
		const struct region *region = job->region;
		uint8_t text[ARCH_JMP_SIZE];
		int error;

		if (!takes_part(job, 4))
			continue;
		/* I8, for bytes that are not ours to change. */
		if (text_read(region->start, text, sizeof(text), &error) != sizeof(text) ||
		    memcmp(text + region->length, region->original + region->length, sizeof(text) - region->length) != 0) {
			fail(batch, job, PATCH_ECHANGED, "the bytes behind it, which its jump would consist of, were changed");
			continue;
		}
		set_punned(region->entries[0], true);
		any = true;
	}
	if (!any)
		return 0;
	write_phase(batch, 4);
	(void)INJECT(INJECT_COMMIT_PHASE_4);
	return core_sync();
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
	error = core_sync();
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_1);

	write_phase(batch, 2);
	(void)INJECT(INJECT_COMMIT_PHASE_2);
	/* Sync 2 (I4). Without it a core that sees the first byte could see displacement bytes from before. */
	error = core_sync();
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_2);

	write_phase(batch, 3);
	(void)INJECT(INJECT_COMMIT_PHASE_3);
	/* Sync 3 (I5). Without it a core could raise a trap that we wrote after its entry was retired. */
	error = core_sync();
	if (error != 0)
		return interrupted(batch, error);
	(void)INJECT(INJECT_COMMIT_SYNC_3);
	error = write_punned(batch);
	if (error != 0)
		return interrupted(batch, error);
	unsynchronised = false;
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
		    (job->pad_changes || !phase_is_one_instruction(job->region, job->install)))
			fail(batch, job, PATCH_ECONF, "more than one instruction would change");
	}
	text_begin_whole();
	write_phase(batch, PHASE_WHOLE);
	text_end_whole();
	error = core_sync();
	if (error != 0)
		return interrupted(batch, error);
	unsynchronised = false;
	return PATCH_OK;
}

static patch_status run(struct batch *batch, bool whole)
{
	patch_status status = PATCH_OK;
	int error;

	check(batch);
	(void)INJECT(INJECT_COMMIT_CHECKED);
	stage_pads(batch);
	error = text_flush();
	if (error != 0) {
		for (size_t i = 0; i < batch->count; ++i)
			region_queue(batch->jobs[i].region);
		return error_raise_sys(error == ENOMEM ? PATCH_ENOMEM : PATCH_ESYS, ORIGIN,
				       "generated code could not be written", error);
	}
	publish(batch);
	(void)INJECT(INJECT_COMMIT_PUBLISHED);
	if (any_changes(batch))
		status = whole ? change_text_whole(batch) : change_text(batch);
	if (status != PATCH_OK)
		return status;
	settle(batch);
	registry_poll();
	return batch->broken ? PATCH_EFAIL : PATCH_OK;
}

bool commit_needs_sigill(void)
{
	for (const struct region *region = region_queued(); region != NULL; region = region->queue_next)
		if (region_wanted(region) && region_needs_sigill(region, region_trampoline(region)))
			return true;
	return false;
}

bool commit_changes_text(void)
{
	for (const struct region *region = region_queued(); region != NULL; region = region->queue_next)
		if (phase_changes_text(region, region_wanted(region)))
			return true;
	return false;
}

static size_t describe(struct batch *batch, struct region *queue)
{
	size_t bytes = 0;

	for (struct region *region = queue; region != NULL; region = region->queue_next) {
		struct job *job = &batch->jobs[batch->count++];

		job->region = region;
		job->install = region_wanted(region);
		job->changes = phase_changes_text(job->region, job->install);
		job->pad_changes = pad_changes(job);
		job->bytes = batch->bytes + bytes;
		bytes += region->length;
	}
	return bytes;
}

static patch_status commit(bool whole)
{
	struct region *queue = region_take_queue();
	struct batch batch = { 0 };
	size_t job_size, write_size;
	patch_status status;

	++commits;
	if (queue == NULL)
		return PATCH_OK;
	for (struct region *region = queue; region != NULL; region = region->queue_next) {
		++batch.count;
		/* One write per byte at most, and one of the pad. */
		batch.byte_count += region->length + 1;
	}
	job_size = batch.count * sizeof(*batch.jobs);
	write_size = batch.byte_count * sizeof(*batch.writes);
	batch.jobs = heap_alloc(job_size);
	batch.bytes = heap_alloc(batch.byte_count);
	batch.writes = heap_alloc(write_size);
	if (batch.jobs == NULL || batch.bytes == NULL || batch.writes == NULL) {
		for (struct region *region = queue, *next; region != NULL; region = next) {
			next = region->queue_next;
			region_queue(region);
		}
		status = error_raise(PATCH_ENOMEM, ORIGIN, "out of memory", NULL);
	} else {
		batch.count = 0;
		describe(&batch, queue);
		text_begin();
		status = run(&batch, whole);
		text_end();
		end_gone(&batch);
	}
	heap_free(batch.jobs, job_size);
	heap_free(batch.bytes, batch.byte_count);
	heap_free(batch.writes, write_size);
	return status;
}

patch_status commit_run(void)
{
	return commit(false);
}

patch_status commit_run_whole(void)
{
	return commit(true);
}
