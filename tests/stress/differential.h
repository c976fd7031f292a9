/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the differential test share: patterns (instructions found in real binaries, made ready to be run),
 * the machine that runs them, and states.
 */
#ifndef TESTS_STRESS_DIFFERENTIAL_H
#define TESTS_STRESS_DIFFERENTIAL_H

#include "arch/arch.h"

#include <Zydis/Zydis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- randomness: everything follows from one seed ---------------------------------------------------------------- */

static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
	x = (x ^ x >> 27) * 0x94D049BB133111EB;
	return x ^ x >> 31;
}

static inline uint64_t random_next(uint64_t *seed)
{
	return mix(*seed += 0x9E3779B97F4A7C15);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, REGISTERS, NONE = 0xFF };

enum pattern_flags {
	P_VECTOR = 1 << 0,   /* touches extended state */
	P_FS = 1 << 1,       /* an FS or GS operand */
	P_GS = 1 << 2,
	P_ALIGNED = 1 << 3,  /* locked: a split access would make the kernel slow the test down */
	P_STRING = 1 << 4,
	P_VSIB = 1 << 5,     /* gather or scatter */
	P_DIVIDE = 1 << 6,
	P_BIT = 1 << 7,      /* bit string in memory, indexed by `bit` */
	P_POINTERS = 1 << 8, /* memory and registers hold addresses of exits */
	P_LOW = 1 << 9,      /* needs addresses below 2 GiB */
	P_SLOW = 1 << 10,    /* run few times */
	P_AROUND = 1 << 11,  /* copied by arch_relocate_around() */
	P_FAULTS = 1 << 12,  /* never ran without a fault so far */
	P_FRAME = 1 << 13    /* uses RBP as a stack pointer */
};

struct operand {
	uint8_t base; /* a register or NONE */
	uint8_t index;
	uint8_t scale;
	int64_t disp;
};

struct pattern {
	uint8_t bytes[INSN_MAX]; /* as found; then with displacements that suit the machine */
	uint8_t operand_count;
	uint8_t bit;
	uint8_t row_count;
	uint16_t flags;
	uint32_t form, encoding; /* indexes into the corpus */
	struct operand operands[2];
	struct arch_insn insn;
	uintptr_t native, copy, copy_end;
	uintptr_t window;
	struct arch_row rows[6];
};

/* Mnemonic, kinds of operands and prefixes. */
struct form {
	uint64_t key;
	uint64_t executions; /* native and copy are two */
	uint64_t completed;  /* without a fault */
	char text[64];
};

struct skip {
	const char *reason;
	uint64_t patterns; /* instructions seen, at most a few per encoding */
};

struct corpus {
	struct pattern *patterns;
	size_t pattern_count;
	struct form *forms;
	size_t form_count;
	size_t encoding_count;
	struct skip skips[64];
	size_t skip_count;
	uint64_t instructions;
	size_t files;
};

/* Read every file that is there; at most `bytes` of text of each one, `per_encoding` instructions of each encoding. */
void corpus_read(struct corpus *corpus, uint64_t seed, size_t bytes, size_t per_encoding);
void corpus_describe(const struct pattern *pattern, char *text, size_t size);
void corpus_skip(struct corpus *corpus, const char *reason);

/* ---- the machine ------------------------------------------------------------------------------------------------- */

#define WINDOW 4096UL /* data below, stack above, nothing around */
#define SEGMENT_BASE 0x10000UL
#define STATE_XSAVE 4096

/* Offsets are known to the assembly. */
struct state {
	uint64_t gpr[REGISTERS]; /* 0 */
	uint64_t flags;          /* 128 */
	uint64_t code;           /* 136 */
	uint64_t components;     /* 144: 0 = leave extended state alone */
	uint64_t fs;             /* 152: 0 = leave FS alone */
	uint8_t xsave[STATE_XSAVE] __attribute__((aligned(64))); /* 192 */
};

/* How it ended: exit 0 is the next instruction, others are where branches lead. */
#define EXITS 64
#define EXIT_FAULT 0xFFFF

struct outcome {
	uint32_t exit;
	int signal;
	int code;
	uintptr_t address;
	uintptr_t pc;
};

extern struct state run_state;
extern uint64_t machine_components;
extern size_t machine_xsave_size;

void machine_prepare(void);
/* Make the pattern's native and relocated code; false: not possible, the reason was counted. */
bool machine_build(struct corpus *corpus, struct pattern *pattern, uint64_t seed);
void machine_built(void);
/* Run code from run_state, which is left changed. */
struct outcome machine_run(const struct pattern *pattern, uintptr_t code);
uintptr_t machine_exit(const struct pattern *pattern, unsigned int exit);

#endif
