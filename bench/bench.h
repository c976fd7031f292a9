/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the benchmark share. A figure is a series of samples of one row in one case ("2 threads", "100
 * asleep"), taken in turns with those of the rows that it is compared with. Its minimum and median, and its ratio to
 * its floor, are printed at the end, by bench.c. Timing fails nothing: the exit status says whether the rows ran.
 */
#ifndef BENCHMARK_BENCH_H
#define BENCHMARK_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
	bool quick;        /* a few milliseconds per row: does it run? */
	const char *group; /* NULL: all */
	const char *row;   /* pattern, NULL: all */
	double scale;      /* of the time that a full run takes */
	const char *peers; /* directory for what peers need and leave, NULL: none with programs of their own */
};

extern struct options options;

/* Is the row of the current group asked for? */
bool row_wanted(const char *row);

/* ---- clock.c ---- */

uint64_t now_ns(void);
/* Of the calling thread: what others take of the processor does not count. */
uint64_t thread_ns(void);

/* ---- series.c ---- */

/* A row that did not run, and why. */
void series_skip(const char *group, const char *row, const char *which, const char *reason);
void series_add(const char *group, const char *row, const char *which, const char *unit, double value);
/*
 * A row is compared with its floor in the same case; of both, `bare` is subtracted first unless it is NULL. Floors
 * that were skipped are no floors: of several, the first that has samples counts.
 */
void series_relate(const char *group, const char *row, const char *which, const char *floor, const char *bare);
void series_print(void);
/* How many rows have neither samples nor a reason. */
size_t series_failed(void);
void series_fail(const char *group, const char *row, const char *which, const char *reason);

/* ---- machine.c ---- */

void machine_print(void);

/* ---- child.c: a row in a process of its own ---- */

/*
 * Run fn(argument) in a child, which reports with child_add() and child_skip(), until timeout seconds are over.
 * False: it died, was ended or exited with another status than 0.
 */
bool child_run(const char *group, void (*fn)(void *argument), void *argument, unsigned int timeout);
void child_add(const char *row, const char *which, const char *unit, double value);
void child_skip(const char *row, const char *which, const char *reason);

/* ---- groups ---- */

void group_hit(void);
void group_install(void);
void group_disturb(void);
void group_size(void);
void group_start(void);
void group_scale(void);

#endif
