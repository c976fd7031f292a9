/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two functions of short instructions, for tests that look at single bytes of them. Defined by including this.
 */
#ifndef TESTS_REGRESSION_SHORT_H
#define TESTS_REGRESSION_SHORT_H

#include <stdint.h>

/* plain(n) is n + 6. */
unsigned long plain(unsigned long n);
/* counted(n) is 2 * n; the first instruction's jump is punned, see punned_jump_misled.c. */
unsigned long counted(unsigned long n);
extern const uint8_t plain_second[], plain_end[], counted_end[];
__asm__(".text\n"
	".p2align 6\n"
	".globl plain\n.type plain, @function\n"
	"plain:\n"
	".cfi_startproc\n"
	"	lea 1(%rdi), %rax\n"
	"plain_second: add $2, %rax\n"
	"	add $3, %rax\n"
	"	ret\n"
	".cfi_endproc\n"
	"plain_end:\n"
	".size plain, . - plain\n"
	".p2align 6, 0xcc\n"
	".globl counted\n.type counted, @function\n"
	"counted:\n"
	".cfi_startproc\n"
	"	mov %edi, %eax\n"
	"1:	sub $0xffffffffffffffff, %rax\n"
	"	dec %rdi\n"
	"	jnz 1b\n"
	"	ret\n"
	".cfi_endproc\n"
	"counted_end:\n"
	".size counted, . - counted\n"
	".p2align 6, 0xcc\n");

#endif
