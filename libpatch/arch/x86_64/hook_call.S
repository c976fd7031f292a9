/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hook_call.h says what these functions are for. Offsets in images: Intel SDM vol. 1, 10.5.1 and 13.4. The general
 * registers that a procedure may destroy are free: the hook has saved them.
 */
#include "arch/x86_64/hook_frame.h"

#ifdef __CET__
#include <cet.h>
#endif
#ifndef _CET_ENDBR
#define _CET_ENDBR
#endif

/* struct patch_exec_context, by itself and in a frame */
#define CONTEXT_EXTENDED_STATES 0x90
#define FRAME_PROGRAM_COUNTER (ARCH_HOOK_FRAME_CONTEXT)
#define FRAME_STACK_POINTER (ARCH_HOOK_FRAME_CONTEXT + 8)
/* struct call_layout */
#define LAYOUT_MASK libpatch_call_layout(%rip)
#define LAYOUT_MXCSR_MASK 4+libpatch_call_layout(%rip)
#define LAYOUT_OPMASK 8+libpatch_call_layout(%rip)
#define LAYOUT_ZMM_HI256 12+libpatch_call_layout(%rip)
#define LAYOUT_HI16_ZMM 16+libpatch_call_layout(%rip)

/* Room for an image: up to SSE, up to AVX, and up to AVX-512, 2432 to 2688 bytes by processor. xsave.c checks. */
	.set SIZE_sse, 640
	.set SIZE_avx, 896
	.set SIZE_avx512, 2816
#define IMAGE_FCW 0
#define IMAGE_FSW 2
#define IMAGE_FTW 4
#define IMAGE_MXCSR 24
#define IMAGE_MXCSR_MASK 28
#define IMAGE_XMM 160
/* Where the frame of a signal says what it holds (struct _fpx_sw_bytes): CALL_MARK, and components. */
#define IMAGE_MARK 464
#define IMAGE_COMPONENTS 468
#define IMAGE_HEADER 512
#define IMAGE_AVX 576

/* In the header. */
#define X87_BIT 0x01
#define AVX_BIT 0x04
#define ZMM_HI256_BIT 0x40

/* In the status word: an exception is pending; the top of the stack, which is 0 in MMX mode, and EMMS may make 0. */
#define FSW_PENDING 0x80
#define FSW_TOP 0x3800

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

	/*
	 * A question to the library in C, which gets `first` and the frame's base; every register but rax is kept, and
	 * described: the hook has not saved them yet. ZF and rax: 0 when the answer is true.
	 */
	.macro ASK name, function, first
FUNCTION \name
	push %rcx
	.cfi_offset %rcx, -24
	push %rdx
	.cfi_offset %rdx, -32
	push %rsi
	.cfi_offset %rsi, -40
	push %rdi
	.cfi_offset %rdi, -48
	push %r8
	.cfi_offset %r8, -56
	push %r9
	.cfi_offset %r9, -64
	push %r10
	.cfi_offset %r10, -72
	push %r11
	.cfi_offset %r11, -80
	cld
	mov \first, %rdi
	lea 16(%rbp), %rsi /* the frame's base */
	and $-16, %rsp
	call \function
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
END \name
	.endm

	ASK libpatch_may_run, hook_threads_may_run, %rax
	ASK libpatch_find_pair, hook_pairs_find, %rcx
	ASK libpatch_find_pair_at, hook_pairs_find_at, %rcx
	ASK libpatch_make_room, hook_pairs_make_room, %rcx
	ASK libpatch_pass_pair, hook_pairs_pass, %rcx
	ASK libpatch_forget_pair, hook_pairs_forget, %rcx
	ASK libpatch_find_shadow, shadow_find, %rdx
	ASK libpatch_pass_exit, shadow_forget, %rcx

/* What is put below the new stack pointer's red zone, from the lowest word: rax, flags, program counter. */
#define MOVE_PC 136
#define MOVE_FLAGS 144
#define MOVE_RAX 152
#define RED_ZONE 128

	/*
	 * A word below either stack is a signal's until the stack pointer is below it: first to below both, then to the
	 * new one. The unwind description is that of a signal's frame: the caller is the program, where it goes on.
	 */
	.balign 16
	.globl libpatch_move
	.hidden libpatch_move
	.type libpatch_move, @function
