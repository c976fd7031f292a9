/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all function entries of a large library cost in memory, once they are patched and the commit is over. Beside
 * what the library says of itself there is what the kernel says of the process. Pages of text that are not shared with
 * the file any more are counted apart: whoever writes to text, by whatever means, has them. The floor is the code of
 * the hand-written stubs, of which each site needs its own.
 */
#include "bench.h"
#include "patch.h"
#include "sites.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP "size"

struct memory {
	uint64_t private_bytes; /* resident, of this process alone */
	uint64_t text_bytes;    /* of them, in the library's file */
	uint64_t mappings;
};

static const struct row {
	const char *name;
	enum bench_kind kind;
} rows[] = {
	{"probe", KIND_GPR},
	{"probe, all registers", KIND_ALL},
	{"count", KIND_COUNT_PLAIN},
};

static void look(const char *library, struct memory *memory)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	static char line[4096 + 256];
	bool in_library = false;
	uint64_t lower, upper, kib;

	memset(memory, 0, sizeof(*memory));
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64, &lower, &upper) == 2) {
			memory->mappings++;
			in_library = strstr(line, library) != NULL && strstr(line, "r-xp");
		} else if (sscanf(line, "Private_Clean: %" SCNu64, &kib) == 1) {
			memory->private_bytes += in_library ? 0 : kib << 10;
		} else if (sscanf(line, "Private_Dirty: %" SCNu64, &kib) == 1) {
			memory->private_bytes += kib << 10;
			memory->text_bytes += in_library ? kib << 10 : 0;
		}
	}
	if (file)
		fclose(file);
}

static void add(const struct row *row, const char *what, const char *unit, double value)
{
	char name[64];

	snprintf(name, sizeof(name), "%s: %s", row->name, what);
	child_add(name, "all entries", unit, value);
}

static void report(const struct row *row, size_t count, const struct memory *before, const struct memory *after)
{
	struct patch_statistics statistics;
	double text = (double)(after->text_bytes - before->text_bytes);

	memset(&statistics, 0, sizeof(statistics));
	patch_statistics(&statistics, sizeof(statistics));
	add(row, "resident", "bytes/patch",
	    ((double)after->private_bytes - (double)before->private_bytes - text) / (double)count);
	add(row, "copied pages of text", "bytes/patch", text / (double)count);
	add(row, "generated code", "bytes/patch", (double)statistics.code_bytes / (double)count);
	add(row, "pads", "bytes/patch", (double)statistics.pad_bytes / (double)count);
	add(row, "heap", "bytes/patch", (double)statistics.heap_bytes / (double)count);
	add(row, "mappings", "in all", (double)after->mappings - (double)before->mappings);
	add(row, "patches", "in all", (double)count);
}

static void in_child(void *argument)
{
	const struct row *row = argument;
	const char *reason = bench_kind_missing(row->kind);
	struct memory before, after;
	struct sites sites;
	size_t made = 0;

	if (!reason)
		reason = sites_of_functions(&sites);
	if (!reason && !bench_init())
		reason = bench_last_error();
	if (reason) {
		char name[64];

		snprintf(name, sizeof(name), "%s: resident", row->name);
		child_skip(name, "all entries", reason);
		return;
	}
	if (options.quick)
		sites.count = 200;
	/* What planning reads is resident afterwards, but the file's. */
	look(sites.path, &before);
	look(sites.path, &before);
	for (size_t i = 0; i < sites.count; i++) {
		patch_t patch;

		made += bench_make(sites.addresses[i], row->kind, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch);
	}
	if (made == 0 || patch_commit())
		_exit(1);
	look(sites.path, &after);
	report(row, made, &before, &after);
	patch_fini();
}

#define STUB(name) { #name ": generated code", bench_##name##_stub, bench_##name##_stub_end }
#define DECLARE(name) extern const char bench_##name##_stub[], bench_##name##_stub_end[]

DECLARE(stub_inc);
DECLARE(stub_sahf);
DECLARE(stub_popf);
DECLARE(stub_all_x87_zmm);

static void add_stubs(void)
{
	static const struct {
		const char *row;
		const char *start;
		const char *end;
	} stubs[] = { STUB(stub_inc), STUB(stub_sahf), STUB(stub_popf), STUB(stub_all_x87_zmm) };

	for (size_t i = 0; i < sizeof(stubs) / sizeof(*stubs); i++)
		if (row_wanted(stubs[i].row))
			series_add(GROUP, stubs[i].row, "all entries", "bytes/patch",
				   (double)(stubs[i].end - stubs[i].start));
}

void group_size(void)
{
	add_stubs();
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s: resident", rows[i].name);
		if (row_wanted(rows[i].name) && !child_run(GROUP, in_child, (void *)(uintptr_t)&rows[i], 120))
			series_fail(GROUP, name, "all entries", "its process did not end well");
	}
}
