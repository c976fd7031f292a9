/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cost of one hit. Every row is measured in turn for a tenth of a millisecond, then every row again, for as long as
 * the group may take, on the next processor, so that what disturbs the machine disturbs all rows alike. Samples are
 * nanoseconds per call of the probed function; what a probe costs is the difference to a call of the same function
 * without one ("bare").
 */
#include "hit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GROUP "hit"

enum { FLOORS, OURS, UPROBES, LTTNG, UFTRACE, GDB, WORKERS };

static struct worker workers[WORKERS] = {
	[FLOORS] = {.program = &hit_floors},
	[OURS] = {.program = &hit_ours},
	[UPROBES] = {.program = &hit_uprobes},
	[LTTNG] = {.script = "peer-lttng.sh"},
	[UFTRACE] = {.script = "peer-uftrace.sh"},
	[GDB] = {.script = "peer-gdb.sh"},
};

static const struct row {
	const char *name;
	int worker;
	const char *bare;   /* what it costs without the probe */
	const char *floors[3]; /* compared with the first that there is; peers with ours */
} rows[] = {
	{"bare_entry", FLOORS, NULL, {NULL}},
	{"bare_prologue", FLOORS, NULL, {NULL}},
	{"bare_middle", FLOORS, NULL, {NULL}},
	{"bare_nop5", FLOORS, NULL, {NULL}},
	{"bare_call", FLOORS, NULL, {NULL}},
	{"bare_call_reg", FLOORS, NULL, {NULL}},
	{"bare_call_mem", FLOORS, NULL, {NULL}},
	{"bare_jmp_mem", FLOORS, NULL, {NULL}},
	{"stub_jump", FLOORS, "bare_entry", {NULL}},
	{"stub_inc", FLOORS, "bare_entry", {"stub_jump"}},
	{"stub_lock_inc", FLOORS, "bare_entry", {"stub_jump"}},
	{"stub_sahf", FLOORS, "bare_entry", {"stub_jump"}},
	{"stub_popf", FLOORS, "bare_entry", {"stub_sahf"}},
	{"stub_all_gpr", FLOORS, "bare_entry", {"stub_sahf"}},
	{"stub_xmm", FLOORS, "bare_entry", {"stub_sahf"}},
	{"stub_ymm", FLOORS, "bare_entry", {"stub_sahf"}},
	{"stub_zmm", FLOORS, "bare_entry", {"stub_sahf"}},
	{"stub_all_xmm", FLOORS, "bare_entry", {"stub_all_gpr"}},
	{"stub_all_ymm", FLOORS, "bare_entry", {"stub_all_gpr"}},
	{"stub_all_zmm", FLOORS, "bare_entry", {"stub_all_gpr"}},
	{"stub_all_x87_xmm", FLOORS, "bare_entry", {"stub_all_xmm"}},
	{"stub_all_x87_ymm", FLOORS, "bare_entry", {"stub_all_ymm"}},
	{"stub_all_x87_zmm", FLOORS, "bare_entry", {"stub_all_zmm"}},
	{"stub_prologue", FLOORS, "bare_prologue", {NULL}},
	{"stub_middle", FLOORS, "bare_middle", {NULL}},
	{"stub_trap", FLOORS, "bare_entry", {NULL}},
	{"gpr", OURS, "bare_entry", {"stub_sahf"}},
	{"gpr_all_offered", OURS, "bare_entry", {"stub_all_gpr"}},
	{"gpr_prologue", OURS, "bare_prologue", {"stub_prologue"}},
	{"gpr_middle", OURS, "bare_middle", {"stub_middle"}},
	{"gpr_2_in_region", OURS, "bare_prologue", {"stub_prologue"}},
	{"gpr_4_in_region", OURS, "bare_prologue", {"stub_prologue"}},
	{"gpr_2_at_place", OURS, "bare_entry", {"stub_sahf"}},
	{"gpr_4_at_place", OURS, "bare_entry", {"stub_sahf"}},
	{"gpr_around", OURS, "bare_entry", {"stub_sahf"}},
	{"gpr_around_call", OURS, "bare_call", {"stub_sahf"}},
	{"gpr_around_call_reg", OURS, "bare_call_reg", {"stub_sahf"}},
	{"gpr_around_call_mem", OURS, "bare_call_mem", {"stub_sahf"}},
	{"gpr_around_jmp_mem", OURS, "bare_jmp_mem", {"stub_sahf"}},
	{"gpr_own_stack", OURS, "bare_entry", {"stub_sahf"}},
	{"gpr_return", OURS, "bare_entry", {"stub_sahf"}},
	{"disabled", OURS, "bare_entry", {NULL}},
	{"xmm", OURS, "bare_entry", {"stub_xmm"}},
	{"ymm", OURS, "bare_entry", {"stub_ymm"}},
	{"default", OURS, "bare_entry", {"stub_zmm", "stub_ymm", "stub_xmm"}},
	{"default_middle", OURS, "bare_middle", {"stub_zmm", "stub_ymm", "stub_xmm"}},
	{"all", OURS, "bare_entry", {"stub_all_zmm", "stub_all_ymm", "stub_all_xmm"}},
	{"all_middle", OURS, "bare_middle", {"stub_all_x87_zmm", "stub_all_x87_ymm", "stub_all_x87_xmm"}},
	{"count_plain", OURS, "bare_entry", {"stub_inc"}},
	{"count_atomic", OURS, "bare_entry", {"stub_lock_inc"}},
	{"count_thread", OURS, "bare_entry", {"stub_inc"}},
	{"trap", OURS, "bare_entry", {"stub_trap"}},
	{"trap_prologue", OURS, "bare_prologue", {"stub_trap"}},
	{"uprobe_int3", UPROBES, "bare_prologue", {"gpr"}},
	{"uprobe_int3_stepped", UPROBES, "bare_entry", {"gpr"}},
	{"uprobe_nop5", UPROBES, "bare_nop5", {"gpr"}},
	{"uprobe_bpf", UPROBES, "bare_prologue", {"gpr"}},
	{"uretprobe", UPROBES, "bare_prologue", {"gpr"}},
	{"lttng_bare", LTTNG, NULL, {NULL}},
	{"lttng_disabled", LTTNG, "lttng_bare", {NULL}},
	{"lttng_tracepoint", LTTNG, "lttng_bare", {"gpr"}},
	{"uftrace_bare", UFTRACE, NULL, {NULL}},
	{"uftrace_entry_exit", UFTRACE, "uftrace_bare", {"gpr"}},
	{"gdb_fast_tracepoint", GDB, "bare_entry", {"gpr"}},
};
#define ROWS (sizeof(rows) / sizeof(*rows))

