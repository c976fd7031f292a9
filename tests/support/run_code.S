/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * run_code() and run_leave of run_code.h. The state may have AC and DF set and any stack pointer: until the caller's
 * flags are back, there are only aligned accesses.
 */
	.macro global name, type
	.globl \name
	.hidden \name
	.type \name, @\type
\name:
	.endm

	.macro each_register do
	\do rax, 0
	\do rcx, 8
	\do rdx, 16
	\do rbx, 24
	\do rsp, 32
	\do rbp, 40
	\do rsi, 48
	\do rdi, 56
	\do r8, 64
	\do r9, 72
	\do r10, 80
	\do r11, 88
	\do r12, 96
	\do r13, 104
	\do r14, 112
	\do r15, 120
	.endm
	.macro load register, offset
	mov run_state+\offset(%rip), %\register
	.endm
	.macro save register, offset
	mov %\register, run_state+\offset(%rip)
	.endm

	.text
global run_code, function
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, run_host_stack(%rip)
	mov run_state+144(%rip), %rax
	test %rax, %rax
	jz 1f
	xor %edx, %edx
	xrstor64 run_state+192(%rip)
1:	mov run_state+152(%rip), %rax
	test %rax, %rax
	jz 1f
	rdfsbase %rcx
	mov %rcx, run_host_fs(%rip)
	wrfsbase %rax
1:	pushq run_state+128(%rip)
	popfq
	each_register load
	jmp *run_state+136(%rip)
	.size run_code, . - run_code

global run_leave, function
	each_register save
	mov run_host_stack(%rip), %rsp
	pushfq
	popq run_state+128(%rip)
	pushq $0x202
	popfq
	mov run_state+144(%rip), %rax
	test %rax, %rax
	jz 1f
	xor %edx, %edx
	xsave64 run_state+192(%rip)
	fninit
	ldmxcsr run_mxcsr(%rip)
	testl $4, run_state+144(%rip)
	jz 1f
	vzeroupper
1:	mov run_state+152(%rip), %rax
	test %rax, %rax
	jz 1f
	mov run_host_fs(%rip), %rax
	wrfsbase %rax
1:	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size run_leave, . - run_leave
global run_end, function

	.section .rodata
	.p2align 2
global run_mxcsr, object
	.long 0x1F80
	.size run_mxcsr, 4

	.bss
	.p2align 6
global run_state, object
	.zero 192 + 4096
	.size run_state, 192 + 4096
global run_host_stack, object
	.zero 8
	.size run_host_stack, 8
global run_host_fs, object
	.zero 8
	.size run_host_fs, 8

	.section .note.GNU-stack, "", @progbits
