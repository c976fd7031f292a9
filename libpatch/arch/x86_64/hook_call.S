/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hook_call.h says what these functions are for. Offsets in images: Intel SDM vol. 1, 10.5.1 and 13.4. The general
 * registers that a procedure may destroy are free: the hook has saved them.
 */
#ifdef __CET__
#include <cet.h>
#endif
#ifndef _CET_ENDBR
#define _CET_ENDBR
#endif

/* struct patch_exec_context */
#define CONTEXT_EXTENDED_STATES 0x90
/* struct call_layout */
#define LAYOUT_MASK libpatch_call_layout(%rip)
#define LAYOUT_MXCSR_MASK 4+libpatch_call_layout(%rip)
#define LAYOUT_OPMASK 8+libpatch_call_layout(%rip)
#define LAYOUT_ZMM_HI256 12+libpatch_call_layout(%rip)
#define LAYOUT_HI16_ZMM 16+libpatch_call_layout(%rip)

/* Room for an image: x87 to AVX-512, standard format, 2432 to 2688 bytes by processor. xsave.c checks. */
#define IMAGE_SIZE 2816
#define IMAGE_FCW 0
#define IMAGE_FSW 2
#define IMAGE_FTW 4
#define IMAGE_FIP 8
#define IMAGE_FDP 16
#define IMAGE_MXCSR 24
#define IMAGE_MXCSR_MASK 28
#define IMAGE_ST 32
#define IMAGE_XMM 160
/* Where the frame of a signal says what it holds (struct _fpx_sw_bytes, magic1): these are none. */
#define IMAGE_MAGIC 464
#define IMAGE_HEADER 512
#define IMAGE_AVX 576

/*
 * In the status word: condition codes, in the upper byte; those, the top of the stack, and that an exception is
 * pending.
 */
#define FSW_CODES 0x47
#define FSW_CODES_TOP_PENDING 0x7f80
/* What FXAM makes of the former for an empty register; C1 may be anything. */
#define FXAM_CODES 0x45
#define FXAM_EMPTY 0x41

#define REGISTERS_0_TO_15 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define REGISTERS_16_TO_31 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31

	.macro FUNCTION name
	.balign 16
	.globl \name
	.hidden \name
	.type \name, @function
\name:
	.cfi_startproc
	_CET_ENDBR
	push %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov %rsp, %rbp
	.cfi_def_cfa_register %rbp
	.endm

	.macro END name
	.cfi_endproc
	.size \name, . - \name
	.endm

	.macro RETURN
	leave
	.cfi_remember_state
	.cfi_def_cfa %rsp, 8
	.cfi_restore %rbp
	ret
	.cfi_restore_state
	.endm

	.text

FUNCTION libpatch_may_run
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	cld
	mov %rax, %rdi
	lea 16(%rbp), %rsi /* the frame's base */
	and $-16, %rsp
	call hook_threads_may_run
	lea -64(%rbp), %rsp
	xor $1, %al
	movzbl %al, %eax
	test %eax, %eax
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	RETURN
END libpatch_may_run

FUNCTION libpatch_call_aligned
	and $-16, %rsp
	call *(%rcx)
	RETURN
END libpatch_call_aligned

/* Images, up to AVX-512. */

