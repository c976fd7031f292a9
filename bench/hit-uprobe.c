/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's probes of user space, on functions of this program. Counted by perf events, and by a BPF program. */
#define _GNU_SOURCE
#include "hit.h"
#include "uprobe.h"

#include <string.h>

extern worker_function bench_uprobe_entry, bench_uprobe_prologue, bench_uprobe_nop5, bench_uprobe_bpf, bench_uretprobe;

static const struct worker_row rows[] = {
	{.name = "uprobe_int3", .function = bench_uprobe_prologue},
	{.name = "uprobe_int3_stepped", .function = bench_uprobe_entry},
	{.name = "uprobe_nop5", .function = bench_uprobe_nop5},
	{.name = "uprobe_bpf", .function = bench_uprobe_bpf},
	{.name = "uretprobe", .function = bench_uretprobe},
	{.name = NULL},
};

static const char *prepare(const struct worker_row *row)
{
	const char *reason = NULL;
	uint64_t offset;
	int event, program = -1;

	if (!file_offset((uintptr_t)row->function, &offset))
		return "its place in the file is not known";
	if (row->function == bench_uprobe_bpf) {
		program = uprobe_program(false, &reason);
		if (program < 0)
			return reason;
	}
	event = uprobe_attach("/proc/self/exe", offset, row->function == bench_uretprobe, program, &reason);
	return event < 0 ? reason : NULL;
}

const struct worker_program hit_uprobes = {.rows = rows, .prepare = prepare};
