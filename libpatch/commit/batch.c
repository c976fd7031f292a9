/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "commit/batch.h"

#include "arch/arch.h"
#include "base/error.h"
#include "base/heap.h"
#include "commit/phase.h"

#include <string.h>

#define ORIGIN "patch_commit"
#define CHANGED                                                                                                        \
	"the bytes are not the ones that were there: a debugger, a probe of the kernel, or the program changed them"

#define TEXTS 4
/* Of a region, and of its pad. */
#define WRITES 2

bool batch_begin(struct batch *batch, const struct worklist *agenda)
{
	*batch = (struct batch){ .largest = agenda->largest, .longest = agenda->longest };
	batch->jobs = heap_alloc(batch->largest * sizeof(*batch->jobs));
	batch->texts = heap_alloc(TEXTS * batch->longest);
	batch->writes = heap_alloc(WRITES * batch->largest * sizeof(*batch->writes));
	if (batch->jobs != NULL && batch->texts != NULL && batch->writes != NULL)
		return true;
	batch_end(batch);
	return false;
}

void batch_load(struct batch *batch, const struct worklist *agenda)
{
	batch->count = agenda->next - agenda->first;
	batch->restored = false;
	for (size_t i = 0; i < batch->count; ++i)
		batch->jobs[i] = (struct job){ .region = agenda->items[agenda->first + i].region };
}

void batch_report(const struct batch *batch, struct worklist *agenda)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct job *job = &batch->jobs[i];

		agenda->items[agenda->first + i].gone = job->gone;
		agenda->broken |= job->failed && (job->install || !job->gone);
	}
}

/* What follows is on its way when it is needed: the region, then what that leads to. */
struct job *batch_job(struct batch *batch, size_t index, unsigned int to_install, unsigned int to_remove)
{
	if (index + 2 * PREFETCH_AHEAD < batch->count)
		region_fetch(batch->jobs[index + 2 * PREFETCH_AHEAD].region);
	if (index + PREFETCH_AHEAD < batch->count) {
		const struct job *job = &batch->jobs[index + PREFETCH_AHEAD];

		region_fetch_further(job->region, job->install ? to_install : to_remove);
	}
	return &batch->jobs[index];
}

void batch_end(struct batch *batch)
{
	heap_free(batch->jobs, batch->largest * sizeof(*batch->jobs));
	heap_free(batch->texts, TEXTS * batch->longest);
	heap_free(batch->writes, WRITES * batch->largest * sizeof(*batch->writes));
}

void batch_fail(struct job *job, patch_status status, const char *message)
{
	job->failed = true;
	error_raise_at(status, ORIGIN, message, job->start);
	region_queue(job->region);
}

/* ---- what is to be written -------------------------------------------------------------------------------------- */

/* A pad that threads may be led to changes by the phases. */
static void describe_pad(struct job *job)
{
	const struct region *region = job->region;
	uint8_t bytes[ARCH_JMP_SIZE];

	if (!job->install || region->strategy == PATCH_STRATEGY_TRAP || region->pad == 0)
		return;
	job->new_pad = !region->pad_reachable;
	if (job->new_pad)
		return;
	trampoline_pad_bytes(region_trampoline(region), region->pad, bytes);
	job->pad_changes = memcmp(bytes, region->pad_live, sizeof(bytes)) != 0;
}

static bool has_punned(const struct region *region)
{
	for (unsigned int i = 0; registry_any_punned() && i < region->count; ++i)
		if (region->entries[i]->punned)
			return true;
	return false;
}

static void describe(struct job *job, uint8_t *texts)
{
	struct region *region = job->region;

	job->start = region->start;
	job->texts = texts;
	job->length = region->length;
	job->no_rmw = region->no_rmw;
	job->install = region_wanted(region);
	job->punned = job->install && region->strategy == PATCH_STRATEGY_PUNNED_JUMP;
	memcpy(texts, region->live, region->length);
	job->changes = phase_texts(region, job->install, texts);
	job->had_punned = has_punned(region);
	describe_pad(job);
}

