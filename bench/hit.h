/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The group "hit": rows, the workers they run in, and the functions of targets.S and stubs.S. */
#ifndef BENCHMARK_HIT_H
#define BENCHMARK_HIT_H

#include "bench.h"
#include "worker.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/types.h>

struct worker {
	const struct worker_program *program;
	const char *script; /* or a program of its own, started by this one in $LIBPATCH_BENCH_SOURCE */
	pid_t pid;
	FILE *orders, *answers;
};

/* Worker: start, and give orders. Its failures are answered by worker_prepare(), and negative times. */
bool worker_start(struct worker *worker);
bool worker_prepare(struct worker *worker, const char *row, char *reason, int size);
double worker_run(struct worker *worker, const char *row, unsigned int threads, uint64_t n, int cpu);
void worker_stop(struct worker *worker);

extern const struct worker_program hit_floors, hit_ours, hit_uprobes;

/* What probes call. */
struct patch_exec_context;
void bench_empty(struct patch_exec_context *context, uint8_t post);

#endif