libpatch_move:
	.cfi_startproc
	.cfi_signal_frame
	_CET_ENDBR
	/* CFA: *(rsp + FRAME_STACK_POINTER); rip: at rsp + FRAME_PROGRAM_COUNTER */
	.cfi_escape 0x0f, 4, 0x77, 0x98, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x90, 0x01
	mov FRAME_STACK_POINTER(%rsp), %rax
	sub $MOVE_RAX, %rax
	cmp %rsp, %rax
	cmova %rsp, %rax
	xchg %rsp, %rax
	.cfi_escape 0x0f, 4, 0x70, 0x98, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x70, 0x90, 0x01
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	mov FRAME_STACK_POINTER(%rax), %rdi
	mov FRAME_PROGRAM_COUNTER(%rax), %rcx
	mov ARCH_HOOK_FRAME_FLAGS(%rax), %rdx
	mov ARCH_HOOK_FRAME_REGISTERS(%rax), %rsi
	mov %rcx, -MOVE_PC(%rdi)
	mov %rdx, -MOVE_FLAGS(%rdi)
	mov %rsi, -MOVE_RAX(%rdi)
	lea -MOVE_RAX(%rdi), %rax
	.cfi_def_cfa %rax, MOVE_RAX
	.cfi_offset %rip, -MOVE_PC
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	mov %rax, %rsp
	.cfi_def_cfa %rsp, MOVE_RAX
	pop %rax
	.cfi_def_cfa_offset MOVE_FLAGS
	popfq
	.cfi_def_cfa_offset MOVE_PC
	ret $RED_ZONE
	.cfi_endproc
	.size libpatch_move, . - libpatch_move

	/*
	 * From a thread's own stack: only the address goes below the program's red zone, and the stack pointer is there
	 * when the stack has been given back. The unwind description is that of libpatch_move.
	 */
	.balign 16
	.globl libpatch_move_from_own
	.hidden libpatch_move_from_own
	.type libpatch_move_from_own, @function
libpatch_move_from_own:
	.cfi_startproc
	.cfi_signal_frame
	_CET_ENDBR
	.cfi_escape 0x0f, 4, 0x77, 0x98, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x90, 0x01
	mov FRAME_PROGRAM_COUNTER(%rsp), %rax
	mov %rax, ARCH_OWN_FRAME_STACK_POINTER(%rsp)
	mov FRAME_STACK_POINTER(%rsp), %rax
	lea -MOVE_PC(%rax), %rax
	pushq ARCH_OWN_FRAME_STACK_POINTER(%rsp)
	.cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x98, 0x01
	popq (%rax)
	.cfi_escape 0x0f, 4, 0x77, 0x98, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x90, 0x01
	mov %rax, ARCH_OWN_FRAME_STACK_POINTER(%rsp)
	pushq ARCH_OWN_FRAME_FLAGS(%rsp)
	.cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x98, 0x01
	popfq
	.cfi_escape 0x0f, 4, 0x77, 0x98, 0x01, 0x06
	.cfi_escape 0x10, 16, 3, 0x77, 0x90, 0x01
	mov ARCH_HOOK_FRAME_REGISTERS(%rsp), %rax
	mov %rsp, ARCH_OWN_FRAME_FREE(%rsp)
	mov ARCH_OWN_FRAME_STACK_POINTER(%rsp), %rsp
	.cfi_def_cfa %rsp, MOVE_PC
	.cfi_offset %rip, -MOVE_PC
	ret $RED_ZONE
	.cfi_endproc
	.size libpatch_move_from_own, . - libpatch_move_from_own

FUNCTION libpatch_call_aligned
	and $-16, %rsp
	call *(%rcx)
	RETURN
END libpatch_call_aligned

/*
 * The state that the program has above the general purpose registers, up to AVX-512. It is kept on the stack, with the
 * layout of an XSAVE image. When it is offered, the image's header marks what is in it: what is in its initial state is
 * mostly left out, as XSAVEOPT does, until somebody asks for it (arch_xsave_component()).
 */

/* In the frame: a component's bit where it is in use, of those that mostly are not. Then, x87 words of now. */
#define IN_USE -8(%rbp)
#define FCW_NOW -16(%rbp)
#define FSW_NOW -12(%rbp)

	.macro MAKE_ROOM size
	push $0
	sub $(\size + 8), %rsp
	and $-64, %rsp
	.endm

	/*
	 * x87: FXSAVE alone says whether the registers are empty, all eight of them; and it takes less time than two
	 * FNSTSW and FXAM, which know the first register only. It fills the legacy region: xmm registers and MXCSR are
	 * in it then. A procedure may expect that the registers are empty, and that no exception is pending.
	 */
	.macro SAVE_X87
	fxsave64 (%rsp)
	EMPTY_X87
	.endm

	.macro EMPTY_X87
	cmpb $0, IMAGE_FTW(%rsp)
	jne 31f
	testb $FSW_PENDING, IMAGE_FSW(%rsp)
	jnz 31f
