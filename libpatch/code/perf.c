/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which process tells perf what, and of what there was before it began.
 */
#include "code/perf.h"

#include "arch/emit.h"
#include "code/arena.h"
#include "code/code_ranges.h"
#include "code/perf_files.h"
#include "sys/process.h"

static struct perf_files on;
/* The process that the files are of. */
static pid_t teller;
/* Ranges that were looked at for pads. */
static size_t ranges_told;

static long perf_begin_files(const char **path)
{
	long error = 0;

	if (on.map)
		error = perf_map_begin(path);
	if (on.dump && error == 0)
		error = perf_dump_begin(path);
	teller = atomic_load(&libpatch_process_own.owner);
	ranges_told = 0;
	if (error != 0)
		on = (struct perf_files){ false, false };
	return error;
}

long perf_begin(const struct perf_files *wanted, const char **path)
{
	on = *wanted;
	return perf_begin_files(path);
}

uintptr_t perf_next_block(const struct code_range *range, size_t *first, size_t last, size_t *size)
{
	while (*first < last) {
		const uintptr_t block = range->lower + *first * ARENA_GRANULE;
		const bool begins = range->granules[*first] == 0;
		size_t end = *first + 1;

		while (end < last && range->granules[end] != 0 && range->granules[end] != ARENA_NO_BLOCK)
			++end;
		*size = (end - *first) * ARENA_GRANULE;
		*first = end;
		if (begins && ((const struct arch_row *)(block + ARENA_BLOCK_ROWS))->code != 0)
			return block;
	}
	return 0;
}

static void perf_tell_range(const struct code_range *range) REQUIRES(library_lock)
{
	size_t first = 0, size;
	uintptr_t block;

	while ((block = perf_next_block(range, &first, (range->upper - range->lower) / ARENA_GRANULE, &size)) != 0)
		perf_map_add(block, size);
}

static void perf_tell_pads(void)
{
	const size_t count = code_ranges_count();

	for (; ranges_told < count; ++ranges_told) {
		const struct code_range *range = code_ranges_at(ranges_told);

		if (range->granules == NULL)
			perf_map_add_range(range->lower, range->upper - range->lower, "libpatch:pads");
	}
}

static void perf_tell_all(void) REQUIRES(library_lock)
{
	for (size_t i = 0; i < code_ranges_count(); ++i)
		if (code_ranges_at(i)->granules != NULL)
			perf_tell_range(code_ranges_at(i));
}

/*
 * Is this the process that tells? The child of a fork begins files of its own, and tells of the names that it has
 * inherited; code that it has inherited is in its parent's dump.
 */
static bool perf_tells(void) REQUIRES(library_lock)
{
	const char *path;

	/* A child that borrows its parent's memory has generated this for both, and is not who perf looks at. */
	if (!(on.map || on.dump) || process_is_borrowed())
		return false;
	if (teller == atomic_load(&libpatch_process_own.owner))
		return true;
	if (perf_begin_files(&path) == 0 && on.map)
		perf_tell_all();
	return on.map || on.dump;
}

void perf_tell(const struct text_write *blocks, size_t count)
{
	if (!perf_tells() || !on.map)
		return;
	for (size_t i = 0; i < count; ++i)
		perf_map_add(blocks[i].address, blocks[i].length);
}

void perf_told(void)
{
	if (!perf_tells())
		return;
	if (on.map) {
		perf_tell_pads();
		perf_map_flush();
	}
	if (on.dump)
		perf_dump_add_new();
}
