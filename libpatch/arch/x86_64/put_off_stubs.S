/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * arch/put_off.h says what these are for. A stub keeps all registers and flags: the library's functions that hooks ask
 * return through it, too. Its unwind description is that of a signal's frame: the caller is where the call would have
 * returned to, with the same stack pointer; but for one byte, so that the frame is another one than its caller's.
 */
#include "arch/x86_64/own_syscall.h"
#include "arch/x86_64/put_off.h"

	.set SYS_rt_sigprocmask, 14
	.set SIG_UNBLOCK, 1
	.set SET_SIZE, 8

	/*
	 * The stack pointer of the stub's beginning is n bytes above the one of now. DW_CFA_def_cfa_expression,
	 * DW_CFA_val_expression of rsp, DW_CFA_expression of rip.
	 */
	.macro FRAME n, way
	.set frame_rip, \n + PUT_OFF_RETURNS + 8 * \way
	.cfi_escape 0x0f, 5, 0x77, (\n) & 0x7f | 0x80, (\n) >> 7, 0x31, 0x22
	.cfi_escape 0x16, 7, 3, 0x77, (\n) & 0x7f | 0x80, (\n) >> 7
	.cfi_escape 0x10, 16, 3, 0x77, frame_rip & 0x7f | 0x80, frame_rip >> 7
	.endm

	.macro STUB way
	.cfi_startproc
	.cfi_signal_frame
	FRAME 0, \way
	/* Some unwinders look for the address in front of the one that is returned to. */
	nop
	.globl arch_put_off_stub_\way
	.hidden arch_put_off_stub_\way
	.type arch_put_off_stub_\way, @function
arch_put_off_stub_\way:
	pushfq
	FRAME 8, \way
	lea -PUT_OFF_SAVED(%rsp), %rsp
	FRAME PUT_OFF_TOTAL, \way
	mov %rax, PUT_OFF_RAX(%rsp)
	mov %rcx, PUT_OFF_RCX(%rsp)
	mov %rdx, PUT_OFF_RDX(%rsp)
	mov %rsi, PUT_OFF_RSI(%rsp)
	mov %rdi, PUT_OFF_RDI(%rsp)
	mov %r10, PUT_OFF_R10(%rsp)
	mov %r11, PUT_OFF_R11(%rsp)
	.globl arch_put_off_kept_\way, arch_put_off_given_back_\way, arch_put_off_end_\way
	.hidden arch_put_off_kept_\way, arch_put_off_given_back_\way, arch_put_off_end_\way
arch_put_off_kept_\way:
	mov libpatch_hook_guard@gottpoff(%rip), %rsi
	add %fs:0, %rsi
	add $PUT_OFF_GUARD_WORD, %rsi
	mov $SIG_UNBLOCK, %edi
	xor %edx, %edx
	mov $SET_SIZE, %r10d
	mov $SYS_rt_sigprocmask, %eax
	OWN_SYSCALL
	movq $0, (%rsi)
	mov PUT_OFF_RAX(%rsp), %rax
	mov PUT_OFF_RCX(%rsp), %rcx
	mov PUT_OFF_RDX(%rsp), %rdx
	mov PUT_OFF_RSI(%rsp), %rsi
	mov PUT_OFF_RDI(%rsp), %rdi
	mov PUT_OFF_R10(%rsp), %r10
	mov PUT_OFF_R11(%rsp), %r11
	lea PUT_OFF_SAVED(%rsp), %rsp
	FRAME 8, \way
arch_put_off_given_back_\way:
	popfq
	FRAME 0, \way
	jmp *(PUT_OFF_RETURNS + 8 * \way)(%rsp)
arch_put_off_end_\way:
	.cfi_endproc
	.size arch_put_off_stub_\way, . - arch_put_off_stub_\way
	.endm

	.text
	.balign 16
	STUB 0
	STUB 1

	.section .note.GNU-stack, "", @progbits