/* In the frame: was the image filled the longer way? Then, control and status word. */
#define X87_IN_USE -8(%rbp)
#define UPPER_IN_USE -4(%rbp)
#define FCW_NOW -16(%rbp)
#define FSW_NOW -14(%rbp)
#define FSW_CODES_NOW -13(%rbp)

	.macro MAKE_IMAGE
	push $0
	sub $(IMAGE_SIZE + 8), %rsp
	and $-64, %rsp
	mov %rsp, CONTEXT_EXTENDED_STATES(%rdi)
	.endm

	/*
	 * Of each level: SAVE, after which xmm0 is 0 (ymm0, where it says 32); RESTORE; and SELDOM, what they jump to,
	 * behind the function's end.
	 */
	.macro SAVE_sse
	.irp i, REGISTERS_0_TO_15
	movaps %xmm\i, IMAGE_XMM + 16 * \i(%rsp)
	.endr
	xorps %xmm0, %xmm0
	.endm

	.macro SELDOM_sse
	.endm

	/*
	 * Mostly all is 0 above 128 bits, and written by half as many stores. Behind the last of the others it is in
	 * any case: then procedures with legacy SSE instructions are not slowed down.
	 */
	.macro SAVE_avx
	.irp i, REGISTERS_0_TO_15
	vmovaps %xmm\i, IMAGE_XMM + 16 * \i(%rsp)
	.endr
	vextractf128 $1, %ymm0, IMAGE_AVX(%rsp)
	vextractf128 $1, %ymm1, IMAGE_AVX + 16(%rsp)
	.irp i, 2, 4, 6, 8, 10, 12, 14
	vorps %ymm\i, %ymm0, %ymm0
	.endr
	.irp i, 3, 5, 7, 9, 11, 13, 15
	vorps %ymm\i, %ymm1, %ymm1
	.endr
	vorps %ymm1, %ymm0, %ymm0
	vextractf128 $1, %ymm0, %xmm0
	vptest %xmm0, %xmm0
	jnz 11f
	.irp i, 0, 2, 4, 6, 8, 10, 12, 14
	vmovaps %ymm0, IMAGE_AVX + 16 * \i(%rsp)
	.endr
12:
	.endm

	.macro SELDOM_avx
11:	.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vextractf128 $1, %ymm\i, IMAGE_AVX + 16 * \i(%rsp)
	.endr
	movl $1, UPPER_IN_USE
	vxorps %xmm0, %xmm0, %xmm0
	jmp 12b
	.endm

	.macro SAVE_avx512
	mov LAYOUT_OPMASK, %eax
	mov LAYOUT_ZMM_HI256, %edx
	mov LAYOUT_HI16_ZMM, %r8d
	add %rsp, %rax
	add %rsp, %rdx
	add %rsp, %r8
	.irp i, REGISTERS_0_TO_15
	vmovaps %xmm\i, IMAGE_XMM + 16 * \i(%rsp)
	vextractf128 $1, %ymm\i, IMAGE_AVX + 16 * \i(%rsp)
	vextractf64x4 $1, %zmm\i, 32 * \i(%rdx)
	.endr
	.irp i, REGISTERS_16_TO_31
	vmovups %zmm\i, 64 * (\i - 16)(%r8)
	.endr
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq %k\i, 8 * \i(%rax)
	.endr
	vxorps %xmm0, %xmm0, %xmm0
	.endm

	.macro SELDOM_avx512
	.endm

	/* Zero from ymm0 or xmm0, at a multiple of 64. */
	.macro ZERO_64 at, width
	.if \width == 32
	vmovaps %ymm0, \at(%rsp)
	vmovaps %ymm0, \at + 32(%rsp)
	.else
	movaps %xmm0, \at(%rsp)
	movaps %xmm0, \at + 16(%rsp)
	movaps %xmm0, \at + 32(%rsp)
	movaps %xmm0, \at + 48(%rsp)
	.endif
	.endm

	.macro FILL_HEADER width, components
	stmxcsr IMAGE_MXCSR(%rsp)
	mov LAYOUT_MXCSR_MASK, %eax
	mov %eax, IMAGE_MXCSR_MASK(%rsp)
	ZERO_64 IMAGE_HEADER, \width
	movl $0, IMAGE_MAGIC(%rsp)
	movl $\components, IMAGE_HEADER(%rsp)
	.endm

	.macro RESTORE_sse
	.irp i, REGISTERS_0_TO_15
	movaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	.endm

	/*
	 * When all is 0 above 128 bits it must become so in a way that processors notice: those that do not would make
	 * each legacy SSE instruction of the program depend on the register's old value. Loads are as wide as the
	 * stores, which are forwarded then.
	 */
	.macro RESTORE_avx
	cmpl $0, UPPER_IN_USE
	jne 21f
	vmovaps IMAGE_AVX(%rsp), %ymm0
	vmovaps IMAGE_AVX + 32(%rsp), %ymm1
	.irp i, 2, 4, 6
	vorps IMAGE_AVX + 32 * \i(%rsp), %ymm0, %ymm0
	vorps IMAGE_AVX + 32 * \i + 32(%rsp), %ymm1, %ymm1
	.endr
	vorps %ymm1, %ymm0, %ymm0
	vptest %ymm0, %ymm0
	jnz 21f
	vzeroupper
	RESTORE_sse
	RETURN