32:
	.endm

	.macro SELDOM_EMPTY_X87
31:	fninit
	fldcw IMAGE_FCW(%rsp)
	jmp 32b
	.endm

	/*
	 * Nothing to do while the registers are empty in the area, and the words in it are those of now: the procedure
	 * ends with empty registers, but may have left MMX mode on.
	 */
	.macro RESTORE_X87
	cmpb $0, IMAGE_FTW(%rsp)
	jne 35f
	fnstsw FSW_NOW
	fnstcw FCW_NOW
	movzwl FSW_NOW, %eax
	movzwl FCW_NOW, %edx
	cmp %ax, IMAGE_FSW(%rsp)
	jne 35f
	cmp %dx, IMAGE_FCW(%rsp)
	jne 35f
	test $FSW_TOP, %eax
	jnz 36f
	emms
36:
	.endm

	/* xmm registers are loaded once more, by who called this. */
	.macro SELDOM_RESTORE_X87
35:	fxrstor64 (%rsp)
	jmp 36b
	.endm

	/*
	 * At a function's entry, where the registers are empty, and to see the status word takes longer than anything
	 * else. The state is as it should be, unless the image holds another.
	 */
	.macro RESTORE_X87_ENTRY
	testl $X87_BIT, IMAGE_HEADER(%rsp)
	jnz 37f
36:
	.endm

	.macro SELDOM_RESTORE_X87_ENTRY
37:	fnstcw FCW_NOW
	movzwl FCW_NOW, %eax
	cmpl $0, IMAGE_FSW(%rsp) /* and IMAGE_FTW */
	jne 35f
	cmp %ax, IMAGE_FCW(%rsp)
	je 36b
	.endm

	/*
	 * Of each level: SAVE, behind which no upper half is in use; RESTORE; and SELDOM, what they jump to, behind the
	 * function's end. `fxsave`: the legacy region is filled. `offered`: the procedure sees the area.
	 */
	.macro SAVE_sse fxsave, offered
	.ifeq \fxsave
	.irp i, REGISTERS_0_TO_15
	movaps %xmm\i, IMAGE_XMM + 16 * \i(%rsp)
	.endr
	stmxcsr IMAGE_MXCSR(%rsp)
	.endif
	.if \offered
	xorps %xmm0, %xmm0
	.endif
	.endm

	.macro RESTORE_sse offered
	.irp i, REGISTERS_0_TO_15
	movaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	.endm

	.macro SELDOM_sse offered
	.endm

	/* What the procedure has in the header is what counts, if it sees it. */
	.macro TEST_IN_USE bits, offered
	.if \offered
	testl $(\bits), IMAGE_HEADER(%rsp)
	.else
	testl $(\bits), IN_USE
	.endif
	.endm

	.macro SAVE_XMM fxsave
	.ifeq \fxsave
	.irp i, REGISTERS_0_TO_15
	vmovaps %xmm\i, IMAGE_XMM + 16 * \i(%rsp)
	.endr
	stmxcsr IMAGE_MXCSR(%rsp)
	.endif
	.endm

	/*
	 * Mostly all is 0 above 128 bits, which takes less time to find out than XGETBV. VZEROUPPER makes it so in a
	 * way that processors notice: those that do not would make each legacy SSE instruction of the procedure, and
	 * then of the program, depend on the register's old value.
	 */
	.macro SAVE_avx fxsave, offered
	SAVE_XMM \fxsave
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
12:	vzeroupper
	.if \offered
	vxorps %xmm0, %xmm0, %xmm0
	.endif
	.endm

	.macro RESTORE_avx offered
	TEST_IN_USE AVX_BIT, \offered
	jnz 21f
	vzeroupper
	RESTORE_sse
22:
	.endm

	.macro SELDOM_avx offered
	.ifb \offered /* it makes no difference here, and clang wants it used */
	.error "offered or not?"
	.endif
11:	.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vextractf128 $1, %ymm\i, IMAGE_AVX + 16 * \i(%rsp)
	.endr
	movl $AVX_BIT, IN_USE
	jmp 12b
