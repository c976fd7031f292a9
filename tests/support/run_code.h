/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running code with every register given and taken: run_code() loads run_state and jumps to its code; the code jumps to
 * run_leave, with any stack pointer, and what it left is in run_state when run_code() returns.
 */
#ifndef LIBPATCH_TESTS_RUN_CODE_H
#define LIBPATCH_TESTS_RUN_CODE_H

#include <stdint.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, REGISTERS };

#define STATE_XSAVE 4096

/* Offsets are known to run_code.S. */
struct state {
	uint64_t gpr[REGISTERS]; /* 0 */
	uint64_t flags;          /* 128 */
	uint64_t code;           /* 136 */
	uint64_t components;     /* 144: of the extended state; 0 = leave it alone */
	uint64_t fs;             /* 152: 0 = leave FS alone */
	uint8_t xsave[STATE_XSAVE] __attribute__((aligned(64))); /* 192 */
};

extern struct state run_state;
extern const uint32_t run_mxcsr; /* as it is between runs */
extern uint64_t run_host_stack;  /* stack pointer and FS of the caller, during a run */
extern uint64_t run_host_fs;

void run_code(void);
void run_leave(void);
void run_end(void); /* where the code of both ends */

#endif
