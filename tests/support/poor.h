/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole job in surroundings that may refuse parts of it: functions that two threads run all the time, probes on
 * them, and what has to hold whatever the library's calls return. Every call ends, in PATCH_OK or in a status with
 * words; functions compute what they did; a site that counts as patched is, and text that counts as restored is.
 */
#ifndef TESTS_POOR_H
#define TESTS_POOR_H

#include "harness.h"

/*
 * What a refusal leaves: everything, by other means or because nothing depends on the call; or an error status from
 * patch_init(), or from what comes later.
 */
enum outcome { ALL_WORKS, INIT_FAILS, LATER_FAILS };

struct wanted {
	enum outcome outcome;
	const char *says; /* of the first call that fails */
};

struct surroundings {
	const char *name;
	void (*take)(const void *argument);
	void (*give_back)(void); /* NULL: cannot be done */
	const void *argument;
	struct wanted before; /* when taken before patch_init() */
	struct wanted after;  /* when taken while enabled */
	bool masks;           /* the kernel's can be looked at */
};

/* The steps of the job, for tests that put something between them. Once, and first of all: */
void poor_begin(void);
/* Patch every function. False: one call said no, in words. */
bool poor_make_all(int state);
/* By this thread; the other one calls them all the time. */
void poor_call_all(void);
/* Is every patch that was made seen, or none of them? */
void poor_check_hits(bool wanted);
/* patch_fini(), and everything is as it was. */
bool poor_finish(void);

/* The whole job, for harness_isolated(); the argument is a struct surroundings. */
void poor_before(void *argument);
void poor_after(void *argument);

#endif