static const unsigned int threads[] = {1, 2};
#define THREADS (sizeof(threads) / sizeof(*threads))

static bool ready[ROWS];
static uint64_t calls[ROWS][THREADS];

static const char *which(size_t t)
{
	return threads[t] == 1 ? "1 thread" : "2 threads";
}

/* Asked for, or compared with what is. */
static bool wanted(size_t index)
{
	if (row_wanted(rows[index].name))
		return true;
	for (size_t i = 0; i < ROWS; i++) {
		if (!row_wanted(rows[i].name))
			continue;
		if (rows[i].bare && !strcmp(rows[i].bare, rows[index].name))
			return true;
		for (size_t k = 0; k < 3; k++)
			if (rows[i].floors[k] && !strcmp(rows[i].floors[k], rows[index].name))
				return true;
	}
	return false;
}

static void prepare(size_t index)
{
	struct worker *worker = &workers[rows[index].worker];
	char reason[160];

	if (worker->script && !options.peers)
		snprintf(reason, sizeof(reason), "peers with programs of their own were not asked for");
	else if (!worker->pid && !worker_start(worker))
		snprintf(reason, sizeof(reason), "no process");
	else
		ready[index] = worker_prepare(worker, rows[index].name, reason, sizeof(reason));
	for (size_t t = 0; !ready[index] && t < THREADS; t++)
		series_skip(GROUP, rows[index].name, which(t), reason);
}

static double measure(size_t index, size_t t, int round)
{
	double took = worker_run(&workers[rows[index].worker], rows[index].name, threads[t], calls[index][t], round);

	if (took < 0) {
		series_fail(GROUP, rows[index].name, which(t), "its process ended");
		ready[index] = false;
	}
	return took;
}

/* As many calls as take the time of one repetition, by the fastest of a few. */
static void calibrate(size_t index, size_t t, double target)
{
	calls[index][t] = 64;
	while (ready[index]) {
		double took = INFINITY;

		for (int i = 0; ready[index] && i < 3; i++)
			took = fmin(took, measure(index, t, i));
		if (took >= target / 2 || calls[index][t] >= 1 << 20)
			break;
		calls[index][t] = took > target / 64 ? (uint64_t)((double)calls[index][t] * target / took) :
						       calls[index][t] * 16;
	}
}

static void relate(size_t index, size_t t)
{
	const struct row *row = &rows[index];

	if (row->bare)
		series_relate(GROUP, row->name, which(t), "", row->bare);
	for (size_t k = 0; k < 3; k++)
		if (row->floors[k])
			series_relate(GROUP, row->name, which(t), row->floors[k], row->bare);
}

void group_hit(void)
{
	const double seconds = (options.quick ? 0.01 : 100) * options.scale;
	const double target = options.quick ? 10e3 : 100e3;
	int round = 0;
	uint64_t end;

	for (size_t i = 0; i < ROWS; i++)
		if (wanted(i))
			prepare(i);
	for (size_t i = 0; i < ROWS; i++)
		for (size_t t = 0; ready[i] && t < THREADS; t++)
			calibrate(i, t, target);
	end = now_ns() + (uint64_t)(seconds * 1e9);
	do {
		for (size_t i = 0; i < ROWS; i++)
			for (size_t t = 0; t < THREADS; t++) {
				double took = ready[i] ? measure(i, t, round) : -1;

				if (took >= 0)
					series_add(GROUP, rows[i].name, which(t), "ns/call",
						   took / (double)calls[i][t]);
			}
		round++;
	} while (now_ns() < end);
	for (size_t t = 0; t < THREADS; t++)
		for (size_t i = 0; i < ROWS; i++)
			if (wanted(i))
				relate(i, t);
	for (size_t i = 0; i < WORKERS; i++)
		worker_stop(&workers[i]);
}
