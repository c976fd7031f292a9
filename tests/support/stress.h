/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the stress tests share: a probe for every instruction of every target, a procedure that checks where it is
 * called, threads that run the targets and check results and registers, and a controller that changes patches.
 */
#ifndef TESTS_STRESS_H
#define TESTS_STRESS_H

#include "targets.h"

#include <pthread.h>
#include <sched.h>

#define STRESS_MAX_SITES 2048
#define STRESS_MAX_THREADS 256

struct site {
	uintptr_t address;
	patch_t patch;
	int policy;
	bool enabled;
};

extern struct machine machine;
extern struct text_copy stress_text[TARGET_COUNT];
extern struct site sites[STRESS_MAX_SITES];
extern unsigned int site_count;
extern unsigned int site_first[TARGET_COUNT + 1];

extern struct stress {
	uint64_t hits, wrong_pc, wrong_results, failed_calls, calls;
	uintptr_t first_wrong_pc, wanted_pc;
	unsigned int stop;
	unsigned int hot; /* the target that threads call most, and that changes most */
} stress;

/* Hits are counted by thread: one counter for all would be what the test measures. */
extern __thread uint64_t stress_hits;

void stress_procedure(struct patch_exec_context *context, uint8_t post);
patch_status stress_make(struct site *site, int state);
void stress_prepare(void);
void stress_check_text(void);
void stress_note(patch_status status, const char *what);

/* One target once, plainly. */
void stress_call(size_t t, uint64_t a, uint64_t b);
uint64_t stress_random(uint64_t *seed);

/* All targets, plainly with random values and in the machine with every register compared, until told to stop. */
void *stress_thread(void *argument);
double stress_now(void);

/* ---- the controller ---------------------------------------------------------------------------------------------- */

bool stress_set(struct site *site, bool enabled);

/* One random change with its commit; returns the number of patches whose state it changed. */
unsigned int stress_change(uint64_t *seed);
void stress_report(uint64_t toggles, uint64_t commits, double seconds, unsigned int threads);

/* Everything off: the bytes have to be back; then all released, then patch_fini(). */
void stress_end(void);

/* Duration and threads: arguments, else LIBPATCH_STRESS_SECONDS and LIBPATCH_STRESS_THREADS. */
void stress_arguments(int argc, char **argv, unsigned int *seconds, unsigned int *threads);

#endif
