/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A window: the whole instructions that a jump or a trap stands for, and how it does. The planner finds it, a
 * trampoline is built for it, a region keeps it. Pure.
 */
#ifndef LIBPATCH_CODE_WINDOW_H
#define LIBPATCH_CODE_WINDOW_H

#include "arch/insn.h"
#include "arch/trap_bytes.h"
#include "base/compiler.h"

/* The longest window. Joining neighbours that would make a longer one is refused. */
#define WINDOW_LENGTH_MAX 120
#define WINDOW_INSNS_MAX 64
/* So many targets of its branches may have leads; branches to others go to the text. */
#define WINDOW_LEADS_MAX 8

struct lead;

/* Copies of the window's branches to this address, which is outside of it, go where the lead says. */
struct window_lead {
	uintptr_t target;
	struct lead *lead;
};

struct window {
	uintptr_t start;
	uint8_t length;
	uint8_t count;    /* of instructions */
	uint8_t strategy; /* enum patch_strategy */
	const uint8_t *offsets;  /* count + 1: where each instruction begins, and the end */
	const uint8_t *original; /* length bytes; those of a jump, for PATCH_STRATEGY_PUNNED_JUMP */
	const struct arch_insn *insns; /* decoded; NULL: not yet */
	uintptr_t pad; /* that its jump leads to; 0: none yet, or none needed */
	bool shadow_stack; /* returns must match calls */
	uint8_t lead_count;
	struct window_lead leads[WINDOW_LEADS_MAX];
};

/* The trap byte of instruction i. Of those in the SIGILL class a jump's top byte may be another. */
static inline uint8_t window_trap_byte(const uint8_t *offsets, unsigned int i)
{
	return arch_trap_byte(offsets[i + 1] - offsets[i]);
}

/*
 * Of a jump at the window's start: the trap byte for each byte of the rel32, 0 for those that are on no boundary. They
 * must be trap bytes for as long as the jump is there (design: the region model).
 */
static inline void window_rel32_traps(const uint8_t *offsets, unsigned int count, uint8_t traps[4])
{
	for (unsigned int i = 0; i < 4; ++i)
		traps[i] = 0;
	for (unsigned int i = 1; i < count && offsets[i] < ARCH_JMP_SIZE; ++i)
		traps[offsets[i] - 1] = window_trap_byte(offsets, i);
}

#endif