21:	.irp i, REGISTERS_0_TO_15
	vmovaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	vinsertf128 $1, IMAGE_AVX + 16 * \i(%rsp), %ymm\i, %ymm\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	jmp 22b
	.endm

	/* rax: opmask registers, rdx: what is above 256 bits, r8: the registers above 15. */
	.macro FIND_AVX512
	mov LAYOUT_OPMASK, %eax
	mov LAYOUT_ZMM_HI256, %edx
	mov LAYOUT_HI16_ZMM, %r8d
	add %rsp, %rax
	add %rsp, %rdx
	add %rsp, %r8
	.endm

	.macro SAVE_avx512 fxsave, offered
	FIND_AVX512
	.irp i, REGISTERS_16_TO_31
	vmovups %zmm\i, 64 * (\i - 16)(%r8)
	.endr
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq %k\i, 8 * \i(%rax)
	.endr
	vporq %zmm0, %zmm1, %zmm16
	vporq %zmm2, %zmm3, %zmm17
	vpternlogq $0xfe, %zmm4, %zmm5, %zmm16
	vpternlogq $0xfe, %zmm6, %zmm7, %zmm17
	vpternlogq $0xfe, %zmm8, %zmm9, %zmm16
	vpternlogq $0xfe, %zmm10, %zmm11, %zmm17
	vpternlogq $0xfe, %zmm12, %zmm13, %zmm16
	vpternlogq $0xfe, %zmm14, %zmm15, %zmm17
	vporq %zmm17, %zmm16, %zmm16
	vptestmq %zmm16, %zmm16, %k1
	kmovw %k1, %eax
	SAVE_XMM \fxsave
	test $0xfc, %al /* the words above 128 bits */
	jnz 11f
12:	.if \offered
	vxorps %xmm0, %xmm0, %xmm0
	.endif
	.endm

	.macro RESTORE_avx512 offered
	FIND_AVX512
	TEST_IN_USE AVX_BIT + ZMM_HI256_BIT, \offered
	jnz 21f
	vzeroupper
	.irp i, REGISTERS_0_TO_15
	vmovaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	.endr
22:	.irp i, REGISTERS_16_TO_31
	vmovups 64 * (\i - 16)(%r8), %zmm\i
	.endr
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq 8 * \i(%rax), %k\i
	.endr
	ldmxcsr IMAGE_MXCSR(%rsp)
	.endm

	.macro SELDOM_avx512 offered
11:	.irp i, REGISTERS_0_TO_15
	vextractf128 $1, %ymm\i, IMAGE_AVX + 16 * \i(%rsp)
	vextractf64x4 $1, %zmm\i, 32 * \i(%rdx)
	.endr
	movl $(AVX_BIT + ZMM_HI256_BIT), IN_USE
	vzeroupper
	jmp 12b
21:	.if \offered
	/* Only one of them is in the image when the procedure has marked it by itself. */
	vxorps %xmm0, %xmm0, %xmm0
	testl $AVX_BIT, IMAGE_HEADER(%rsp)
	jnz 23f
	.irp i, 0, 1, 2, 3
	vmovaps %zmm0, IMAGE_AVX + 64 * \i(%rsp)
	.endr
23:	testl $ZMM_HI256_BIT, IMAGE_HEADER(%rsp)
	jnz 24f
	.irp i, 0, 1, 2, 3, 4, 5, 6, 7
	vmovups %zmm0, 64 * \i(%rdx)
	.endr
24:
	.endif
	.irp i, REGISTERS_0_TO_15
	vmovaps IMAGE_XMM + 16 * \i(%rsp), %xmm\i
	vinsertf128 $1, IMAGE_AVX + 16 * \i(%rsp), %ymm\i, %ymm\i
	vinsertf64x4 $1, 32 * \i(%rdx), %zmm\i, %zmm\i
	.endr
	jmp 22b
	.endm

	/* `always`: what is in the image; `all`: what there is room for. Register 0 is 0. */
	.macro FILL_HEADER level, fxsave, always, all
	mov IN_USE, %edx
	.ifeq \fxsave
	mov LAYOUT_MXCSR_MASK, %eax
	mov %eax, IMAGE_MXCSR_MASK(%rsp)
	.endif
	movl $CALL_MARK, IMAGE_MARK(%rsp)
	movl $(\all), IMAGE_COMPONENTS(%rsp)
	.ifc \level, sse
	.irp i, 0, 16, 32, 48
	movaps %xmm0, IMAGE_HEADER + \i(%rsp)
	.endr
	.endif
	.ifc \level, avx
	vmovaps %ymm0, IMAGE_HEADER(%rsp)
	vmovaps %ymm0, IMAGE_HEADER + 32(%rsp)
	.endif
	.ifc \level, avx512
	vmovaps %zmm0, IMAGE_HEADER(%rsp)
	.endif
	or $(\always), %edx
	mov %edx, IMAGE_HEADER(%rsp)
	.endm

	.macro KEEP name, level
