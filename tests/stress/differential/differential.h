/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the differential test share:
 *
 *   files      text of installed binaries
 *   step       one instruction, made ready to be run, or the reason why it cannot be
 *   corpus     single instructions, found in files or generated
 *   generator  encodings by enumeration
 *   window     several instructions in a row, displaced together
 *   machine    memory and code, the way in and out
 *   start      states to start from
 *   compare    in place against the copy
 */
#ifndef TESTS_STRESS_DIFFERENTIAL_H
#define TESTS_STRESS_DIFFERENTIAL_H

#include "arch/emit.h"
#include "run_code.h"

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

static inline uint64_t mix_in(uint64_t key, uint64_t value)
{
	return mix(key ^ (value + 0x9E3779B97F4A7C15));
}

/* ---- what is left out, by reason --------------------------------------------------------------------------------- */

struct skips {
	struct {
		const char *reason;
		uint64_t count;
	} list[64];
	size_t count;
};

static inline void skip_note(struct skips *skips, const char *reason)
{
	size_t i;

	for (i = 0; i < skips->count && strcmp(skips->list[i].reason, reason) != 0; i++)
		;
	if (i == ARRAY_SIZE(skips->list))
		return;
	if (i == skips->count)
		skips->list[skips->count++].reason = reason;
	skips->list[i].count++;
}

/* ---- text of installed binaries ---------------------------------------------------------------------------------- */

struct text {
	const uint8_t *bytes;
	size_t size;
};

struct files {
	struct text texts[128];
	size_t text_count;
	size_t count;
};

/* Those that are there; they stay mapped. */
void files_open(struct files *files);

/* ---- one instruction --------------------------------------------------------------------------------------------- */

#define NONE 0xFF /* of the registers in run_code.h */

enum step_flags {
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
	P_FRAME = 1 << 13,   /* uses RBP as a stack pointer */
	P_MXCSR = 1 << 14,   /* loads MXCSR, of which half the bits must be 0 */
	P_WRITTEN = 1 << 15  /* P_AROUND, and what is in the holes changes every register but RSP */
};

struct operand {
	uint8_t base; /* a register or NONE */
	uint8_t index;
	uint8_t scale;
	bool segment; /* FS or GS */
	int64_t disp;
};

struct step {
	uint8_t bytes[INSN_MAX]; /* as found; then with displacements that suit the machine */
	uint8_t offset;          /* from the subject's first instruction */
	uint8_t operand_count;
	uint8_t bit;
	uint16_t flags;
	struct operand operands[2];
	struct arch_insn insn;
};

