/* SPDX-License-Identifier: MIT */
/*
 * What the parts of coverage-agent.so share. See coverage.c.
 */
#ifndef EXAMPLES_COVERAGE_H
#define EXAMPLES_COVERAGE_H

#include "common/functions.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From the launcher to the agent, by environment. */
#define COVERAGE_FILE "LIBPATCH_COVERAGE_FILE"       /* library to load; "": the program itself */
#define COVERAGE_LAYOUT "LIBPATCH_COVERAGE_LAYOUT"   /* COVERAGE_FILE is planned as it lies in this layout */
#define COVERAGE_ROOT "LIBPATCH_COVERAGE_ROOT"       /* what the layout's paths begin in; "": here */
#define COVERAGE_LABEL "LIBPATCH_COVERAGE_LABEL"     /* whose layout it is */
#define COVERAGE_EVERY "LIBPATCH_COVERAGE_EVERY"     /* every k-th instruction; 0: none */
#define COVERAGE_TABLE "LIBPATCH_COVERAGE_TABLE"     /* 1: a line per site */
#define COVERAGE_SUMMARY "LIBPATCH_COVERAGE_SUMMARY" /* 1: a line per module */
#define COVERAGE_BOTH "LIBPATCH_COVERAGE_BOTH"       /* 1: FORBID is tried where ALLOW gives a jump, too */
#define COVERAGE_COMMIT "LIBPATCH_COVERAGE_COMMIT"   /* 1: what is planned at once is committed */
#define COVERAGE_LIMIT "LIBPATCH_COVERAGE_LIMIT"     /* instructions planned at once, at most */
#define COVERAGE_JOBS "LIBPATCH_COVERAGE_JOBS"       /* processes at a time */

/* The agent's exit status; anything else means that it did not run. */
#define COVERAGE_DONE 90
#define COVERAGE_INCOMPLETE 91
#define COVERAGE_FAILED 92
#define COVERAGE_COLLIDED 93 /* the layout has something where this process has something: another one may be luckier */

enum policy {
	ALLOW,
	FORBID,
	POLICIES
};

enum outcome {
	UNKNOWN, /* the process that should have tried it died */
	JUMP,
	CONSTRAINED_JUMP,
	PUNNED_JUMP,
	TRAP,
	REFUSED,
	OUTCOMES
};

static inline bool is_jump(enum outcome outcome)
{
	return outcome == JUMP || outcome == CONSTRAINED_JUMP || outcome == PUNNED_JUMP;
}

/* What a sum is over. */
enum group {
	ENTRIES,
	INSTRUCTIONS,
	GROUPS
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

#define PASSES_MAX 64
#define REASONS_MAX 64

struct reason {
	char text[192];
};

/* Bytes resident in memory, and mappings. */
struct memory {
	uint64_t mappings;  /* lines of /proc/self/maps */
	uint64_t generated; /* executable and anonymous: trampolines, pads */
	uint64_t heap;      /* anonymous, not executable */
	uint64_t copied;    /* pages of the module that are no longer the file's */
};

/* Everything of a group in one process. */
struct at_once {
	bool complete;
	bool committed;
	uint64_t outcomes[OUTCOMES];
	uint64_t ns;
	uint64_t commit_ns;
	uint64_t arenas;
	uint64_t code_bytes;
	struct memory planned; /* what planning took */
	struct memory patched; /* what planning and the commit took */
};

/* Shared with the processes that plan. */
struct shared {
	uint32_t lock;
	uint32_t reason_count;
	struct reason reasons[REASONS_MAX];
	uint64_t ns[POLICIES];   /* processor time in patch_make() */
	uint64_t made[POLICIES]; /* calls */
	struct at_once at_once[GROUPS][POLICIES];
};

struct coverage {
	struct functions functions;
	const struct module *module;
	const char *label; /* whose layout it is planned in; NULL: its own */
	bool is_program;
	bool table;
	bool summary;
	bool both;
	bool commit;
	unsigned long every;
	unsigned long limit;
	size_t jobs;
	size_t function_count;
	uint64_t instruction_count;
	uint64_t undecoded_bytes;
	struct site *sites; /* ascending */
	size_t site_count;
	uint32_t *order; /* indices of sites, pass by pass */
	size_t passes[PASSES_MAX + 1]; /* where each begins in order[] */
	struct result *results[POLICIES]; /* one per site, shared */
	struct shared *shared;
	size_t deaths;
};

void coverage_complain(const char *what, const char *why);

/* The extents of the module alone, ascending, without those that begin twice. */
void coverage_select_extents(struct coverage *coverage);
/* False: out of memory. */
bool coverage_collect_sites(struct coverage *coverage);

/* Is everything of this group planned at once? */
bool coverage_at_once(const struct coverage *coverage, enum group group);
/* Plan every site alone, and all at once. */
void coverage_plan(struct coverage *coverage);

/* Of this process, as it is now. */
void coverage_memory(const struct module *module, struct memory *memory);

/*
 * Of entries, then of instructions, percent: by jump with ALLOW, not refused with ALLOW, by jump with FORBID. Then, of
 * all entries at once with ALLOW: more lines in maps; per patch, bytes of generated code, and resident bytes of
 * everything ("-": only --commit tells).
 */
#define COVERAGE_SUMMARY_HEAD                                                                                          \
	"functions instructions |  entries:     ALLOW     made   FORBID |  instr.:      ALLOW     made   FORBID | "    \
	" maps  code   all  module\n"

void coverage_report(const struct coverage *coverage);

#endif
