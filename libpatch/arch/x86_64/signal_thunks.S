/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * arch/signal_entry.h says what this is for. A handler is jumped to with the registers and the stack pointer that the
 * kernel gave it, so that no frame of ours lies between it and what it interrupted. The kernel delivers each signal
 * with all signals but SIGSYS blocked: the one window in which another handler can come in between is the five
 * instructions behind the system call that sets the handler's mask. At its end everything is blocked, too, if there is
 * anything to be done. Whether there is may change when another handler comes there: then it is asked once more, and
 * what that handler sees is the beginning of a restorer (arch_signal_leave_anew()).
 *
 * A restorer is described to unwinders as a frame of the kernel's, whose registers are in the context that the stack
 * pointer points to (struct ucontext, arch/x86/include/uapi/asm/sigcontext.h).
 */
#include "arch/x86_64/own_syscall.h"
#include "arch/x86_64/put_off.h"
#include "arch/x86_64/signal_leave.h"

#ifdef __CET__
#include <cet.h>
#endif
#ifndef _CET_ENDBR
#define _CET_ENDBR
#endif

	.set THUNKS, 1024 /* ARCH_SIGNAL_THUNKS */
	.set ALIGNMENT_CHECK, 0x40000 /* AC */
	.set SIGSYS, 31
	.set SYS_rt_sigprocmask, 14
	.set SYS_rt_sigreturn, 15
	.set SIG_SETMASK, 2
	.set SET_SIZE, 8

	/* Kernel's struct ucontext, behind which is the information of the signal. */
	.set CONTEXT_R12, 72
	.set CONTEXT_R13, 80
	.set CONTEXT_R14, 88
	.set CONTEXT_R15, 96
	.set CONTEXT_RBP, 120
	.set CONTEXT_RBX, 128
	.set CONTEXT_FLAGS, 176
	.set CONTEXT_SIZE, 304 /* a multiple of 16 */

	.text
	.balign 16
	.globl arch_signal_thunks
	.hidden arch_signal_thunks
	.type arch_signal_thunks, @function
arch_signal_thunks:
	.cfi_startproc
	.set index, 0
	.rept THUNKS
	.balign 16
	_CET_ENDBR
	mov $index, %eax
	.byte 0xe9 /* jmp: all thunks have the same length */
	.long signal_entry - . - 4
	.set index, index + 1
	.endr
	.cfi_endproc
	.size arch_signal_thunks, . - arch_signal_thunks

/* May a filter not let rt_sigprocmask through? `signo` is of the signal whose handler is entered or left. */
	.macro IF_FILTERED signo, target
	cmpl $SIGSYS, \signo
	je \target
	cmpl $0, libpatch_signal_filter(%rip)
	jne \target
	.endm

	.balign 16
	.type signal_entry, @function
signal_entry:
	.cfi_startproc
	push %rdi
	.cfi_adjust_cfa_offset 8
	push %rsi
	.cfi_adjust_cfa_offset 8
	push %rdx
	.cfi_adjust_cfa_offset 8
	sub $16, %rsp
	.cfi_adjust_cfa_offset 16
	mov %eax, %ecx
	mov %rsp, %r8
	call signal_flags_for_c
	call libpatch_signal_enter
	mov %rax, %r9
	test %rax, %rax
	jz signal_return
	add 8(%rsp), %rsp /* `moved` of struct arch_signal_entry */
	IF_FILTERED 32(%rsp), signal_enter_filtered
	mov 16(%rsp), %rdx
	testl $ALIGNMENT_CHECK, CONTEXT_FLAGS(%rdx)
	jnz signal_enter_checked
signal_enter_set_mask:
	mov $SIG_SETMASK, %edi
	mov %rsp, %rsi
	xor %edx, %edx
	mov $SET_SIZE, %r10d
	mov $SYS_rt_sigprocmask, %eax
	add $16, %rsp
	.cfi_adjust_cfa_offset -16
	OWN_SYSCALL
	.globl arch_signal_entered, arch_signal_entry_end
	.hidden arch_signal_entered, arch_signal_entry_end
arch_signal_entered:
	pop %rdx
	.cfi_adjust_cfa_offset -8
	pop %rsi
	.cfi_adjust_cfa_offset -8
	pop %rdi
	.cfi_adjust_cfa_offset -8
	xor %eax, %eax
	jmp *%r9
arch_signal_entry_end:
	/* The handler has it, as from the kernel. */
