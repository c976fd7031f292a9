/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hook that did not find the thread's own stack free: arch/own_stack.h says where it goes on. There is no stack until
 * then, so that registers are kept in the struct own_stack, once the thread has one, and everything is done without
 * flags until they are kept there. own_stack.c undoes all of it, from each instruction: the labels are for that.
 */
#include "arch/x86_64/hook_frame.h"
#include "arch/x86_64/own_stack.h"
#include "arch/x86_64/own_syscall.h"

#ifdef __CET__
#include <cet.h>
#endif
#ifndef _CET_ENDBR
#define _CET_ENDBR
#endif

	.set SYS_getpid, 39
	.set SYS_sigaltstack, 131
	.set SS_ONSTACK, 1
	.set RED_ZONE, 128
	.set GUARD_UNKNOWN, -2

	.macro PLACE name
	.globl \name
	.hidden \name
\name:
	.endm

	.text
	.balign 16
	.globl libpatch_own_stack
	.hidden libpatch_own_stack
	.type libpatch_own_stack, @function
libpatch_own_stack:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_undefined %rip
	_CET_ENDBR
	PLACE arch_own_stack_asked
	mov OWN_SELF(%rcx), %rcx
	jrcxz 1f
	jmp 2f
1:	jmp 7f
2:	mov %rax, OWN_RAX(%rcx)
	mov %rdx, OWN_RDX(%rcx)
	PLACE arch_own_stack_kept
	mov libpatch_hook_guard@gottpoff(%rip), %rax
	mov %fs:GUARD_WORD_OWN(%rax), %rdx
	mov %rdx, OWN_LANDING(%rcx)
	mov %rcx, OWN_SELF(%rcx)
	mov %rcx, %fs:GUARD_WORD_OWN(%rax)
	PLACE arch_own_stack_owned
	mov %rax, %rdx
	lahf
	seto %al
	mov %rax, OWN_FLAGS(%rcx)
	PLACE arch_own_stack_flags_kept
	mov %rcx, %rax
	sub %rsp, %rax
	cmp libpatch_own_size(%rip), %rax
	jb inside

	mov %rdi, OWN_RDI(%rcx)
	mov %rsi, OWN_RSI(%rcx)
	mov %r11, OWN_R11(%rcx)
	PLACE arch_own_stack_asks
	lea OWN_SIGNALS(%rcx), %rsi
	xor %edi, %edi
	mov $SYS_sigaltstack, %eax
	OWN_SYSCALL
	mov $SYS_getpid, %eax
	OWN_SYSCALL
	lea -OWN_SIGNALS(%rsi), %rcx
	mov libpatch_process_own(%rip), %edi /* `owner`, or 0: a child with a copy of the memory */
	test %edi, %edi
	jz 3f
	cmp %edi, %eax
3:	mov OWN_RDI(%rcx), %rdi
	mov OWN_RSI(%rcx), %rsi
	mov OWN_R11(%rcx), %r11
	PLACE arch_own_stack_asked_all
	jne inside
	testl $SS_ONSTACK, OWN_SIGNALS_FLAGS(%rcx)
	jnz inside

	/* It is to be adopted: as the thread's first hook, this one asks the library whether it may run. */
	cmpq $0, OWN_ADOPTED(%rcx)
	jne 4f
	cmpq $0, %fs:(%rdx)
	jne 4f
	movq $GUARD_UNKNOWN, %fs:(%rdx)
4:	lea -ARCH_OWN_FRAME_FREE(%rcx), %rax
	jmp 5f

inside:
	lea -(RED_ZONE + ARCH_OWN_FRAME_SIZE)(%rsp), %rax
	and $-16, %rax

	/* The last jump goes through a word of the frame. */
5:	mov OWN_LANDING(%rcx), %rdx
	lea OWN_LANDING_GO(%rdx), %rdx
	mov %rdx, ARCH_HOOK_FRAME_RECORD(%rax)
	mov %rax, OWN_BASE(%rcx)
	mov OWN_FLAGS(%rcx), %rax
	add $0x7f, %al
	sahf
	mov OWN_RDX(%rcx), %rdx
	mov OWN_RAX(%rcx), %rax
	mov OWN_BASE(%rcx), %rcx
	jmp *ARCH_HOOK_FRAME_RECORD(%rcx)

	/* rcx is 0 here, and a stack that was spare, or 0, behind each exchange. */
	PLACE arch_own_stack_spares
7:	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	xchg %rcx, libpatch_own_spares + 8 * \i(%rip)
	jrcxz 6f
	jmp 2b
6:
	.endr

	/* None is spare for now: who took the others makes more. There are no registers for a system call. */
	PLACE arch_own_stack_waits
	mov libpatch_own_patience(%rip), %rcx
	jrcxz 8f
	lea -1(%rcx), %rcx
	mov %rcx, libpatch_own_patience(%rip)
	pause
	mov $0, %ecx
	jmp 7b
8:	mov libpatch_own_missed(%rip), %rcx
	lea 1(%rcx), %rcx
	mov %rcx, libpatch_own_missed(%rip)
	mov libpatch_hook_guard@gottpoff(%rip), %rcx
	PLACE arch_own_stack_none
	jmp *%fs:GUARD_WORD_OWN(%rcx)
	PLACE arch_own_stack_end
	.cfi_endproc
	.size libpatch_own_stack, . - libpatch_own_stack

	.section .note.GNU-stack, "", @progbits
