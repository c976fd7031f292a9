/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Workers: processes that take turns in calling functions. Rows that must not be in one process (a probe of the
 * kernel's, a SIGTRAP handler of one's own, a program under a debugger) are interleaved so all the same. A worker
 * reads one line per order from its standard input and answers with one line:
 *
 *   prepare ROW           ok | skip REASON
 *   run ROW THREADS N CPU nanoseconds that N calls by each of THREADS threads at once took, on average over the
 *                         threads; the first one runs on processor number CPU of those that the process may use,
 *                         others on the next ones
 *
 * worker-serve.c is also linked into programs for peers, and so depends on nothing else here.
 */
#ifndef BENCHMARK_WORKER_H
#define BENCHMARK_WORKER_H

#include <stdint.h>

#define WORKER_THREADS_MAX 256

typedef void worker_function(void);

struct worker_row {
	const char *name;
	worker_function *function; /* that is called */
	void (*loop)(worker_function *function, uint64_t n); /* calls it; NULL: bench_call() */
};

struct worker_program {
	const struct worker_row *rows; /* to a row without name */
	/* Patch the row's function. NULL, or why that is not possible. */
	const char *(*prepare)(const struct worker_row *row);
};

/* Until standard input ends. */
int worker_serve(const struct worker_program *program);

/* One measurement: `threads` threads, this one among them, start together. cpu < 0: wherever the kernel wants. */
double worker_measure(const struct worker_row *row, unsigned int threads, uint64_t n, int cpu);

extern void bench_call(worker_function *function, uint64_t n);

#endif
