/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The floors: what a probe at a jump costs when somebody writes it by hand, for one site, ahead of time. Sites are
 * those of targets.S with a jmp over the first instruction, which the stub executes before it jumps back.
 *
 * The duties of CALL stubs are those of a libpatch probe: the red zone is left alone; RFLAGS are kept, and offered; a
 * guard in thread-local storage is tested, set and cleared; errno (a thread-local word) is kept; DF is clear; the
 * nine registers that a procedure may destroy are kept; a struct patch_exec_context is filled; an empty C procedure
 * is called through a pointer, on an aligned stack. They differ in
 *   flags      popf: restored by popf.  sahf: by sahf and an addition, DF only when it was set
 *   registers  caller: as above.  all: all fifteen are offered in the context, and taken from it afterwards
 *   vector     none, xmm: 16 of them and MXCSR, ymm: the same, zmm: 32, 8 masks and MXCSR; each at extended_states
 *   x87        none.  x87: control and status word are kept, and offered; that the stack is empty, as mostly, is looked
 *              for, in the way that takes least time, before and afterwards; else FXSAVE
 */
#include "targets.inc"

#define RED_ZONE 128
#define ERRNO 8
#define SHORT_FLAGS 12
#define OWN_RBP 16
#define SAVED 24
#define SAVED_RAX SAVED
#define CONTEXT 96
#define CONTEXT_REGISTERS (CONTEXT + 0x10)
#define CONTEXT_USER_DATA (CONTEXT + 0x88)
#define CONTEXT_EXTENDED (CONTEXT + 0x90)
#define CONTEXT_STATUS (CONTEXT + 0x98)
#define FRAME 256
#define DIRECTION_FLAG 0x400

	.section .tbss, "awT", @nobits
	.p2align 3
bench_guard:
	.zero	8
bench_errno:
	.zero	8

	.data
	.p2align 6
	.globl	bench_procedure
bench_procedure:
	.quad	bench_empty
bench_user_data:
	.quad	bench_user_data
	.globl	bench_stub_count
	.p2align 6
bench_stub_count:
	.quad	0
	.zero	56

	.text

	.set	VECTORS_xmm, 320
	.set	VECTORS_ymm, 576
	.set	VECTORS_zmm, 2176

.macro SAVE_VECTOR kind
.ifc \kind, xmm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movaps	%xmm\i, 16*\i(%rsp)
	.endr
	stmxcsr	256(%rsp)
.endif
.ifc \kind, ymm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	vmovaps	%ymm\i, 32*\i(%rsp)
	.endr
	stmxcsr	512(%rsp)
.endif
.ifc \kind, zmm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vmovaps	%zmm\i, 64*\i(%rsp)
	.endr
	.irp	i, 0,1,2,3,4,5,6,7
	kmovq	%k\i, 2048+8*\i(%rsp)
	.endr
	stmxcsr	2112(%rsp)
.endif
.endm

.macro RESTORE_VECTOR kind
.ifc \kind, xmm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	movaps	16*\i(%rsp), %xmm\i
	.endr
	ldmxcsr	256(%rsp)
.endif
.ifc \kind, ymm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	vmovaps	32*\i(%rsp), %ymm\i
	.endr
	ldmxcsr	512(%rsp)
.endif
.ifc \kind, zmm
	.irp	i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	vmovaps	64*\i(%rsp), %zmm\i
	.endr
	.irp	i, 0,1,2,3,4,5,6,7
	kmovq	2048+8*\i(%rsp), %k\i
	.endr
	ldmxcsr	2112(%rsp)
.endif
.endm

/*
 * Is the stack empty? Its top is 0, and FXAM, for which there must be no condition code to be lost nor an exception
 * pending, says so of the first register. Two numbers compared make the codes 0 again. FXSAVE's image is at `at`, above
 * the vectors; then: was it needed, and words read.
 */
