/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions to be probed, one copy for each row, all at the same offset in a cache line. Three shapes:
 *   ENTRY     begins with an instruction of five bytes
 *   PROLOGUE  begins as compiled functions do, four instructions in the first six bytes
 *   MIDDLE    has its site behind others, with a register and flags in use
 */
#include "targets.inc"

	.text

.macro ENTRY name
	FUNCTION \name
	movl	$1, %eax
	leal	1(%rax), %eax
	ret
	END \name
.endm

.macro PROLOGUE name
	FUNCTION \name
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret
	END \name
.endm

.macro MIDDLE name
	FUNCTION \name
	leal	3(%rdi), %ecx
	xorl	$5, %ecx
	.globl	\name\()_site
\name\()_site:
	leal	0x1234567(%rcx), %eax
	setz	%cl
	ret
	END \name
.endm

/* What compilers leave for a patch, and the kernel replaces by a call (Linux 6.18). */
.macro NOP5 name
	FUNCTION \name
	.byte	0x0f, 0x1f, 0x44, 0, 0
	leal	1(%rax), %eax
	ret
	END \name
.endm

/* Calls, and jumps to, a function that is one instruction and a return; the site is the call or the jump. */
.macro CALLING name, setup, call
	FUNCTION \name
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	\setup
	.globl	\name\()_site
\name\()_site:
	\call
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	END \name
.endm

.macro JUMPING name, setup, jump
	FUNCTION \name
	\setup
	.globl	\name\()_site
\name\()_site:
	\jump
	END \name
.endm

	FUNCTION bench_leaf
	leal	1(%rdi), %eax
	ret
	END bench_leaf
	.data
	.p2align 3
bench_leaf_pointer: .quad bench_leaf
	.text

	CALLING	bench_bare_call, nop, "call bench_leaf"
	CALLING	bench_bare_call_reg, "leaq bench_leaf(%rip), %rdx", "call *%rdx"
	CALLING	bench_bare_call_mem, nop, "call *bench_leaf_pointer(%rip)"
	JUMPING	bench_bare_jmp_mem, nop, "jmp *bench_leaf_pointer(%rip)"
	CALLING	bench_ours_call, nop, "call bench_leaf"
	CALLING	bench_ours_call_reg, "leaq bench_leaf(%rip), %rdx", "call *%rdx"
	CALLING	bench_ours_call_mem, nop, "call *bench_leaf_pointer(%rip)"
	JUMPING	bench_ours_jmp_mem, nop, "jmp *bench_leaf_pointer(%rip)"

	ENTRY	bench_bare_entry
	PROLOGUE bench_bare_prologue
	MIDDLE	bench_bare_middle
	NOP5	bench_bare_nop5

	ENTRY	bench_ours_entry
	ENTRY	bench_ours_entry_all_gpr
	ENTRY	bench_ours_entry_sse
	ENTRY	bench_ours_entry_avx
	ENTRY	bench_ours_entry_default
	ENTRY	bench_ours_entry_all
	ENTRY	bench_ours_entry_trap
	ENTRY	bench_ours_entry_around
	ENTRY	bench_ours_entry_own
	ENTRY	bench_ours_entry_return
	ENTRY	bench_ours_entry_disabled
	ENTRY	bench_ours_entry_2
	ENTRY	bench_ours_entry_4
	ENTRY	bench_ours_count_plain
	ENTRY	bench_ours_count_atomic
	ENTRY	bench_ours_count_thread
	PROLOGUE bench_ours_prologue
	PROLOGUE bench_ours_prologue_2
	PROLOGUE bench_ours_prologue_4
	PROLOGUE bench_ours_prologue_trap
	MIDDLE	bench_ours_middle
	MIDDLE	bench_ours_middle_default
	MIDDLE	bench_ours_middle_all

	ENTRY	bench_uprobe_entry
	PROLOGUE bench_uprobe_prologue
	PROLOGUE bench_uprobe_bpf
	PROLOGUE bench_uretprobe
	NOP5	bench_uprobe_nop5

	ENTRY	bench_gdb_entry

/* void bench_call(void (*function)(void), uint64_t n) */
	FUNCTION bench_call
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	movq	%rdi, %rbx
	movq	%rsi, %r12
	.p2align 5
1:	callq	*%rbx
	decq	%r12
	jnz	1b
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%r12
	.cfi_adjust_cfa_offset -8
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	ret
	END bench_call

	.section .note.GNU-stack, "", @progbits