21:	.irp i, REGISTERS_0_TO_15
	vmovaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	vinsertf128 $1, IMAGE_AVX + 16 * \i(%rsp), %ymm\i, %ymm\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	.endm

	.macro RESTORE_avx512
	mov LAYOUT_OPMASK, %eax
	mov LAYOUT_ZMM_HI256, %edx
	mov LAYOUT_HI16_ZMM, %r8d
	add %rsp, %rax
	add %rsp, %rdx
	add %rsp, %r8
	.irp i, REGISTERS_16_TO_31
	vmovups 64 * (\i - 16)(%r8), %zmm\i
	.endr
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq 8 * \i(%rax), %k\i
	.endr
	vmovaps IMAGE_AVX(%rsp), %xmm0
	vmovaps IMAGE_AVX + 16(%rsp), %xmm1
	.irp i, 2, 4, 6, 8, 10, 12, 14
	vorps IMAGE_AVX + 16 * \i(%rsp), %xmm0, %xmm0
	vorps IMAGE_AVX + 16 * \i + 16(%rsp), %xmm1, %xmm1
	.endr
	.irp i, 0, 2, 4, 6, 8, 10, 12, 14
	vorps 32 * \i(%rdx), %ymm0, %ymm0
	vorps 32 * \i + 32(%rdx), %ymm1, %ymm1
	.endr
	vorps %ymm1, %ymm0, %ymm0
	vptest %ymm0, %ymm0
	jnz 21f
	vzeroupper
	RESTORE_sse
	RETURN
21:	.irp i, REGISTERS_0_TO_15
	vmovaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	vinsertf128 $1, IMAGE_AVX + 16 * \i(%rsp), %ymm\i, %ymm\i
	vinsertf64x4 $1, 32 * \i(%rdx), %zmm\i, %zmm\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	.endm

	/* Behind it all is 0 above 128 bits. */
	.macro CLEAR_UPPER width
	.if \width == 32
	vzeroupper
	.endif
	.endm

	.macro VECTORS name, level, width, components
FUNCTION \name
	MAKE_IMAGE
	SAVE_\level
	FILL_HEADER \width, \components
	CLEAR_UPPER \width
	call *(%rcx)
	RESTORE_\level
	RETURN
	SELDOM_\level
END \name
	.endm

	VECTORS libpatch_call_sse, sse, 16, 0x02
	VECTORS libpatch_call_avx, avx, 32, 0x06
	VECTORS libpatch_call_avx512, avx512, 32, 0xe6

/* Images with x87 state. */

	/*
	 * FXSAVE takes longer than all moves together, and is not needed while the stack is empty. It is not when its
	 * top is not 0, or when FXAM finds the first register in use, which they all are in MMX mode. FXAM changes the
	 * condition codes, so they must be 0, and are made so again by a comparison of two numbers; and it raises a
	 * pending exception, so that there must be none. FNSTSW is what all this costs; it is faster to memory than to
	 * ax.
	 */
	.macro SAVE_X87
	fnstcw IMAGE_FCW(%rsp)
	fnstsw IMAGE_FSW(%rsp)
	movzwl IMAGE_FSW(%rsp), %eax
	test $FSW_CODES_TOP_PENDING, %eax
	jnz 31f
	fxam
	fnstsw FSW_NOW
	movzbl FSW_CODES_NOW, %eax
	and $FXAM_CODES, %eax
	cmp $FXAM_EMPTY, %eax
	jne 32f
	fldz
	fld1
	fcompp
33:
	.endm

	.macro SELDOM_X87
31:	fxsave64 (%rsp)
	movl $1, X87_IN_USE
	jmp 33b