#define X87_BUSY 512
#define X87_CONTROL 516
#define X87_STATUS 520
#define X87_SIZE 576
.macro SAVE_X87 at
	movl	$0, \at+X87_BUSY(%rsp)
	fnstcw	\at(%rsp)
	fnstsw	\at+2(%rsp)
	movzwl	\at+2(%rsp), %eax
	testl	$0x7f80, %eax
	jnz	80f
	fxam
	fnstsw	\at+X87_STATUS(%rsp)
	movzbl	\at+X87_STATUS+1(%rsp), %eax
	andl	$0x45, %eax
	cmpl	$0x41, %eax
	jne	81f
	fldz
	fld1
	fcompp
82:
.endm

.macro RESTORE_X87 at
	cmpl	$0, \at+X87_BUSY(%rsp)
	jne	83f
	fnstcw	\at+X87_CONTROL(%rsp)
	fnstsw	\at+X87_STATUS(%rsp)
	movzwl	\at+X87_CONTROL(%rsp), %eax
	cmpw	%ax, \at(%rsp)
	jne	83f
	movzwl	\at+X87_STATUS(%rsp), %eax
	cmpw	%ax, \at+2(%rsp)
	jne	83f
	emms
84:
.endm

.macro SELDOM_X87 at
81:	fxsave64 \at(%rsp)
	andb	$~0x47, \at+3(%rsp)
	jmp	85f
80:	fxsave64 \at(%rsp)
85:	movl	$1, \at+X87_BUSY(%rsp)
	jmp	82b
83:	fxrstor64 \at(%rsp)
	jmp	84b
.endm

/* All the duties; `passed over` when a procedure of the thread runs already. Falls through behind them. */
.macro CALL_PROCEDURE site, flags, registers, vector, x87=none
	leaq	-(RED_ZONE + FRAME - 8)(%rsp), %rsp
	pushfq
	movq	%rax, SAVED_RAX(%rsp)
.ifc \flags, sahf
	lahf
	seto	%al
	movl	%eax, SHORT_FLAGS(%rsp)
	testl	$DIRECTION_FLAG, (%rsp)
	jnz	97f
90:
.endif
	movq	%fs:bench_guard@tpoff, %rax
	testq	%rax, %rax
	jnz	98f
	movq	%rsp, %fs:bench_guard@tpoff
	movl	%fs:bench_errno@tpoff, %eax
	movl	%eax, ERRNO(%rsp)
.ifc \flags, popf
	cld
.endif
.ifc \registers, all
	movq	SAVED_RAX(%rsp), %rax
	movq	%rax, CONTEXT_REGISTERS+0(%rsp)
	movq	%rbx, CONTEXT_REGISTERS+8(%rsp)
	movq	%rcx, CONTEXT_REGISTERS+16(%rsp)
	movq	%rdx, CONTEXT_REGISTERS+24(%rsp)
	movq	%rsi, CONTEXT_REGISTERS+32(%rsp)
	movq	%rdi, CONTEXT_REGISTERS+40(%rsp)
	movq	%rbp, CONTEXT_REGISTERS+48(%rsp)
	movq	%r8, CONTEXT_REGISTERS+56(%rsp)
	movq	%r9, CONTEXT_REGISTERS+64(%rsp)
	movq	%r10, CONTEXT_REGISTERS+72(%rsp)
	movq	%r11, CONTEXT_REGISTERS+80(%rsp)
	movq	%r12, CONTEXT_REGISTERS+88(%rsp)
	movq	%r13, CONTEXT_REGISTERS+96(%rsp)
	movq	%r14, CONTEXT_REGISTERS+104(%rsp)
	movq	%r15, CONTEXT_REGISTERS+112(%rsp)
.else
	movq	%rbp, OWN_RBP(%rsp)
	movq	%rcx, SAVED+8(%rsp)
	movq	%rdx, SAVED+16(%rsp)
	movq	%rsi, SAVED+24(%rsp)
	movq	%rdi, SAVED+32(%rsp)
	movq	%r8, SAVED+40(%rsp)
	movq	%r9, SAVED+48(%rsp)
	movq	%r10, SAVED+56(%rsp)
	movq	%r11, SAVED+64(%rsp)
