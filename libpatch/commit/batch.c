/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The regions of one batch: what is to become of each, what is in the text, and the writes of each phase. The order of
 * the steps is commit.c's; this file must not decide on it, and it writes text through text_apply() only.
 */
#include "commit/batch.h"

#include "base/error.h"
#include "base/heap.h"
#include "base/scratch.h"
#include "base/thread_safety.h"
#include "commit/phase.h"
#include "sys/mem_read.h"

#include <errno.h>
#include <string.h>

#define ORIGIN "patch_commit"
#define CHANGED                                                                                                        \
	"the bytes are not the ones that were there: a debugger, a probe of the kernel, or the program changed them"

#define TEXTS 4
/* A region has at most one write of its text in a phase, and one of its pad. */
#define WRITES 2
/* The text that is read at once: a page, and what a region on it has on the next one. */
#define VIEW_SIZE (2 * PAGE_SIZE)

bool batch_begin(struct batch *batch, const struct worklist *worklist)
{
	*batch = (struct batch){ .largest = worklist->largest, .longest = worklist->longest };
	batch->changes = heap_alloc(batch->largest * sizeof(*batch->changes));
	batch->texts = heap_alloc(TEXTS * batch->longest);
	batch->writes = heap_alloc(WRITES * batch->largest * sizeof(*batch->writes));
	batch->view = scratch_take(VIEW_SIZE);
	if (batch->changes != NULL && batch->texts != NULL && batch->writes != NULL && batch->view != NULL)
		return true;
	batch_end(batch);
	return false;
}

void batch_load(struct batch *batch, const struct worklist *worklist)
{
	batch->count = worklist->next - worklist->first;
	batch->restored = false;
	for (size_t i = 0; i < batch->count; ++i)
		batch->changes[i] = (struct region_change){ .region = worklist->items[worklist->first + i].region };
}

void batch_report(const struct batch *batch, struct worklist *worklist)
{
	for (size_t i = 0; i < batch->count; ++i) {
		const struct region_change *change = &batch->changes[i];

		worklist->items[worklist->first + i].gone = change->gone;
		worklist->items[worklist->first + i].written_over = change->written_over;
		worklist->broken |= change->failed && (change->install || !change->gone);
	}
}

/*
 * Parts of a region that a pass needs, of regions that are installed and of regions that are restored: enum
 * region_part.
 */
static const struct {
	uint8_t to_install;
	uint8_t to_remove;
} batch_parts[] = {
	/* Which of both it will be is not known yet. */
	[PREFETCH_CHECK] = { REGION_PATCHES | REGION_TRAMPOLINE, REGION_PATCHES | REGION_TRAMPOLINE },
	[PREFETCH_PADS] = { REGION_TRAMPOLINE, 0 },
	[PREFETCH_PUBLISH] = { REGION_PATCHES | REGION_TRAMPOLINE | REGION_ENTRIES,
			       REGION_PATCHES | REGION_TRAMPOLINE },
	[PREFETCH_ENTRIES] = { REGION_ENTRIES, REGION_ENTRIES },
	[PREFETCH_SETTLE] = { REGION_PATCHES | REGION_ENTRIES, REGION_PATCHES | REGION_ENTRIES },
};

/* First the region, far ahead; then what the region leads to. */
void batch_fetch(const struct batch *batch, size_t index, enum batch_prefetch prefetch)
{
	if (index + 2 * PREFETCH_AHEAD < batch->count)
		region_fetch(batch->changes[index + 2 * PREFETCH_AHEAD].region);
	if (index + PREFETCH_AHEAD < batch->count) {
		const struct region_change *change = &batch->changes[index + PREFETCH_AHEAD];

		region_fetch_further(change->region, change->install ? batch_parts[prefetch].to_install :
								       batch_parts[prefetch].to_remove);
	}
}

void batch_end(struct batch *batch)
{
	scratch_give(batch->view, VIEW_SIZE);
	heap_free(batch->changes, batch->largest * sizeof(*batch->changes));
	heap_free(batch->texts, TEXTS * batch->longest);
	heap_free(batch->writes, WRITES * batch->largest * sizeof(*batch->writes));
}

void batch_fail(struct region_change *change, patch_status status, const char *message)
{
	change->failed = true;
	error_raise_at(status, ORIGIN, message, change->start);
	region_queue(change->region);
}

/* ---- what is to be written -------------------------------------------------------------------------------------- */

/* A pad that threads may be led to changes by the phases; a new one is written whole (batch_write_pads()). */
static void batch_describe_pad(struct region_change *change)
{
	const struct region *region = change->region;
	uint8_t bytes[ARCH_JMP_SIZE];

	if (!change->install || region->strategy == PATCH_STRATEGY_TRAP || region->pad == 0)
		return;
	change->new_pad = !region->pad_reachable;
	if (change->new_pad)
		return;
	trampoline_pad_bytes(region_trampoline(region), region->pad, bytes);
	change->pad_changes = memcmp(bytes, region->pad_live, sizeof(bytes)) != 0;
}