32:	fxsave64 (%rsp)
	andb $~FSW_CODES, IMAGE_FSW + 1(%rsp)
	movl $1, X87_IN_USE
	jmp 33b
35:	fxrstor64 (%rsp)
	jmp 36b
	.endm

	.macro FILL_X87 width
	cmpl $0, X87_IN_USE
	jne 34f
	movl $0, IMAGE_FTW(%rsp)
	movq $0, IMAGE_FIP(%rsp)
	movq $0, IMAGE_FDP(%rsp)
	ZERO_64 IMAGE_ST, \width
	ZERO_64 IMAGE_ST + 64, \width
34:
	.endm

	/* ZF: are the registers 0 in the image? */
	.macro TEST_ST width
	.if \width == 32
	vmovaps IMAGE_ST(%rsp), %ymm0
	vmovaps IMAGE_ST + 32(%rsp), %ymm1
	vorps IMAGE_ST + 64(%rsp), %ymm0, %ymm0
	vorps IMAGE_ST + 96(%rsp), %ymm1, %ymm1
	vorps %ymm1, %ymm0, %ymm0
	vptest %ymm0, %ymm0
	.else
	mov IMAGE_ST(%rsp), %rax
	mov IMAGE_ST + 8(%rsp), %rdx
	.irp i, 1, 2, 3, 4, 5, 6, 7
	or IMAGE_ST + 16 * \i(%rsp), %rax
	or IMAGE_ST + 16 * \i + 8(%rsp), %rdx
	.endr
	or %rdx, %rax
	.endif
	.endm

	/*
	 * Nothing to do when the stack was empty, is so in the image, and still is: a procedure ends with an empty one,
	 * but may have left MMX mode on. Else all of the legacy region comes back.
	 */
	.macro RESTORE_X87 width
	cmpl $0, X87_IN_USE
	jne 35f
	fnstcw FCW_NOW
	fnstsw FSW_NOW
	movzwl FSW_NOW, %eax
	movzwl FCW_NOW, %edx
	cmp %ax, IMAGE_FSW(%rsp)
	jne 35f
	cmp %dx, IMAGE_FCW(%rsp)
	jne 35f
	mov IMAGE_FTW(%rsp), %eax
	or IMAGE_FIP(%rsp), %rax
	or IMAGE_FDP(%rsp), %rax
	jnz 35f
	TEST_ST \width
	jnz 35f
	emms
36:
	.endm

	.macro EVERYTHING name, level, width, components
FUNCTION \name
	MAKE_IMAGE
	SAVE_X87
	SAVE_\level
	FILL_HEADER \width, \components
	FILL_X87 \width
	CLEAR_UPPER \width
	call *(%rcx)
	RESTORE_X87 \width
	RESTORE_\level
	RETURN
	SELDOM_X87
	SELDOM_\level
END \name
	.endm

	EVERYTHING libpatch_call_all_sse, sse, 16, 0x03
	EVERYTHING libpatch_call_all_avx, avx, 32, 0x07
	EVERYTHING libpatch_call_all_avx512, avx512, 32, 0xe7

FUNCTION libpatch_call_xsave
	MAKE_IMAGE
	/* XSAVE writes the first word of the header, XRSTOR faults unless the rest is 0 (Intel SDM vol. 1, 13.4.2). */
	xor %eax, %eax
	.irp i, 1, 2, 3, 4, 5, 6, 7
	mov %rax, IMAGE_HEADER + 8 * \i(%rsp)
	.endr
	mov %rax, IMAGE_MAGIC(%rsp)
	xor %edx, %edx
	mov LAYOUT_MASK, %eax
	xsave64 (%rsp)
	/*
	 * It writes every component asked for, also those in their initial state (13.7), but does not mark those: mark
	 * all, so that what the procedure writes to them is restored.
	 */
	mov %rax, IMAGE_HEADER(%rsp)
	call *(%rcx)
	xor %edx, %edx
	mov LAYOUT_MASK, %eax
	xrstor64 (%rsp)
	RETURN
END libpatch_call_xsave

	.section .note.GNU-stack, "", @progbits
