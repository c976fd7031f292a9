/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The functions of short.h. Nothing may be put between them, or into their instructions: tests know every byte. */
	.text
	.p2align 6
	.globl plain
	.type plain, @function
plain:
	.cfi_startproc
	lea 1(%rdi), %rax
	.globl plain_second
plain_second:
	add $2, %rax
	add $3, %rax
	ret
	.cfi_endproc
	.globl plain_end
plain_end:
	.size plain, . - plain
	.p2align 6, 0xcc
	.globl counted
	.type counted, @function
counted:
	.cfi_startproc
	mov %edi, %eax
1:	sub $0xffffffffffffffff, %rax
	dec %rdi
	jnz 1b
	.rept 8 /* never: so many branches that they are not led elsewhere */
	jg 1b
	.endr
	ret
	.cfi_endproc
	.globl counted_end
counted_end:
	.size counted, . - counted
	.p2align 6, 0xcc
	.globl entered
	.type entered, @function
entered:
	.cfi_startproc
	lea 1(%rdi), %rax
	.globl entered_site
entered_site:
	mov %eax, %eax
1:	add $3, %rax
	ret
	.cfi_endproc
	.size entered, . - entered
	.p2align 6, 0xcc
	.globl enter_behind
	.type enter_behind, @function
enter_behind:
	.cfi_startproc
	mov $4, %eax
	lea 1b(%rip), %rdx
	jmp *%rdx
	.cfi_endproc
	.size enter_behind, . - enter_behind
	.p2align 6, 0xcc

	.section .note.GNU-stack, "", @progbits