struct decoded {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

const ZydisDecoder *step_decoder(void);
/* As if at STEP_ADDRESS. NULL, or why it is not run. */
#define STEP_ADDRESS 0x10000000UL
const char *step_make(struct step *step, const uint8_t *bytes, size_t size, struct decoded *decoded);
void step_describe(const struct step *step, uintptr_t address, char *text, size_t size);

static inline bool step_is_call(const struct step *step)
{
	return step->insn.kind == ARCH_CALL || step->insn.kind == ARCH_CALL_IND;
}

/* ---- what is run in place and as a copy: an instruction, or a window of several ---------------------------------- */

#define STEPS_MAX 8

struct subject {
	uint16_t flags; /* of all steps */
	uint8_t count;
	uint8_t length;
	uint16_t row_count;
	bool inner_branch; /* to one of its own instructions */
	bool direct;       /* it branches by addresses in its instructions only */
	struct step *steps;
	const struct arch_row *rows; /* offsets from `copy` */
	uintptr_t data;              /* its memory */
	uintptr_t native;
	uintptr_t copy, copy_end;
	uintptr_t entries[STEPS_MAX]; /* of the copy, one for each step */
	struct arch_exit ways[2];     /* of the holes of P_AROUND */
	unsigned int way_count;
};

/* ---- the corpus of single instructions --------------------------------------------------------------------------- */

struct pattern {
	struct subject subject;
	struct step step;
	struct arch_row rows[16];
	uint32_t form;
	bool generated;
};

/* Mnemonic, kinds of operands and prefixes. */
struct form {
	uint64_t key;
	uint64_t executions; /* native and copy are two */
	uint64_t completed;  /* without a fault */
	bool found;          /* in a file */
	char text[64];
};

struct corpus {
	struct pattern *patterns;
	size_t pattern_count;
	struct form *forms;
	size_t form_count;
	size_t encodings_found, encodings_generated;
	struct skips skips;
	uint64_t instructions; /* read */
	uint64_t enumerated;   /* by the generator */
};

/*
 * At most `bytes` of each text and `per_encoding` instructions of each encoding found; the generator adds those of
 * which none was found, in few addressing modes unless `thorough`.
 */
void corpus_read(struct corpus *corpus, const struct files *files, uint64_t seed, size_t bytes, size_t per_encoding,
		 bool thorough);

/*
 * Every opcode of every map that the decoder knows, with every prefix, length and group number: `take` gets 15 bytes
 * that may or may not be an instruction.
 */
typedef void generator_fn(const uint8_t bytes[INSN_MAX], void *data);
void generate(uint64_t seed, bool thorough, generator_fn *take, void *data);

/* ---- windows ----------------------------------------------------------------------------------------------------- */

#define WINDOW_BYTES 40
#define WINDOWS_MAX 4096

struct trampoline;

struct displaced {
	struct subject subject;
	struct step steps[STEPS_MAX];
	uint8_t bytes[WINDOW_BYTES];
	uint8_t offsets[STEPS_MAX + 1];
	uint8_t timeouts;
	bool call_inside;  /* not the last instruction */
	struct trampoline *trampoline;
};

struct windows {
	struct displaced *list;
	size_t count;
	struct skips skips;
	uint64_t built, inner_branches, calls_inside;
};

/* Windows as the planner would choose them, built by trampoline_build(); each call forgets those of the last one. */
void windows_draw(struct windows *windows, const struct files *files, uint64_t seed);

/* ---- the machine ------------------------------------------------------------------------------------------------- */

#define DATA_SIZE 4096UL /* data below, stack above, nothing around */
#define SEGMENT_BASE 0x10000UL

/* How it ended: exit 0 is the next instruction, others are where branches lead. */
#define EXITS 64
#define EXIT_FAULT 0xFFFF
#define EXIT_TIMEOUT 0xFFFE

struct outcome {
	uint32_t exit;
	int signal;
	int code;
	uintptr_t address;
	uintptr_t pc;
	uint64_t stack; /* RSP, also after a timeout */
	unsigned int traps; /* returns to the copy */
	unsigned int hole;  /* of arch_relocate_around(): 1 or 2, 0: none was passed */
};

/* What a hole has seen of the program, and what is said of the way out that it is on. */
struct seen {
	uint64_t gpr[REGISTERS];
	uint64_t top; /* the word at RSP, where that is the instruction's */
	struct arch_exit way;
};
/* What a hole adds to each register but RSP, of P_WRITTEN. */
#define HOLE_ADDS 0x1234567

extern uint64_t machine_components;
extern size_t machine_xsave_size;
extern bool machine_far; /* single instructions are copied as for code far from free memory */
extern bool corpus_around; /* of single instructions only those that are copied with holes */

void machine_prepare(void);
/* Native and relocated code of a single instruction. NULL or why not. */
const char *machine_build(struct pattern *pattern, uint64_t seed);
/* Native code of a window in slot `slot` of its arena, and its final steps. NULL or why not. */
const char *machine_place_window(struct subject *subject, size_t slot, uint64_t seed);
/* All single instructions are built. */
void machine_built(void);
/*
 * An int3 on each instruction of a window in place, or the instructions again. While they are there machine_run() of
 * the copy goes on in the copy, as libpatch's trap handler does, and counts.
 */
void machine_trap(const struct subject *subject, bool set);
/*
 * Run code from run_state, which is left changed; EXIT_TIMEOUT after `patience` timer ticks of 4 ms of processor time
 * or somewhat less.
 */
struct outcome machine_run(const struct subject *subject, uintptr_t code, unsigned int patience);
uintptr_t machine_exit(const struct subject *subject, unsigned int exit);
/* In the hole that the last run has passed. */
struct seen machine_seen(const struct subject *subject, unsigned int hole);

/* ---- states to start from ---------------------------------------------------------------------------------------- */

extern struct state start;
extern uint8_t start_memory[DATA_SIZE];

/* Memory and extended state. */
void start_burst(const struct subject *subject, uint64_t *seed);
/* Registers and flags that suit the instructions from `entry` on. */
void start_registers(const struct subject *subject, unsigned int entry, uint64_t *seed);

/* ---- comparing --------------------------------------------------------------------------------------------------- */

extern bool known_differences; /* LIBPATCH_DIFFERENTIAL_KNOWN=1: look for them, too */

struct tally {
	uint64_t executions; /* native and copy are two */
	uint64_t completed;
	uint64_t faults;
	uint64_t late_call_faults;
	uint64_t holes; /* passed */
	uint64_t below;
	uint64_t overwritten;
	uint64_t retries;
	uint64_t single_steps;
	uint64_t timeouts;
	uint64_t unreturnable;
	uint64_t traps;
};

enum verdict { SAME_EXIT, SAME_FAULT, SAME_ILLEGAL, LEFT_OUT, TIMED_OUT, DIFFERENT };

/* Run from `start` into instruction `entry`, in place and as a copy. A difference is reported. */
enum verdict compare(const struct subject *subject, unsigned int entry, struct tally *tally);

#endif
