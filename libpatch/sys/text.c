/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing live text: batches of writes, joined to runs and compared before they are written. How one run reaches memory
 * is in text_ways.c.
 */
#include "sys/text.h"

#include "base/inject.h"
#include "base/scratch.h"
#include "base/sort.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "sys/mem_read.h"
#include "sys/tasks.h"
#include "sys/text_ways.h"

#include <stdatomic.h>
#include <string.h>

/* The longest run. Joining writes costs reading and rewriting the bytes between them, and saves system calls. */
#define RUN_MAX SCRATCH_RUN

static enum text_way way;
static _Atomic uint64_t write_count;

enum text_way text_way(void)
{
	return way;
}

void text_set_way(enum text_way chosen)
{
	way = chosen;
}

static enum text_way way_before GUARDED_BY(library_lock);

void text_begin_whole(void)
{
	way_before = way;
	if (!tasks_is_single())
		way = TEXT_PAGE_SWAP;
}

void text_end_whole(void)
{
	way = way_before;
}

uint64_t text_write_count(void)
{
	return atomic_load_explicit(&write_count, memory_order_relaxed);
}

patch_status text_init(bool allow_writable_executable)
{
	static const uint8_t byte = 0xA5;
	uint8_t seen = 0;
	int error;

	text_may_be_writable_executable = allow_writable_executable;
	text_way_refusal =
		"the kernel refuses process_vm_readv() and reading /proc/self/mem, by which text is compared";
	if (mem_read((uintptr_t)&byte, &seen, 1, &error) != 1)
		return PATCH_ENOTSUP;
	text_way_refusal = "the kernel lets text be written neither through /proc/self/mem nor by other means";
	way = text_way_choose(TEXT_PROC_MEM);
	return way == TEXT_NONE ? PATCH_ENOTSUP : PATCH_OK;
}

const char *text_refusal(void)
{
	return text_way_refusal;
}

/*
 * May the run [start, end) take in the next write? An adjacent write always joins; a write behind a gap joins when the
 * gap spans no whole page, and, with `page`, only on the run's last page. A write that forbids to rewrite its
 * neighbours never closes a gap.
 */
static bool text_joins(uintptr_t start, uintptr_t end, bool no_rmw, const struct text_write *next, bool page)
{
	uintptr_t last = ALIGN_DOWN(end - 1, PAGE_SIZE);

	if (next->address + next->length - start > RUN_MAX)
		return false;
	if (next->address == end)
		return true;
	return !no_rmw && !next->no_rmw && ALIGN_DOWN(next->address, PAGE_SIZE) <= last + (page ? 0 : PAGE_SIZE);
}

static struct text_mem mem GUARDED_BY(library_lock) = { .fd = -EBADF };
static bool kept GUARDED_BY(library_lock);

void text_begin(void)
{
	text_mem_close(&mem);
	kept = true;
}

void text_end(void)
{
	kept = false;
	text_mem_close(&mem);
}

/*
 * A way that fails on a page of the library's own, too, has stopped working: a filter came, privileges went,
 * descriptors ran out. Then the next way is tried. A way that fails at `address` only fails for a reason of that
 * mapping, which another way must not get around.
 */