static bool batch_has_punned(const struct region *region) REQUIRES(library_lock)
{
	for (unsigned int i = 0; registry_any_punned() && i < region->count; ++i)
		if (region->entries[i]->punned)
			return true;
	return false;
}

REQUIRES(library_lock)
static void batch_describe(struct region_change *change, uint8_t *texts)
{
	struct region *region = change->region;

	change->start = region->start;
	change->texts = texts;
	change->length = region->length;
	change->no_rmw = region->no_rmw;
	change->install = region_wanted(region);
	change->punned = change->install && region->strategy == PATCH_STRATEGY_PUNNED_JUMP;
	memcpy(texts, region->live, region->length);
	change->text_changes = phase_texts(region, change->install, texts);
	change->had_punned = batch_has_punned(region);
	batch_describe_pad(change);
}

/* The module was unmapped, and what the library wrote in it is gone. For a removal that is success. */
static void batch_lose(struct region_change *change)
{
	change->failed = true;
	change->gone = true;
	if (change->install)
		error_raise_at(PATCH_EFAULT, ORIGIN, "the code was unmapped", change->start);
}

/* Nothing of it is wanted any more, and nobody has a handle to want it by. */
static bool batch_is_released(const struct region *region) REQUIRES(library_lock)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_released(a->patch))
			return false;
	return true;
}

/*
 * Has other code come to where the region was, and is none of the library's bytes where its instructions began? Then no
 * thread gets from here to generated code.
 */
static bool batch_is_written_over(const struct region *region, const uint8_t *text) REQUIRES(library_lock)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		unsigned int at = region->offsets[i];

		if (text[at] == region->live[at] && text[at] != region->original[at])
			return false;
	}
	return region_has_other_code(region, text);
}

/*
 * I8. Each byte must be what the library wrote, or the original one. An original byte may have come back in two ways: a
 * region that was restored was taken in since, or a debugger or the kernel put it back, which both do byte by byte,
 * whatever is beside it. A mixture of both kinds has nothing in it that is another's, so that nothing is lost by
 * writing over it.
 */
static void batch_compare(struct batch *batch, struct region_change *change, const uint8_t *text)
	REQUIRES(library_lock)
{
	const struct region *region = change->region;

	if (memcmp(text, change->texts, change->length) == 0)
		return;
	for (unsigned int at = 0; at < change->length; ++at) {
		if (text[at] == change->texts[at] || text[at] == region->original[at])
			continue;
		change->written_over = !change->install && batch_is_released(region) &&
				       batch_is_written_over(region, text);
		if (change->written_over)
			batch_lose(change);
		else
			batch_fail(change, PATCH_ECHANGED, CHANGED);
		return;
	}
	memcpy(change->texts, text, change->length);
	change->text_changes = phase_texts(region, change->install, change->texts);
	batch->restored = true;
}

/* The part of the text that is in batch->view: one read serves all regions in it. */
struct view {
	uintptr_t start;
	size_t size;
	int error;
};

static void batch_check_region(struct batch *batch, struct region_change *change, struct view *view)
	REQUIRES(library_lock)
{
	if (!change->text_changes && !change->region->installed)
		return;
	if (change->start < view->start || change->start + change->length > view->start + view->size) {
		view->start = ALIGN_DOWN(change->start, PAGE_SIZE);
		view->size = mem_read(view->start, batch->view, VIEW_SIZE, &view->error);
	}
	if (change->start + change->length <= view->start + view->size)
		batch_compare(batch, change, batch->view + (change->start - view->start));
	else if (view->error == EFAULT)
		batch_lose(change);
	else
		batch_fail(change, PATCH_ESYS,
			   "the text is mapped, but cannot be read: the kernel refuses process_vm_readv(), or its "
			   "pages are not readable, and reading /proc/self/mem");
}