FUNCTION \name
	MAKE_ROOM SIZE_\level
	SAVE_\level 0, 0
	call *(%rcx)
	RESTORE_\level 0
	RETURN
	SELDOM_\level 0
END \name
	.endm

	.macro KEEP_X87 name, level
FUNCTION \name
	MAKE_ROOM SIZE_\level
	SAVE_X87
	SAVE_\level 1, 0
	call *(%rcx)
	RESTORE_X87
	RESTORE_\level 0
	RETURN
	SELDOM_EMPTY_X87
	SELDOM_RESTORE_X87
	SELDOM_\level 0
END \name
	.endm

	.macro OFFER name, level, always, all
FUNCTION \name
	MAKE_ROOM SIZE_\level
	mov %rsp, CONTEXT_EXTENDED_STATES(%rdi)
	SAVE_\level 0, 1
	FILL_HEADER \level, 0, \always, \all
	call *(%rcx)
	RESTORE_\level 1
	RETURN
	SELDOM_\level 1
END \name
	.endm

	.macro OFFER_ENTRY name, level, always, all
FUNCTION \name
	MAKE_ROOM SIZE_\level
	mov %rsp, CONTEXT_EXTENDED_STATES(%rdi)
	SAVE_\level 0, 1
	FILL_HEADER \level, 0, \always, \all + X87_BIT
	fnstcw IMAGE_FCW(%rsp)
	call *(%rcx)
	RESTORE_X87_ENTRY
	RESTORE_\level 1
	RETURN
	SELDOM_RESTORE_X87_ENTRY
	SELDOM_RESTORE_X87
	SELDOM_\level 1
END \name
	.endm

	.macro OFFER_X87 name, level, always, all
FUNCTION \name
	MAKE_ROOM SIZE_\level
	mov %rsp, CONTEXT_EXTENDED_STATES(%rdi)
	SAVE_X87
	SAVE_\level 1, 1
	FILL_HEADER \level, 1, \always + X87_BIT, \all + X87_BIT
	call *(%rcx)
	RESTORE_X87
	RESTORE_\level 1
	RETURN
	SELDOM_EMPTY_X87
	SELDOM_RESTORE_X87
	SELDOM_\level 1
END \name
	.endm

	.macro LEVEL level, always, all
	KEEP libpatch_keep_\level, \level
	KEEP_X87 libpatch_keep_x87_\level, \level
	OFFER libpatch_offer_\level, \level, \always, \all
	OFFER_ENTRY libpatch_offer_entry_\level, \level, \always, \all
	OFFER_X87 libpatch_offer_x87_\level, \level, \always, \all
	.endm

	LEVEL sse, 0x02, 0x02
	LEVEL avx, 0x02, 0x06
	LEVEL avx512, 0xa2, 0xe6

	.macro XSAVE name, offered
FUNCTION \name
	MAKE_ROOM SIZE_avx512
	/* XSAVE writes the first word of the header, XRSTOR faults unless the rest is 0 (Intel SDM vol. 1, 13.4.2). */
	xor %eax, %eax
	.irp i, 1, 2, 3, 4, 5, 6, 7
	mov %rax, IMAGE_HEADER + 8 * \i(%rsp)
	.endr
	mov %rax, IMAGE_MARK(%rsp)
	xor %edx, %edx
	mov LAYOUT_MASK, %eax
	xsave64 (%rsp)
	/*
	 * It writes every component asked for, also those in their initial state (13.7), but does not mark those: mark
	 * all, so that what the procedure writes to them is restored.
	 */
	mov %rax, IMAGE_HEADER(%rsp)
	EMPTY_X87
	.if \offered
	mov %rsp, CONTEXT_EXTENDED_STATES(%rdi)
	.endif
	call *(%rcx)
	xor %edx, %edx
	mov LAYOUT_MASK, %eax
	xrstor64 (%rsp)
	RETURN
	SELDOM_EMPTY_X87
END \name
	.endm

	XSAVE libpatch_keep_xsave, 0
	XSAVE libpatch_offer_xsave, 1

	.section .note.GNU-stack, "", @progbits
