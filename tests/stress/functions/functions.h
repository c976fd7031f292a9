/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random functions for functions.c: where they go, how they are made, how they are entered. */
#ifndef TESTS_STRESS_FUNCTIONS_H
#define TESTS_STRESS_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>

#define FUNCTION_MAX 256

/* All that a function changes, beside the flags. */
struct registers {
	uint64_t rax, rcx, rdx, rbx, r9;
};

/* Room for one, filled with int3: in the program's text, with unwind information; in a mapping near it, without. */
uintptr_t function_in_text(void);
uintptr_t function_in_mapping(void);

/* The code of a function that begins at `at`, of up to 32 instructions; its size. */
size_t function_generate(uint64_t *state, uintptr_t at, uint8_t code[FUNCTION_MAX]);

/* Enter it at one of its instructions, with these registers and flags. function_back: where it comes back to. */
void function_enter(uintptr_t at, struct registers *registers, uint64_t flags);
extern const uint8_t function_back[];

#endif