signal_enter_checked:
	.cfi_adjust_cfa_offset 16 + 24
	pushfq
	.cfi_adjust_cfa_offset 8
	orl $ALIGNMENT_CHECK, (%rsp)
	popfq
	.cfi_adjust_cfa_offset -8
	jmp signal_enter_set_mask
	/*
	 * A filter that raises SIGSYS may raise it for rt_sigprocmask, too, or end the process for that. What sets the
	 * mask and jumps is the return from a frame of our own, a call that who handles signals must be allowed.
	 */
signal_enter_filtered:
	mov %rsp, %rdi
	sub $CONTEXT_SIZE, %rsp
	.cfi_adjust_cfa_offset CONTEXT_SIZE
	mov %rsp, %rsi
	mov %rax, %rdx
	mov %rbx, CONTEXT_RBX(%rsp)
	mov %rbp, CONTEXT_RBP(%rsp)
	mov %r12, CONTEXT_R12(%rsp)
	mov %r13, CONTEXT_R13(%rsp)
	mov %r14, CONTEXT_R14(%rsp)
	mov %r15, CONTEXT_R15(%rsp)
	call arch_signal_frame_to_handler
	mov $SYS_rt_sigreturn, %eax
	OWN_SYSCALL
	.cfi_endproc
	.size signal_entry, . - signal_entry

	/* The kernel leaves AC as it was, with which C code faults where it reads a word that is not aligned. */
	.balign 16
	.type signal_flags_for_c, @function
signal_flags_for_c:
	.cfi_startproc
	cld
	pushfq
	.cfi_adjust_cfa_offset 8
	testl $ALIGNMENT_CHECK, (%rsp)
	jnz 1f
	lea 8(%rsp), %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_adjust_cfa_offset 8
1:	andl $~ALIGNMENT_CHECK, (%rsp)
	popfq
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size signal_flags_for_c, . - signal_flags_for_c

/* By the kernel: rcx and r11 are changed, too. */
	.macro BLOCK_ALL
	lea signal_all(%rip), %rsi
	mov $SIG_SETMASK, %edi
	xor %edx, %edx
	mov $SET_SIZE, %r10d
	mov $SYS_rt_sigprocmask, %eax
	OWN_SYSCALL
	.endm

/* DW_CFA_expression: the register is saved at an offset from the stack pointer. */
	.macro SAVED register, offset
	.cfi_escape 0x10, \register, 3, 0x77, ((\offset) & 0x7f) | 0x80, (\offset) >> 7
	.endm

	.macro FRAME_OF_KERNEL above
	/* DW_CFA_def_cfa_expression: *(rsp + ...) */
	.cfi_escape 0x0f, 4, 0x77, ((\above + 160) & 0x7f) | 0x80, (\above + 160) >> 7, 0x06
	SAVED 8, \above + 40
	SAVED 9, \above + 48
	SAVED 10, \above + 56
	SAVED 11, \above + 64
	SAVED 12, \above + 72
	SAVED 13, \above + 80
	SAVED 14, \above + 88
	SAVED 15, \above + 96
	SAVED 5, \above + 104  /* rdi */
	SAVED 4, \above + 112  /* rsi */
	SAVED 6, \above + 120  /* rbp */
	SAVED 3, \above + 128  /* rbx */
	SAVED 1, \above + 136  /* rdx */
	SAVED 0, \above + 144  /* rax */
	SAVED 2, \above + 152  /* rcx */
	SAVED 16, \above + 168 /* rip */
	.endm

	.balign 16
	.type arch_signal_restorers, @function
	.cfi_startproc
	.cfi_signal_frame
	FRAME_OF_KERNEL 0
	/* Unwinders look for the address in front of the one that a handler returns to. */
	nop
	.balign 16
	.globl arch_signal_restorers
	.hidden arch_signal_restorers
arch_signal_restorers:
	.rept THUNKS
	.balign 8
	.byte 0xe9 /* jmp */
	.long signal_leave - . - 4
	.endr
	.balign 16
signal_leave:
arch_signal_leave_begins:
	/* All registers are the frame's. The handler may have given the thread storage that is not libc's. */
	mov libpatch_signal_storage(%rip), %ecx
	test $SIGNAL_STORAGE_ADDRESS, %ecx
	jz 1f
	rdfsbase %rax
	test $SIGNAL_STORAGE_ALIGNMENT - 1, %eax
	jnz signal_leave_without_storage
	cmp $SIGNAL_STORAGE_LOWEST, %rax
	jb signal_leave_without_storage