.endif
	leaq	\site(%rip), %rax
	movq	%rax, CONTEXT(%rsp)
	leaq	RED_ZONE+FRAME(%rsp), %rax
	movq	%rax, CONTEXT+8(%rsp)
	movq	bench_user_data(%rip), %rax
	movq	%rax, CONTEXT_USER_DATA(%rsp)
	movq	(%rsp), %rax
	movq	%rax, CONTEXT_STATUS(%rsp)
	leaq	CONTEXT(%rsp), %rdi
	xorl	%esi, %esi
	movq	%rsp, %rbp
.ifc \vector, none
	movq	$0, CONTEXT_EXTENDED(%rsp)
	andq	$-16, %rsp
.else
	andq	$-64, %rsp
.ifc \x87, none
	subq	$VECTORS_\vector, %rsp
.else
	subq	$VECTORS_\vector+X87_SIZE, %rsp
	SAVE_X87 VECTORS_\vector
.endif
	SAVE_VECTOR \vector
	movq	%rsp, CONTEXT_EXTENDED(%rbp)
.endif
	call	*bench_procedure(%rip)
.ifc \x87, x87
	RESTORE_X87 VECTORS_\vector
.endif
	RESTORE_VECTOR \vector
	movq	%rbp, %rsp
	movl	ERRNO(%rsp), %eax
	movl	%eax, %fs:bench_errno@tpoff
	movq	$0, %fs:bench_guard@tpoff
.ifc \registers, all
	movq	CONTEXT_REGISTERS+0(%rsp), %rax
	movq	%rax, SAVED_RAX(%rsp)
	movq	CONTEXT_REGISTERS+8(%rsp), %rbx
	movq	CONTEXT_REGISTERS+16(%rsp), %rcx
	movq	CONTEXT_REGISTERS+24(%rsp), %rdx
	movq	CONTEXT_REGISTERS+32(%rsp), %rsi
	movq	CONTEXT_REGISTERS+40(%rsp), %rdi
	movq	CONTEXT_REGISTERS+48(%rsp), %rbp
	movq	CONTEXT_REGISTERS+56(%rsp), %r8
	movq	CONTEXT_REGISTERS+64(%rsp), %r9
	movq	CONTEXT_REGISTERS+72(%rsp), %r10
	movq	CONTEXT_REGISTERS+80(%rsp), %r11
	movq	CONTEXT_REGISTERS+88(%rsp), %r12
	movq	CONTEXT_REGISTERS+96(%rsp), %r13
	movq	CONTEXT_REGISTERS+104(%rsp), %r14
	movq	CONTEXT_REGISTERS+112(%rsp), %r15
.else
	movq	OWN_RBP(%rsp), %rbp
	movq	SAVED+8(%rsp), %rcx
	movq	SAVED+16(%rsp), %rdx
	movq	SAVED+24(%rsp), %rsi
	movq	SAVED+32(%rsp), %rdi
	movq	SAVED+40(%rsp), %r8
	movq	SAVED+48(%rsp), %r9
	movq	SAVED+56(%rsp), %r10
	movq	SAVED+64(%rsp), %r11
.endif
98:
.ifc \flags, popf
	movq	SAVED_RAX(%rsp), %rax
	popfq
	leaq	RED_ZONE+FRAME-8(%rsp), %rsp
.else
	testl	$DIRECTION_FLAG, (%rsp)
	jnz	96f
91:
	movl	SHORT_FLAGS(%rsp), %eax
	addb	$0x7f, %al
	sahf
	movq	SAVED_RAX(%rsp), %rax
	leaq	RED_ZONE+FRAME(%rsp), %rsp
.endif
	jmp	99f
.ifc \flags, sahf
96:	std
	jmp	91b
97:	cld
	jmp	90b
.endif
.ifc \x87, x87
	SELDOM_X87 VECTORS_\vector