static int text_write_run(enum text_way *by, uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
	REQUIRES(library_lock)
{
	int error = INJECT(INJECT_TEXT_WRITE);

	if (error)
		return error;
	atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
	error = text_way_write(*by, &mem, address, bytes, length, writable);
	while (error != 0 && *by != TEXT_NONE && *by != TEXT_PAGE_SWAP && !text_way_works(*by)) {
		enum text_way next = text_way_choose(*by + 1);

		if (next == TEXT_NONE)
			return error;
		*by = next;
		error = text_way_write(next, &mem, address, bytes, length, writable);
	}
	return error;
}

/*
 * Are the bytes in memory? They are not when the descriptor had become a file of the program's, which was written to
 * instead.
 */
static bool text_arrived(uintptr_t address, const uint8_t *bytes, size_t length)
{
	uint8_t seen[256];
	int error;

	for (size_t at = 0; at < length; at += sizeof(seen)) {
		size_t size = MIN(length - at, sizeof(seen));

		/* Where memory cannot be read in any way, the kernel's return value is believed. */
		if (mem_read(address + at, seen, size, &error) != size)
			return error != EFAULT;
		if (memcmp(seen, bytes + at, size) != 0)
			return false;
	}
	return true;
}

/* Do they replace all bytes of the run, whatever these are? */
static bool text_replaces_all(const struct text_write *writes, size_t n, size_t length)
{
	for (size_t i = 0; i < n; ++i) {
		if (writes[i].expected != NULL)
			return false;
		length -= writes[i].length;
	}
	return length == 0;
}

/* Of a run that is replaced, only so much as tells whether it arrives: mostly the first write changes something. */
static bool text_read_run(const struct text_write *writes, size_t n, uint8_t *run, uintptr_t start, size_t length,
			  int *error)
{
	const size_t first = writes[0].length;

	if (text_replaces_all(writes, n, length) && mem_read(start, run, first, error) == first &&
	    memcmp(run, writes[0].bytes, first) != 0)
		return true;
	return mem_read(start, run, length, error) == length;
}

/*
 * Fill `run` with what is in memory, and put the writes into it. A write that finds other bytes than it expects gets
 * ESTALE and is left out. `again`: the writes may have been done already, as part of a longer run that failed.
 * *sample: a write that changes something, if there is one.
 */
static int text_join(struct text_write *writes, size_t n, uint8_t *run, uintptr_t start, uintptr_t end, bool again,
		     const struct text_write **sample)
{
	int error = 0;

	if (!text_read_run(writes, n, run, start, end - start, &error))
		return error;
	for (size_t i = 0; i < n; ++i) {
		const struct text_write *write = &writes[i];
		uint8_t *bytes = run + (write->address - start);
		bool there = (again || *sample == NULL) && memcmp(bytes, write->bytes, write->length) == 0;

		if (write->expected != NULL && memcmp(bytes, write->expected, write->length) != 0 &&
		    !(again && there)) {
			writes[i].error = ESTALE;
			continue;
		}
		if (*sample == NULL && !there)
			*sample = write;
		memcpy(bytes, write->bytes, write->length);
	}
	return 0;
}

/* Does the run take bytes that are in memory, to compare them or to write them again? */
static bool text_is_read_first(const struct text_write *writes, size_t n)
{
	return n > 1 || writes[0].expected != NULL;
}

/* `run` has room for the run where text_is_read_first(). */
static int text_write_joined(enum text_way *by, struct text_write *writes, size_t n, uint8_t *run, uintptr_t start,
			     uintptr_t end, bool again) REQUIRES(library_lock)
{
	const uint8_t *bytes = writes[0].bytes;
	const struct text_write *sample = NULL;
	int error = 0;

	if (text_is_read_first(writes, n)) {
		error = text_join(writes, n, run, start, end, again, &sample);
		/* A single write does not need the old bytes where memory cannot be read, as in text_arrived(). */
		if (error != 0 && (n > 1 || error == EFAULT))
			return error;
		if (n == 1 && writes[0].error != 0)
			return writes[0].error;
		if (n > 1)
			bytes = run;
	}
	error = text_write_run(by, start, bytes, end - start, writes[0].no_rmw);
	/* Where the mapping is writable, the program may have changed the bytes since: they say nothing. */
	if (error != 0 || *by != TEXT_PROC_MEM || writes[0].no_rmw)
		return error;
	/* The run was one system call: where one of its writes arrived, all did. */
	if (sample != NULL)
		return text_arrived(sample->address, sample->bytes, sample->length) ? 0 : EIO;
	return text_arrived(start, bytes, end - start) ? 0 : EIO;
}

/* The same, with memory for it. */
static int text_write_in_scratch(enum text_way *by, struct text_write *writes, size_t n, uintptr_t start, uintptr_t end,
				 bool again) REQUIRES(library_lock)
{
	size_t size = text_is_read_first(writes, n) ? end - start : 0;
	uint8_t *run = scratch_take(size);
	int error = run != NULL ? text_write_joined(by, writes, n, run, start, end, again) : ENOMEM;

	scratch_give(run, size);
	return error;
}

enum extent { PAGES, ONE_PAGE, ONE_PAGE_AGAIN };

/* Perform writes[0 .. result) as one run; *failed grows by the number of writes that failed. */
static size_t text_apply_run(enum text_way *by, struct text_write *writes, size_t count, enum extent extent,
			     size_t *failed) REQUIRES(library_lock)
{
	uintptr_t start = writes[0].address;
	uintptr_t end = start + writes[0].length;
	size_t n = 1;
	int error;

	writes[0].error = 0;
	while (n < count && text_joins(start, end, writes[n - 1].no_rmw, &writes[n], extent != PAGES)) {
		end = writes[n].address + writes[n].length;
		writes[n].error = 0;
		++n;
	}
	error = text_write_in_scratch(by, writes, n, start, end, extent == ONE_PAGE_AGAIN);
	if ((error == EIO || error == EFAULT || error == EACCES) && extent == PAGES &&
	    ALIGN_DOWN(start, PAGE_SIZE) != ALIGN_DOWN(end - 1, PAGE_SIZE)) {
		/* A page that is not mapped, or not readable, must not fail the writes to other pages: page by page. */
		for (size_t i = 0; i < n;)
			i += text_apply_run(by, writes + i, n - i, ONE_PAGE_AGAIN, failed);
		return n;
	}
	for (size_t i = 0; i < n; ++i) {
		if (writes[i].error == 0)
			writes[i].error = error;
		*failed += writes[i].error != 0;
	}
	return n;
}

void text_prefault(uintptr_t lower, uintptr_t upper)
{
	size_t size = MIN(upper - lower, RUN_MAX);
	uint8_t *zeros;

	if (way != TEXT_PROC_MEM)
		return;
	zeros = scratch_take(size);
	if (zeros == NULL)
		return;
	memset(zeros, 0, size);
	for (; lower < upper; lower += size)
		(void)text_write_proc_mem(&mem, lower, zeros, MIN(upper - lower, size));
	scratch_give(zeros, size);
}

size_t text_apply(struct text_write *writes, size_t count)
{
	/* The way may stop working in the middle of a batch; the next batch begins with the best one again. */
	enum text_way by = way;
	size_t failed = 0;

	LOCK_ASSERT_HELD();
	if (count == 0)
		return 0;
	sort_by_address(writes, count, sizeof(*writes));
	for (size_t i = 0; i < count;)
		i += text_apply_run(&by, writes + i, count - i, by == TEXT_PAGE_SWAP ? ONE_PAGE : PAGES, &failed);
	if (!kept)
		text_mem_close(&mem);
	return failed;
}