/* The module was unmapped, and everything of ours in it with it. */
static void lose(struct job *job)
{
	job->failed = true;
	job->gone = true;
	if (job->install)
		error_raise_at(PATCH_EFAULT, ORIGIN, "the code was unmapped", job->start);
}

/*
 * I8. Bytes that are the original ones again, by whomever, are as good as expected, each for itself: regions that were
 * restored may have been taken in since, and debuggers and the kernel put back single bytes, whatever has become of those
 * beside them. Nothing of anybody else's is lost with such a mixture.
 */
static void compare(struct batch *batch, struct job *job, const uint8_t *text)
{
	const struct region *region = job->region;

	if (memcmp(text, job->texts, job->length) == 0)
		return;
	for (unsigned int at = 0; at < job->length; ++at) {
		if (text[at] != job->texts[at] && text[at] != region->original[at]) {
			batch_fail(job, PATCH_ECHANGED, CHANGED);
			return;
		}
	}
	memcpy(job->texts, text, job->length);
	job->changes = phase_texts(region, job->install, job->texts);
	batch->restored = true;
}

/* Part of the text, read at once for all regions in it. */
struct view {
	uintptr_t start;
	size_t size;
	int error;
};

static void check(struct batch *batch, struct job *job, struct view *view)
{
	static uint8_t bytes[2 * PAGE_SIZE];

	if (!job->changes && !job->region->installed)
		return;
	if (job->start < view->start || job->start + job->length > view->start + view->size) {
		view->start = ALIGN_DOWN(job->start, PAGE_SIZE);
		view->size = text_read(view->start, bytes, sizeof(bytes), &view->error);
	}
	if (job->start + job->length <= view->start + view->size)
		compare(batch, job, bytes + (job->start - view->start));
	else if (view->error == EFAULT)
		lose(job);
	else
		batch_fail(job, PATCH_ESYS,
			   "the text cannot be read: the kernel refuses process_vm_readv() and reading /proc/self/mem");
}