void batch_check(struct batch *batch)
{
	uint8_t *texts = batch->texts;
	struct view view = { 0 };
	struct region_change *change;

	for_each_change(batch, change, PREFETCH_CHECK) {
		batch_describe(change, texts);
		batch_check_region(batch, change, &view);
		texts += (size_t)TEXTS * change->length;
	}
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

bool batch_takes_part(const struct region_change *change, int phase)
{
	if (change->failed)
		return false;
	if (phase == 0)
		return change->had_punned && (change->text_changes || !change->install);
	return change->text_changes && (phase != 4 || change->punned);
}

/*
 * The text after the phase. Phases 0 and 4 are rare: their text is computed at their turn, and takes the place of phase
 * 1's.
 */
static const uint8_t *batch_text_after(const struct region_change *change, int phase) REQUIRES(library_lock)
{
	uint8_t *rare = change->texts + change->length;

	if (phase >= 1 && phase <= 3)
		return change->texts + (size_t)phase * change->length;
	if (phase == 0)
		phase_0_bytes(change->region, change->texts, rare);
	else
		phase_final_bytes(change->region, change->install, rare);
	return rare;
}

/*
 * One write from the first byte that changes to the last one. Bytes between them that do not change are written as they
 * are: no thread can tell.
 */
static void batch_add_write(struct batch *batch, struct region_change *change, const uint8_t *wanted)
{
	unsigned int start = 0, end = change->length;

	while (start < end && wanted[start] == change->texts[start])
		++start;
	if (start == end)
		return;
	while (wanted[end - 1] == change->texts[end - 1])
		--end;
	batch->writes[batch->write_count++] = (struct text_write){
		.address = change->start + start,
		.bytes = wanted + start,
		.length = end - start,
		.no_rmw = change->no_rmw,
		.expected = change->texts + start,
		.cookie = change,
	};
}

/* Write `length` bytes, from `at` on, of the jump that the pad is to hold. */
static void batch_add_pad_write(struct batch *batch, struct region_change *change, unsigned int at, unsigned int length)
{
	const struct region *region = change->region;

	trampoline_pad_bytes(region_trampoline(region), region->pad, change->pad_bytes);
	batch->writes[batch->write_count++] = (struct text_write){
		.address = region->pad + at,
		.bytes = change->pad_bytes + at,
		.length = length,
		.cookie = change,
	};
}

/*
 * A pad is one instruction of five bytes: phase 1 writes the trap byte, phase 2 the other four, phase 3 the first byte.
 */
static void batch_add_pad_phase(struct batch *batch, struct region_change *change, int phase)
{
	if (phase == 2)
		batch_add_pad_write(batch, change, 1, ARCH_JMP_SIZE - 1);
	else
		batch_add_pad_write(batch, change, 0, 1);
	if (phase == 1)
		change->pad_bytes[0] = ARCH_INT3;
}

/*
 * A write failed, perhaps half-way. What is in the text now works by trap, and the next commit starts from it: read it
 * back.
 */
static void batch_refresh(struct region_change *change)
{
	uint8_t text[WINDOW_LENGTH_MAX];
	int error;

	if (mem_read(change->start, text, change->length, &error) == change->length)
		memcpy(change->texts, text, change->length);
	change->written |= memcmp(change->texts, change->region->original, change->length) != 0;
}

static void batch_remember(struct region_change *change, const struct text_write *write)
{
	struct region *region = change->region;

	if (write->bytes >= change->pad_bytes && write->bytes < change->pad_bytes + ARCH_JMP_SIZE) {
		memcpy(region->pad_live + (write->address - region->pad), write->bytes, write->length);
		return;
	}
	memcpy(change->texts + (write->expected - change->texts), write->bytes, write->length);
	change->written = true;
}

REQUIRES(library_lock)
static void batch_fail_write(struct region_change *change, int error, bool *told)
{
	batch_fail(change, PATCH_ESYS, "the kernel refused to write the bytes");
	if (!*told)
		error_raise_sys(PATCH_ESYS, ORIGIN, "text could not be written", error);
	*told = true;
}

void batch_write_pads(struct batch *batch)
{
	struct region_change *change;
	bool told = false;

	batch->write_count = 0;
	for_each_change(batch, change, PREFETCH_PADS) {
		if (change->new_pad && !change->failed)
			batch_add_pad_write(batch, change, 0, ARCH_JMP_SIZE);
	}
	text_apply(batch->writes, batch->write_count);
	for (size_t i = 0; i < batch->write_count; ++i) {
		const struct text_write *write = &batch->writes[i];

		change = write->cookie;
		if (write->error != 0) {
			batch_fail_write(change, write->error, &told);
			continue;
		}
		memcpy(change->region->pad_live, change->pad_bytes, ARCH_JMP_SIZE);
		change->region->pad_reachable = true;
	}
}

void batch_write(struct batch *batch, int phase)
{
	struct region_change *change;
	bool told = false;

	batch->write_count = 0;
	for_each_change(batch, change, PREFETCH_NOTHING) {
		if (change->pad_changes && !change->failed && phase >= 1 && phase <= 3)
			batch_add_pad_phase(batch, change, phase);
		if (batch_takes_part(change, phase))
			batch_add_write(batch, change, batch_text_after(change, phase));
	}
	text_apply(batch->writes, batch->write_count);
	for (size_t i = 0; i < batch->write_count; ++i) {
		const struct text_write *write = &batch->writes[i];

		change = write->cookie;
		if (write->error == 0) {
			batch_remember(change, write);
		} else if (write->error == ESTALE) {
			/*
			 * What is foreign must not be taken for expected: not batch_refresh(). What was written works
			 * by trap.
			 */
			if (!change->failed)
				batch_fail(change, PATCH_ECHANGED, CHANGED);
		} else if (!change->failed) {
			batch_refresh(change);
			batch_fail_write(change, write->error, &told);
		}
	}
	if (phase != 0)
		return;
	/* What the other phases write depends on what is there. */
	for_each_change(batch, change, PREFETCH_NOTHING)
		if (batch_takes_part(change, 0))
			phase_texts(change->region, change->install, change->texts);
}

void batch_record(const struct region_change *change)
{
	memcpy(change->region->live, change->texts, change->length);
	if (change->written)
		region_set_installed(change->region, true);
}