1:	test $SIGNAL_STORAGE_KNOWN, %ecx
	jz 2f
	mov %fs:SIGNAL_STORAGE_THREAD, %rax
	cmp %fs:SIGNAL_STORAGE_SELF, %rax
	jne signal_leave_without_storage
	mov %fs:SIGNAL_STORAGE_STACK_GUARD, %rax
	cmp libpatch_signal_storage+SIGNAL_STORAGE_GUARDS(%rip), %rax
	jne signal_leave_without_storage
	mov %fs:SIGNAL_STORAGE_POINTER_GUARD, %rax
	cmp libpatch_signal_storage+SIGNAL_STORAGE_GUARDS+8(%rip), %rax
	jne signal_leave_without_storage
2:	mov libpatch_signal_belief@gottpoff(%rip), %rax
	mov libpatch_held_of_thread@gottpoff(%rip), %rcx
	mov libpatch_hook_guard@gottpoff(%rip), %rdx
	mov %fs:(%rcx), %esi
	or %fs:SIGNAL_HELD_SIZE(%rcx), %esi
	or libpatch_held_of_process(%rip), %esi
	or libpatch_held_of_process+SIGNAL_HELD_SIZE(%rip), %esi
	mov SIGNAL_CONTEXT_MASK(%rsp), %ecx
	and $SIGNAL_LEAVE_OWNED, %ecx
	or %rcx, %rsi
	or SIGNAL_CONTEXT_LINK(%rsp), %rsi
	or SIGNAL_CONTEXT_WORDS(%rsp), %rsi
	or %fs:SIGNAL_BELIEF_BLOCKED(%rax), %rsi
	or %fs:SIGNAL_BELIEF_CHILD(%rax), %rsi
	or %fs:PUT_OFF_GUARD_WORD(%rdx), %rsi
	jnz arch_signal_leave_blocked
	mov $SYS_rt_sigreturn, %eax
	OWN_SYSCALL
	.globl arch_signal_leave_begins, arch_signal_leave_blocked
	.hidden arch_signal_leave_begins, arch_signal_leave_blocked
arch_signal_leave_blocked:
	IF_FILTERED CONTEXT_SIZE(%rsp), signal_leave_filtered
	BLOCK_ALL
signal_blocked:
	mov %rsp, %rdi
	call signal_flags_for_c
	call libpatch_signal_leave
	.globl arch_signal_sigreturn
	.hidden arch_signal_sigreturn
arch_signal_sigreturn:
	mov $SYS_rt_sigreturn, %eax
	OWN_SYSCALL
	/* From signal_entry: what it pushed, and where the handler would have returned to. */
signal_return:
	lea 48(%rsp), %rsp
	jmp arch_signal_sigreturn
	/* The thread has what the handler began with for as long as it is told what it believes. */
signal_leave_without_storage:
	test $SIGNAL_STORAGE_ADDRESS, %ecx
	jz 1f
	rdfsbase %rbx
	lea signal_blocked_without_storage(%rip), %rcx
	IF_FILTERED CONTEXT_SIZE(%rsp), signal_block_filtered
	BLOCK_ALL
signal_blocked_without_storage:
	mov SIGNAL_CONTEXT_STORAGE(%rsp), %rax
	wrfsbase %rax
	mov %rsp, %rdi
	call signal_flags_for_c
	call libpatch_signal_leave
	wrfsbase %rbx
	jmp arch_signal_sigreturn
	/* It cannot be told. */
1:	andl $~SIGNAL_LEAVE_OWNED, SIGNAL_CONTEXT_MASK(%rsp)
	jmp arch_signal_sigreturn
signal_leave_filtered:
	lea signal_blocked(%rip), %rcx
	/* Everything is blocked, without rt_sigprocmask, and the thread goes on at rcx, with the same rbx. */
signal_block_filtered:
	mov %rsp, %rdi
	lea signal_all(%rip), %rdx
	sub $CONTEXT_SIZE, %rsp
	FRAME_OF_KERNEL CONTEXT_SIZE
	mov %rsp, %rsi
	mov %rbx, CONTEXT_RBX(%rsp)
	call signal_flags_for_c
	call arch_signal_frame_to_leave
	mov $SYS_rt_sigreturn, %eax
	OWN_SYSCALL
	.cfi_endproc
	.size arch_signal_restorers, . - arch_signal_restorers

	.section .rodata
	.balign 8
signal_all:
	.quad ~0x40000000 /* all but SIGSYS */

	.section .note.GNU-stack, "", @progbits