void batch_check(struct batch *batch)
{
	uint8_t *texts = batch->texts;
	struct view view = { 0 };

	for (size_t i = 0; i < batch->count; ++i) {
		/* What is to be done is not known yet. */
		struct job *job = batch_job(batch, i, 0, REGION_PATCHES | REGION_TRAMPOLINE);

		describe(job, texts);
		check(batch, job, &view);
		texts += (size_t)TEXTS * job->length;
	}
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

bool batch_takes_part(const struct job *job, int phase)
{
	if (job->failed)
		return false;
	if (phase == 0)
		return job->had_punned && (job->changes || !job->install);
	return job->changes && (phase != 4 || job->punned);
}

/* The text after the phase. Those that are rare are made when it is their turn, in the place of phase 1. */
static const uint8_t *text_after(const struct job *job, int phase)
{
	uint8_t *rare = job->texts + job->length;

	if (phase >= 1 && phase <= 3)
		return job->texts + (size_t)phase * job->length;
	if (phase == 0)
		phase_0_bytes(job->region, job->texts, rare);
	else
		phase_final_bytes(job->region, job->install, rare);
	return rare;
}

/* From the first byte that changes to the last. Those between are written as they are, which nobody can tell. */
static void add_write(struct batch *batch, struct job *job, const uint8_t *wanted)
{
	unsigned int start = 0, end = job->length;

	while (start < end && wanted[start] == job->texts[start])
		++start;
	if (start == end)
		return;
	while (wanted[end - 1] == job->texts[end - 1])
		--end;
	batch->writes[batch->write_count++] = (struct text_write){
		.address = job->start + start,
		.bytes = wanted + start,
		.length = end - start,
		.no_rmw = job->no_rmw,
		.expected = job->texts + start,
		.owner = job,
	};
}

/* Part of the jump that the pad is to be. */
static void add_pad_write(struct batch *batch, struct job *job, unsigned int at, unsigned int length)
{
	const struct region *region = job->region;

	trampoline_pad_bytes(region_trampoline(region), region->pad, job->pad_bytes);
	batch->writes[batch->write_count++] = (struct text_write){
		.address = region->pad + at,
		.bytes = job->pad_bytes + at,
		.length = length,
		.owner = job,
	};
}

/* A pad is one instruction: trap byte, the rest, first byte. */
static void add_pad_phase(struct batch *batch, struct job *job, int phase)
{
	if (phase == 2)
		add_pad_write(batch, job, 1, ARCH_JMP_SIZE - 1);
	else
		add_pad_write(batch, job, 0, 1);
	if (phase == 1)
		job->pad_bytes[0] = ARCH_INT3;
}

/* A write failed, perhaps half-way: what there is now works by trap, and is what the next commit starts from. */
static void refresh(struct job *job)
{
	uint8_t text[WINDOW_LENGTH_MAX];
	int error;

	if (text_read(job->start, text, job->length, &error) == job->length)
		memcpy(job->texts, text, job->length);
	job->written |= memcmp(job->texts, job->region->original, job->length) != 0;
}

static void remember(struct job *job, const struct text_write *write)
{
	struct region *region = job->region;

	if (write->bytes >= job->pad_bytes && write->bytes < job->pad_bytes + ARCH_JMP_SIZE) {
		memcpy(region->pad_live + (write->address - region->pad), write->bytes, write->length);
		return;
	}
	memcpy(job->texts + (write->expected - job->texts), write->bytes, write->length);
	job->written = true;
}

static void fail_write(struct job *job, int error, bool *told)
{
	batch_fail(job, PATCH_ESYS, "the kernel refused to write the bytes");
	if (!*told)
		error_raise_sys(PATCH_ESYS, ORIGIN, "text could not be written", error);
	*told = true;
}

void batch_write_pads(struct batch *batch)
{
	bool told = false;

	batch->write_count = 0;
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = batch_job(batch, i, REGION_TRAMPOLINE, 0);

		if (job->new_pad && !job->failed)
			add_pad_write(batch, job, 0, ARCH_JMP_SIZE);
	}
	text_apply(batch->writes, batch->write_count);
	for (size_t i = 0; i < batch->write_count; ++i) {
		const struct text_write *write = &batch->writes[i];
		struct job *job = write->owner;

		if (write->error != 0) {
			fail_write(job, write->error, &told);
			continue;
		}
		memcpy(job->region->pad_live, job->pad_bytes, ARCH_JMP_SIZE);
		job->region->pad_reachable = true;
	}
}

void batch_write(struct batch *batch, int phase)
{
	bool told = false;

	batch->write_count = 0;
	for (size_t i = 0; i < batch->count; ++i) {
		struct job *job = &batch->jobs[i];

		if (job->pad_changes && !job->failed && phase >= 1 && phase <= 3)
			add_pad_phase(batch, job, phase);
		if (batch_takes_part(job, phase))
			add_write(batch, job, text_after(job, phase));
	}
	text_apply(batch->writes, batch->write_count);
	for (size_t i = 0; i < batch->write_count; ++i) {
		const struct text_write *write = &batch->writes[i];
		struct job *job = write->owner;

		if (write->error == 0) {
			remember(job, write);
		} else if (write->error == ESTALE) {
			/* What is foreign must not be taken for expected: not refresh(). What was written works by trap. */
			if (!job->failed)
				batch_fail(job, PATCH_ECHANGED, CHANGED);
		} else if (!job->failed) {
			refresh(job);
			fail_write(job, write->error, &told);
		}
	}
	for (size_t i = 0; phase == 0 && i < batch->count; ++i)
		if (batch_takes_part(&batch->jobs[i], 0))
			phase_texts(batch->jobs[i].region, batch->jobs[i].install, batch->jobs[i].texts);
}

void batch_record(const struct job *job)
{
	memcpy(job->region->live, job->texts, job->length);
	if (job->written)
		region_set_installed(job->region, true);
}
