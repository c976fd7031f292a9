/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs that execute translations of the code instead of the code: they need to be told where it has changed.
 */
#ifndef LIBPATCH_ARCH_TRANSLATOR_H
#define LIBPATCH_ARCH_TRANSLATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum arch_translator_request {
	ARCH_TRANSLATOR_IS_THERE = 0x1001, /* how many of them, one in the other */
	ARCH_TRANSLATOR_DISCARD = 0x1002
};

/*
 * What valgrind knows as a client request: rotations of %rdi by two whole turns, then an exchange of a register with
 * itself, which stands for the request ("The Client Request mechanism" in its manual). It takes the request's words
 * from where %rax points, and %rdx for the answer. Elsewhere five instructions that do nothing: 0.
 */
static inline uint64_t arch_translator_ask(enum arch_translator_request what, uintptr_t address, size_t length)
{
	const uint64_t request[6] = { what, address, length };
	uint64_t answer = 0;

	__asm__ volatile("rolq $3, %%rdi\n\t"
			 "rolq $13, %%rdi\n\t"
			 "rolq $61, %%rdi\n\t"
			 "rolq $51, %%rdi\n\t"
			 "xchgq %%rbx, %%rbx"
			 : "+d"(answer)
			 : "a"(request)
			 : "cc", "memory");
	return answer;
}

/* Does valgrind execute this process? Async-signal-safe. */
static inline bool arch_is_translated(void)
{
	return arch_translator_ask(ARCH_TRANSLATOR_IS_THERE, 0, 0) != 0;
}

/* The code in [address, address + length) has changed: no translation of what it was is executed any more. */
static inline void arch_code_changed(uintptr_t address, size_t length)
{
	arch_translator_ask(ARCH_TRANSLATOR_DISCARD, address, length);
}

#endif