.endif
99:
.endm

/* A patched ENTRY, and a stub with `code` in it. */
.macro ENTRY_WITH_STUB name, code:vararg
	FUNCTION \name
	jmp	\name\()_stub
\name\()_back:
	leal	1(%rax), %eax
	ret
	END \name

	.p2align 6
	.globl	\name\()_stub, \name\()_stub_end
\name\()_stub:
	\code
	movl	$1, %eax
	jmp	\name\()_back
\name\()_stub_end:
.endm

.macro MIDDLE_WITH_STUB name, code:vararg
	FUNCTION \name
	leal	3(%rdi), %ecx
	xorl	$5, %ecx
\name\()_jump:
	jmp	\name\()_stub
	nop
\name\()_back:
	setz	%cl
	ret
	END \name

	.p2align 6
\name\()_stub:
	\code
	leal	0x1234567(%rcx), %eax
	jmp	\name\()_back
.endm

	ENTRY_WITH_STUB bench_stub_jump
	ENTRY_WITH_STUB bench_stub_inc, incq bench_stub_count(%rip)
	ENTRY_WITH_STUB bench_stub_lock_inc, lock incq bench_stub_count(%rip)
	ENTRY_WITH_STUB bench_stub_popf, CALL_PROCEDURE bench_stub_popf, popf, caller, none
	ENTRY_WITH_STUB bench_stub_sahf, CALL_PROCEDURE bench_stub_sahf, sahf, caller, none
	ENTRY_WITH_STUB bench_stub_all_gpr, CALL_PROCEDURE bench_stub_all_gpr, sahf, all, none
	ENTRY_WITH_STUB bench_stub_xmm, CALL_PROCEDURE bench_stub_xmm, sahf, caller, xmm
	ENTRY_WITH_STUB bench_stub_all_xmm, CALL_PROCEDURE bench_stub_all_xmm, sahf, all, xmm
	ENTRY_WITH_STUB bench_stub_all_x87_xmm, CALL_PROCEDURE bench_stub_all_x87_xmm, sahf, all, xmm, x87
	ENTRY_WITH_STUB bench_stub_ymm, CALL_PROCEDURE bench_stub_ymm, sahf, caller, ymm
	ENTRY_WITH_STUB bench_stub_all_ymm, CALL_PROCEDURE bench_stub_all_ymm, sahf, all, ymm
	ENTRY_WITH_STUB bench_stub_all_x87_ymm, CALL_PROCEDURE bench_stub_all_x87_ymm, sahf, all, ymm, x87
	ENTRY_WITH_STUB bench_stub_zmm, CALL_PROCEDURE bench_stub_zmm, sahf, caller, zmm
	ENTRY_WITH_STUB bench_stub_all_zmm, CALL_PROCEDURE bench_stub_all_zmm, sahf, all, zmm
	ENTRY_WITH_STUB bench_stub_all_x87_zmm, CALL_PROCEDURE bench_stub_all_x87_zmm, sahf, all, zmm, x87
	MIDDLE_WITH_STUB bench_stub_middle, CALL_PROCEDURE bench_stub_middle_jump, sahf, caller, none

/* A PROLOGUE, its four instructions displaced. */
	FUNCTION bench_stub_prologue
	jmp	bench_stub_prologue_stub
	nop
bench_stub_prologue_back:
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret
	END bench_stub_prologue

	.p2align 6
bench_stub_prologue_stub:
	CALL_PROCEDURE bench_stub_prologue, sahf, caller, none
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	jmp	bench_stub_prologue_back

/* The floor of a trap: the handler of hit-floor.c goes to bench_trap_stub. */
	FUNCTION bench_trap
	int3
	nop
	nop
	nop
	nop
bench_trap_back:
	leal	1(%rax), %eax
	ret
	END bench_trap

	.p2align 6
	.globl	bench_trap_stub
bench_trap_stub:
	movl	$1, %eax
	jmp	bench_trap_back

	.section .note.GNU-stack, "", @progbits
