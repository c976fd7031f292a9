/* SPDX-License-Identifier: MIT */
/*
 * What coverage-agent.c finds out and coverage-report.c prints. See coverage.c.
 */
#ifndef EXAMPLES_COVERAGE_H
#define EXAMPLES_COVERAGE_H

#include "functions.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From the launcher to the agent, by environment. */
#define COVERAGE_FILE "LIBPATCH_COVERAGE_FILE"   /* library to load; "": the program itself */
#define COVERAGE_EVERY "LIBPATCH_COVERAGE_EVERY" /* every k-th instruction; 0: none */
#define COVERAGE_TABLE "LIBPATCH_COVERAGE_TABLE" /* 1: a line per site */
#define COVERAGE_JOBS "LIBPATCH_COVERAGE_JOBS"   /* processes at a time */

/* The agent's exit status; anything else means that it did not run. */
#define COVERAGE_DONE 90
#define COVERAGE_INCOMPLETE 91
#define COVERAGE_FAILED 92

enum policy {
	ALLOW,
	FORBID,
	POLICIES
};

enum outcome {
	UNKNOWN, /* the process that should have tried it died */
	JUMP,
	CONSTRAINED_JUMP,
	TRAP,
	REFUSED,
	OUTCOMES
};

struct result {
	uint8_t outcome;
	uint8_t length; /* of the window */
	uint8_t reason; /* REFUSED: index */
};

struct site {
	uintptr_t address;
	uint32_t extent;
	uint8_t pass;
	bool is_entry;
	bool is_sampled; /* counts among the instructions */
};

#define REASONS_MAX 64

struct reason {
	char text[192];
};

/* Shared with the processes that plan. */
struct shared {
	uint32_t lock;
	uint32_t reason_count;
	struct reason reasons[REASONS_MAX];
	uint64_t ns[POLICIES];   /* processor time in patch_make() */
	uint64_t made[POLICIES]; /* calls */
	struct {
		bool complete;
		uint64_t outcomes[OUTCOMES];
		uint64_t ns;
		uint64_t arenas;
		uint64_t code_bytes;
		uint64_t mappings; /* of the process, as /proc/self/maps counts them */
	} at_once[POLICIES];
};

struct coverage {
	struct functions functions;
	const struct module *module;
	bool is_program;
	size_t function_count;
	uint64_t instruction_count;
	uint64_t undecoded_bytes;
	unsigned long every;
	bool table;
	struct site *sites; /* ascending */
	size_t site_count;
	struct result *results[POLICIES]; /* one per site, shared */
	struct shared *shared;
	size_t deaths;
};

void coverage_report(const struct coverage *coverage);

#endif
