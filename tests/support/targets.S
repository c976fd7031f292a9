/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions with awkward bytes, each uint64_t f(uint64_t a, uint64_t b). The models are in targets.h.
 *
 * Some are aligned, some follow each other without a gap, some are padded with int3: what stands behind a function
 * is part of what is tested. All are position independent. A loop count is the low byte of a, never 0.
 */
	.text

.macro BEGIN name
	.globl	\name
	.hidden	\name
	.type	\name, @function
\name:
	.cfi_startproc
.endm

.macro END name
	.cfi_endproc
	.size	\name, . - \name
	.globl	\name\()_end
	.hidden	\name\()_end
\name\()_end:
.endm

/* ---- calling a target with every register known ------------------------------------------------------------------ */

/*
 * void machine_call(void *f, uint64_t a, uint64_t b, void *stack_top, struct machine_state *out, uint64_t flags)
 * The stack is MACHINE_STACK_SIZE bytes, aligned to its size; MACHINE_STACK_SIZE is in targets.h.
 */
	.p2align 6
	.globl	machine_call
	.hidden	machine_call
	.type	machine_call, @function
machine_call:
	.cfi_startproc
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, -8(%rcx)
	mov	%r8, -16(%rcx)
	mov	%rdi, -24(%rcx)
	lea	-256(%rcx), %rsp
	push	%r9
	lea	machine_xmm(%rip), %rax
	movups	0x00(%rax), %xmm0
	movups	0x10(%rax), %xmm1
	movups	0x20(%rax), %xmm2
	movups	0x30(%rax), %xmm3
	movups	0x40(%rax), %xmm4
	movups	0x50(%rax), %xmm5
	movups	0x60(%rax), %xmm6
	movups	0x70(%rax), %xmm7
	movups	0x80(%rax), %xmm8
	movups	0x90(%rax), %xmm9
	movups	0xa0(%rax), %xmm10
	movups	0xb0(%rax), %xmm11
	movups	0xc0(%rax), %xmm12
	movups	0xd0(%rax), %xmm13
	movups	0xe0(%rax), %xmm14
	movups	0xf0(%rax), %xmm15
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	movabs	$0x0a0a0a0a0a0a0a0a, %rax
	movabs	$0x0b0b0b0b0b0b0b0b, %rbx
	movabs	$0x0c0c0c0c0c0c0c0c, %rcx
	movabs	$0x0d0d0d0d0d0d0d0d, %rdx
	movabs	$0x0505050505050505, %rbp
	movabs	$0x0808080808080808, %r8
	movabs	$0x0909090909090909, %r9
	movabs	$0x1010101010101010, %r10
	movabs	$0x1111111111111111, %r11
	movabs	$0x1212121212121212, %r12
	movabs	$0x1313131313131313, %r13
	movabs	$0x1414141414141414, %r14
	movabs	$0x1515151515151515, %r15
	popfq
	call	*232(%rsp)
	pushfq
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rbp
	push	%rdi
	push	%rsi
	push	%rdx
	push	%rcx
	push	%rbx
	push	%rax
	mov	%rsp, %rbx
	or	$0x3ffff, %rbx
	inc	%rbx
	mov	-16(%rbx), %rdi
	mov	%rsp, %rsi
	lea	128(%rsp), %rdx
	mov	$16, %ecx
	cld
	rep movsq
	mov	%rdx, (%rdi)
	movups	%xmm0, 0x08(%rdi)
	movups	%xmm1, 0x18(%rdi)
	movups	%xmm2, 0x28(%rdi)
	movups	%xmm3, 0x38(%rdi)
	movups	%xmm4, 0x48(%rdi)
	movups	%xmm5, 0x58(%rdi)
	movups	%xmm6, 0x68(%rdi)
	movups	%xmm7, 0x78(%rdi)
	movups	%xmm8, 0x88(%rdi)
	movups	%xmm9, 0x98(%rdi)
	movups	%xmm10, 0xa8(%rdi)
	movups	%xmm11, 0xb8(%rdi)
	movups	%xmm12, 0xc8(%rdi)
	movups	%xmm13, 0xd8(%rdi)
	movups	%xmm14, 0xe8(%rdi)
	movups	%xmm15, 0xf8(%rdi)
	pushq	$0x202
	popfq
	mov	-8(%rbx), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret
	.cfi_endproc
	.size	machine_call, . - machine_call

	.p2align 6
/* ---- short instructions ------------------------------------------------------------------------------------------ */

BEGIN t_push_push
	push	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbp, 0
	push	%rbx
	.cfi_adjust_cfa_offset 8
	mov	%rdi, %rbx
	mov	%rsi, %rbp
	lea	(%rbx, %rbp, 2), %rax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	pop	%rbp
	.cfi_adjust_cfa_offset -8
	ret
END t_push_push

	.p2align 4
BEGIN t_nop_nop
	nop
	nop
	lea	1(%rdi, %rsi), %rax
	ret
END t_nop_nop

	/* a return alone behind a one-byte instruction, the next function directly behind it */
BEGIN t_ret_after_one
	mov	%rdi, %rax
	add	%rsi, %rax
	nop
	ret
END t_ret_after_one

BEGIN t_five_singles
	push	%rbx
	push	%rdi
	pop	%rbx
	push	%rsi
	pop	%rax
	add	%rbx, %rax
	pop	%rbx
	ret
END t_five_singles

	.p2align 4, 0xcc
BEGIN t_2_2_1
	mov	%edi, %eax
	xor	%esi, %eax
	nop
	ret
END t_2_2_1

	.p2align 4, 0xcc
BEGIN t_3_1_1
	mov	%rdi, %rax
	push	%rbx
	pop	%rbx
	sub	%rsi, %rax
	ret
END t_3_1_1

	.p2align 4
BEGIN t_4_1
	lea	4(%rdi), %rax
	nop
	xor	%rsi, %rax
	ret
END t_4_1

BEGIN t_1_4
	nop
	lea	4(%rdi), %rax
	nop
	lea	4(%rax), %rax
	xor	%rsi, %rax
	ret
END t_1_4

	.p2align 4
BEGIN t_five_bytes
	mov	$0x12345678, %eax
	add	%rdi, %rax
	and	$0x7fffffff, %eax
	xor	%rsi, %rax
	ret
END t_five_bytes

/* ---- loops inside the window ------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_loop_to_second
	mov	%esi, %eax
1:	inc	%eax
	dec	%dil
	jnz	1b
	ret
END t_loop_to_second

	.p2align 4
BEGIN t_loop_to_first
1:	lea	3(%rsi), %rsi
	dec	%dil
	jnz	1b
	mov	%rsi, %rax
	ret
END t_loop_to_first

	.p2align 4
BEGIN t_loop_to_first_short
1:	inc	%esi
	dec	%dil
	jnz	1b
	mov	%esi, %eax
	ret
END t_loop_to_first_short

	.p2align 4
BEGIN t_loop_singles
	mov	%rsi, %rax
1:	push	%rax
	nop
	pop	%rax
	inc	%eax
	nop
	dec	%dil
	jnz	1b
	ret
END t_loop_singles

	.p2align 4
BEGIN t_loop_insn
	movzbl	%dil, %ecx
	xor	%eax, %eax
1:	add	%rsi, %rax
	loop	1b
	ret
END t_loop_insn

	.p2align 4
BEGIN t_loop_insn_self
	movzbl	%dil, %ecx
1:	loop	1b
	lea	(%rcx, %rsi), %rax
	ret
END t_loop_insn_self

	.p2align 4
BEGIN t_loopne
	movzbl	%dil, %ecx
	mov	%rsi, %rax
1:	inc	%eax
	test	$15, %al
	loopne	1b
	shl	$8, %rcx
	add	%rcx, %rax
	ret
END t_loopne

	.p2align 4
BEGIN t_jrcxz
	xor	%eax, %eax
	mov	%sil, %cl
	and	$3, %ecx
	jrcxz	1f
	mov	%rdi, %rax
1:	add	%rsi, %rax
	ret
END t_jrcxz

	.p2align 4
BEGIN t_jecxz_back
	movzbl	%dil, %ecx
	xor	%eax, %eax
1:	jecxz	2f
	inc	%eax
	dec	%ecx
	jmp	1b
2:	add	%rsi, %rax
	ret
END t_jecxz_back

/* ---- calls in the window ----------------------------------------------------------------------------------------- */

	.p2align 4
	.type	helper_add, @function
	.globl	helper_add
	.hidden	helper_add
helper_add:
	.cfi_startproc
	lea	(%rdi, %rdi, 2), %rax
	add	%rsi, %rax
	ret
	.cfi_endproc
	.size	helper_add, . - helper_add

	.p2align 4
	/* touches rax only, as a compiler that knows would rely on */
	.type	helper_quiet, @function
helper_quiet:
	.cfi_startproc
	mov	%rdi, %rax
	not	%rax
	ret
	.cfi_endproc
	.size	helper_quiet, . - helper_quiet

	.p2align 4
BEGIN t_call_last
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	call	helper_add
	inc	%rax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_call_last

	.p2align 4
BEGIN t_call_twice
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	mov	%edi, %ebx
	call	helper_add
	mov	%ebx, %edi
	mov	%rax, %rsi
	call	helper_add
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_call_twice

	.p2align 4
BEGIN t_call_indirect
	lea	helper_add(%rip), %rdx
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	call	*%rdx
	mov	%eax, %ebx
	mov	%ebx, %eax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_call_indirect

	.p2align 4
BEGIN t_call_indirect_r11
	lea	helper_add(%rip), %r11
	push	%rax
	.cfi_adjust_cfa_offset 8
	call	*%r11
	pop	%rdx
	.cfi_adjust_cfa_offset -8
	nop
	ret
END t_call_indirect_r11

	/* the operand of the call is relative to rsp: it has to be read before anything is pushed */
	.p2align 4
BEGIN t_call_stack_operand
	lea	helper_add(%rip), %rax
	push	%rax
	.cfi_adjust_cfa_offset 8
	call	*(%rsp)
	pop	%rdx
	.cfi_adjust_cfa_offset -8
	nop
	ret
END t_call_stack_operand

	/* as t_call_stack_operand, below rsp, in the red zone */
	.p2align 4
BEGIN t_call_redzone_operand
	lea	helper_add(%rip), %rax
	mov	%rax, -32(%rsp)
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	nop
	call	*-24(%rsp)
	nop
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
END t_call_redzone_operand

	.p2align 4
BEGIN t_call_memory
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	*helper_pointer(%rip)
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
END t_call_memory

	/* padded call, as the linker leaves for thread-local storage */
	.p2align 4
BEGIN t_call_prefixed
	push	%rdi
	.cfi_adjust_cfa_offset 8
	.byte	0x48
	call	helper_add
	pop	%rdi
	.cfi_adjust_cfa_offset -8
	add	%rdi, %rax
	ret
END t_call_prefixed

	.p2align 4
BEGIN t_call_next_pop
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	call	1f
	.cfi_adjust_cfa_offset 8
1:	pop	%rbx
	.cfi_adjust_cfa_offset -8
	lea	1b(%rip), %rax
	sub	%rbx, %rax
	add	%rdi, %rax
	xor	%rsi, %rax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_call_next_pop

	/* xmm1, rcx, rdx, rsi live across a call to a local function (-fipa-ra) */
	.p2align 4
BEGIN t_live_across_call
	movq	%rdi, %xmm1
	mov	%rsi, %rcx
	mov	%rdi, %rdx
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	helper_quiet
	movq	%xmm1, %r8
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	add	%rcx, %rax
	xor	%rdx, %rax
	add	%rsi, %rax
	sub	%r8, %rax
	ret
END t_live_across_call

	.p2align 4
BEGIN t_recurse
	test	%dil, %dil
	je	1f
	push	%rdi
	.cfi_adjust_cfa_offset 8
	dec	%dil
	call	t_recurse
	pop	%rdi
	.cfi_adjust_cfa_offset -8
	add	%rdi, %rax
	ret
1:	mov	%rsi, %rax
	ret
END t_recurse

/* ---- the stack --------------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_redzone
	mov	%rdi, -8(%rsp)
	mov	%rsi, -128(%rsp)
	mov	%rdi, -64(%rsp)
	nop
	mov	-8(%rsp), %rax
	nop
	add	-128(%rsp), %rax
	xor	-64(%rsp), %rax
	ret
END t_redzone

BEGIN t_redzone_short
	mov	%esi, -8(%rsp)
	mov	%edi, -4(%rsp)
	nop
	mov	-8(%rsp), %rax
	ret
END t_redzone_short

	.p2align 4
BEGIN t_push_rsp
	push	%rsp
	.cfi_adjust_cfa_offset 8
	pop	%rax
	.cfi_adjust_cfa_offset -8
	sub	%rsp, %rax
	add	%rdi, %rax
	ret
END t_push_rsp

	.p2align 4
BEGIN t_pop_rsp
	mov	%rsp, %rdx
	push	%rsp
	nop
	pop	%rsp
	nop
	mov	%rsp, %rax
	sub	%rdx, %rax
	add	%rsi, %rax
	ret
END t_pop_rsp

	.p2align 4
BEGIN t_push_memory
	push	%rdi
	push	(%rsp)
	nop
	pop	%rax
	push	8(%rsp)
	pop	%rdx
	pop	%rcx
	sub	(%rsp), %rdx
	add	%rdx, %rax
	sub	%rcx, %rax
	add	%rsi, %rax
	ret
END t_push_memory

	.p2align 4
BEGIN t_lea_frame
	lea	-0x18(%rsp), %rsp
	mov	%rdi, (%rsp)
	mov	%rsi, 8(%rsp)
	nop
	mov	(%rsp), %rax
	sub	8(%rsp), %rax
	lea	0x18(%rsp), %rsp
	ret
END t_lea_frame

	.p2align 4
BEGIN t_leave
	push	%rbp
	mov	%rsp, %rbp
	sub	$32, %rsp
	mov	%rdi, -8(%rbp)
	add	%rsi, -8(%rbp)
	mov	-8(%rbp), %rax
	leave
	ret
END t_leave

	.p2align 4
BEGIN t_enter
	enter	$32, $0
	mov	%rdi, (%rsp)
	mov	%rsi, -16(%rbp)
	mov	(%rsp), %rax
	xor	-16(%rbp), %rax
	leave
	ret
END t_enter

	.p2align 4
BEGIN t_ret_imm
	push	%rdi
	call	1f
	add	%rsi, %rax
	ret
	nop
1:	mov	8(%rsp), %rax
	ret	$8
END t_ret_imm

	.p2align 4
BEGIN t_misaligned
	lea	-13(%rsp), %rsp
	push	%rdi
	nop
	push	%rsi
	pop	%rax
	pop	%rdx
	sub	%rdx, %rax
	lea	13(%rsp), %rsp
	ret
END t_misaligned

	.p2align 4
BEGIN t_push_flags
	add	%rsi, %rdi
	pushfq
	andl	$0x8d5, (%rsp)
	pop	%rax
	ret
END t_push_flags

	.p2align 4
BEGIN t_pop_flags
	pushfq
	and	$0x8d5, %edi
	andl	$~0x8d5, (%rsp)
	or	%rdi, (%rsp)
	popfq
	nop
	sbb	%rax, %rax
	setz	%al
	ret
END t_pop_flags

/* ---- endbr64 ----------------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_endbr_push
	endbr64
	push	%rbp
	mov	%rsp, %rbp
	push	%rdi
	add	%rsi, (%rsp)
	pop	%rax
	pop	%rbp
	ret
END t_endbr_push

	.p2align 4, 0xcc
BEGIN t_endbr_tiny
	endbr64
	xchg	%eax, %edi
	ret
END t_endbr_tiny

	.p2align 4
BEGIN t_endbr_long
	endbr64
	mov	$0x1000, %eax
	add	%rdi, %rax
	sub	%rsi, %rax
	ret
END t_endbr_long

	/* a five-byte NOP at the entry, as -fpatchable-function-entry leaves */
	.p2align 4
BEGIN t_patchable_entry
	endbr64
	.byte	0x0f, 0x1f, 0x44, 0x00, 0x00
	lea	(%rdi, %rsi, 4), %rax
	ret
END t_patchable_entry

/* ---- flags ------------------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_cmp_jcc
	cmp	%rsi, %rdi
	jb	1f
	mov	%rdi, %rax
	sub	%rsi, %rax
	ret
1:	mov	%rsi, %rax
	sub	%rdi, %rax
	ret
END t_cmp_jcc

	.p2align 4
BEGIN t_jcc_near
	cmp	%esi, %edi
	.byte	0x0f, 0x8f			/* jg rel32 */
	.long	1f - . - 4
	mov	%esi, %eax
	ret
	.skip	200, 0xcc
1:	mov	%edi, %eax
	ret
END t_jcc_near

	.p2align 4
BEGIN t_adc_chain
	add	%rsi, %rdi
	adc	$0, %rsi
	adc	%rdi, %rsi
	nop
	adc	%rsi, %rdi
	sbb	%rax, %rax
	lea	(%rax, %rdi), %rax
	ret
END t_adc_chain

	.p2align 4
BEGIN t_adc_loop
	xor	%eax, %eax
1:	adc	%rsi, %rax
	dec	%dil
	jnz	1b
	adc	$0, %rax
	ret
END t_adc_loop

	.p2align 4
BEGIN t_setcc
	cmp	%esi, %edi
	setg	%al
	seto	%cl
	setb	%dl
	setp	%r8b
	movzbl	%al, %eax
	movzbl	%cl, %ecx
	movzbl	%dl, %edx
	movzbl	%r8b, %r8d
	lea	(%rax, %rcx, 2), %rax
	lea	(%rax, %rdx, 4), %rax
	lea	(%rax, %r8, 8), %rax
	ret
END t_setcc

	.p2align 4
BEGIN t_lahf
	cmp	%sil, %dil
	lahf
	seto	%al
	movzwl	%ax, %eax
	ret
END t_lahf

	.p2align 4
BEGIN t_sahf
	mov	%edi, %eax
	sahf
	nop
	lahf
	movzbl	%ah, %eax
	ret
END t_sahf

	.p2align 4
BEGIN t_carry_insns
	stc
	nop
	rcl	%rdi
	cmc
	rcr	%rsi
	clc
	mov	%rdi, %rax
	adc	%rsi, %rax
	ret
END t_carry_insns

	.p2align 4
BEGIN t_bt_sbb
	bt	%rsi, %rdi
	cmc
	sbb	%rax, %rax
	ret
END t_bt_sbb

	.p2align 4
BEGIN t_cmov
	mov	%rdi, %rax
	cmp	%rsi, %rdi
	cmovl	%rsi, %rax
	nop
	cmovs	%rdi, %rax
	ret
END t_cmov

	.p2align 4
BEGIN t_direction
	std
	nop
	nop
	mov	%rdi, -8(%rsp)
	mov	%rsi, -16(%rsp)
	lea	-8(%rsp), %rsi
	lodsq
	add	(%rsi), %rax
	nop
	cld
	ret
END t_direction

	.p2align 4
BEGIN t_movs_backwards
	mov	%rdi, -8(%rsp)
	mov	%rsi, -16(%rsp)
	lea	-1(%rsp), %rsi
	lea	-17(%rsp), %rdi
	mov	$8, %ecx
	std
	rep movsb
	cld
	mov	-24(%rsp), %rax
	xor	-16(%rsp), %rax
	ret
END t_movs_backwards

/* ---- string instructions ----------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_rep_movsb
	push	%rdi
	push	%rsi
	lea	8(%rsp), %rsi
	mov	%rsp, %rdi
	mov	$8, %ecx
	rep movsb
	pop	%rax
	pop	%rdx
	add	%rdx, %rax
	ret
END t_rep_movsb

	.p2align 4
BEGIN t_rep_stosq
	mov	%rdi, %rax
	lea	-64(%rsp), %rdi
	mov	$4, %ecx
	rep stosq
	mov	-64(%rsp), %rax
	add	-40(%rsp), %rax
	xor	%rsi, %rax
	ret
END t_rep_stosq

	.p2align 4
BEGIN t_repne_scasb
	push	%rdi
	mov	%esi, %eax
	mov	%rsp, %rdi
	mov	$8, %ecx
	repne scasb
	pop	%rax
	mov	%rcx, %rax
	ret
END t_repne_scasb

/* ---- relative to rip --------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_rip_load
	mov	data_word(%rip), %rax
	add	%rdi, %rax
	xor	data_word + 8(%rip), %rax
	movzbl	data_word + 3(%rip), %edx
	add	%rdx, %rax
	movslq	data_word + 4(%rip), %rdx
	sub	%rdx, %rax
	ret
END t_rip_load

	.p2align 4
BEGIN t_rip_load_short
	nop
	mov	data_word(%rip), %eax
	xchg	%eax, %edi
	add	data_word(%rip), %al
	ret
END t_rip_load_short

	.p2align 4
BEGIN t_rip_store
	movl	$0x1234, scratch_word(%rip)
	movb	$0x56, scratch_word + 4(%rip)
	movw	$0x789a, scratch_word + 6(%rip)
	nop
	mov	scratch_word(%rip), %eax
	movzbl	scratch_word + 4(%rip), %edx
	movzwl	scratch_word + 6(%rip), %ecx
	add	%rdx, %rax
	add	%rcx, %rax
	add	%rdi, %rax
	ret
END t_rip_store

	.p2align 4
BEGIN t_rip_lea
	lea	data_word(%rip), %rax
	lea	data_word + 8(%rip), %rcx
	sub	%rax, %rcx
	lea	(%rcx, %rdi), %rax
	ret
END t_rip_lea

	.p2align 4
BEGIN t_rip_cmp_imm
	xor	%eax, %eax
	cmpl	$0x55667788, data_word(%rip)
	sete	%al
	cmpb	$0x33, data_word + 5(%rip)
	setae	%cl
	testw	$0x0101, data_word + 2(%rip)
	setnz	%dl
	movzbl	%cl, %ecx
	movzbl	%dl, %edx
	lea	(%rax, %rcx, 2), %rax
	lea	(%rax, %rdx, 4), %rax
	add	%rdi, %rax
	ret
END t_rip_cmp_imm

	.p2align 4
BEGIN t_rip_imul_imm
	imul	$0x01010101, data_word(%rip), %rax
	imul	$-3, data_word + 8(%rip), %rdx
	add	%rdx, %rax
	add	%rsi, %rax
	ret
END t_rip_imul_imm

	.p2align 4
BEGIN t_rip_push
	push	data_word(%rip)
	nop
	pop	%rax
	xor	%rdi, %rax
	ret
END t_rip_push

	.p2align 4
BEGIN t_rip_sse
	movups	data_word(%rip), %xmm0
	nop
	pshufd	$0x4e, data_word(%rip), %xmm1
	paddq	%xmm1, %xmm0
	pinsrw	$3, data_word(%rip), %xmm0
	movq	%xmm0, %rax
	add	%rdi, %rax
	ret
END t_rip_sse

	.p2align 4
BEGIN t_rip_jmp
	mov	%rdi, %rax
	nop
	jmp	*jump_pointer(%rip)
	int3
	.globl	t_rip_jmp_continue
	.hidden	t_rip_jmp_continue
t_rip_jmp_continue:
	sub	%rsi, %rax
	ret
END t_rip_jmp

/* ---- the end of a function --------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_end1_nops
	ret
END t_end1_nops
	.p2align 4

BEGIN t_end2_nops
	xchg	%eax, %edi
	ret
END t_end2_nops
	.p2align 4

BEGIN t_end3_int3
	mov	%edi, %eax
	ret
END t_end3_int3
	.p2align 4, 0xcc

BEGIN t_end4_int3
	mov	%rdi, %rax
	ret
END t_end4_int3
	.p2align 4, 0xcc

BEGIN t_end1_int3
	ret
END t_end1_int3
	.p2align 4, 0xcc

	/* no padding at all between these */
BEGIN t_end1_direct
	ret
END t_end1_direct
BEGIN t_end2_direct
	xchg	%eax, %edi
	ret
END t_end2_direct
BEGIN t_end3_direct
	mov	%esi, %eax
	ret
END t_end3_direct
BEGIN t_end4_direct
	mov	%rsi, %rax
	ret
END t_end4_direct
BEGIN t_end_rep_ret
	mov	%rdi, %rax
	rep ret
END t_end_rep_ret
BEGIN t_end_last
	mov	%rsi, %rax
	not	%rax
	ret
END t_end_last

	/* without unwind information: nothing says where it ends */
	.p2align 4
	.globl	t_no_unwind
	.hidden	t_no_unwind
	.type	t_no_unwind, @function
t_no_unwind:
	push	%rdi
	push	%rsi
	pop	%rax
	pop	%rdx
	sub	%rdx, %rax
	ret
	.size	t_no_unwind, . - t_no_unwind
	.globl	t_no_unwind_end
	.hidden	t_no_unwind_end
t_no_unwind_end:

/* ---- jumps ------------------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_jmp_short
	mov	%rdi, %rax
	jmp	1f
	int3
	int3
1:	add	%rsi, %rax
	ret
END t_jmp_short

	.p2align 4
BEGIN t_jmp_short_first
	jmp	2f
1:	lea	(%rdi, %rsi), %rax
	ret
2:	jmp	1b
END t_jmp_short_first

	.p2align 4
BEGIN t_jmp_near
	mov	%rdi, %rax
	.byte	0xe9
	.long	1f - . - 4
	.skip	150, 0xcc
1:	sub	%rsi, %rax
	ret
END t_jmp_near

	.p2align 4
BEGIN t_tail_jmp
	inc	%rdi
	jmp	helper_add
END t_tail_jmp

BEGIN t_tail_jmp_indirect
	lea	helper_add(%rip), %rax
	dec	%rdi
	jmp	*%rax
END t_tail_jmp_indirect

	.p2align 4
BEGIN t_tail_jcc
	test	$1, %sil
	jnz	helper_add
	mov	%rdi, %rax
	ret
END t_tail_jcc

	.p2align 4
BEGIN t_notrack_jmp
	lea	1f(%rip), %rdx
	notrack jmp *%rdx
	int3
1:	mov	%rsi, %rax
	ret
END t_notrack_jmp

	.p2align 4
BEGIN t_switch
	mov	%esi, %ecx
	and	$3, %ecx
	lea	switch_table(%rip), %rdx
	movslq	(%rdx, %rcx, 4), %rcx
	add	%rdx, %rcx
	notrack jmp *%rcx
.Lswitch0:
	inc	%rdi
.Lswitch1:
	inc	%rdi
.Lswitch2:
	dec	%rdi
.Lswitch3:
	mov	%rdi, %rax
	ret
END t_switch

	/* every single-byte instruction a target of a computed jump */
	.p2align 4
BEGIN t_computed_jump
	mov	%esi, %ecx
	and	$7, %ecx
	lea	1f(%rip), %rdx
	xor	%eax, %eax
	add	%rcx, %rdx
	stc
	jmp	*%rdx
1:	cmc
	cmc
	cmc
	cmc
	cmc
	cmc
	cmc
	cmc
	adc	%rdi, %rax
	ret
END t_computed_jump

	/* entered from t_outside_entry at its second and third instruction */
	.p2align 4
BEGIN t_inner_entry
	push	%rdi
.Linner_entry1:
	push	%rsi
.Linner_entry2:
	pop	%rax
	pop	%rdx
	add	%rdx, %rax
	ret
END t_inner_entry

	.p2align 4
BEGIN t_outside_entry
	test	$1, %sil
	push	%rdi
	jz	.Linner_entry1
	push	%rsi
	jmp	.Linner_entry2
END t_outside_entry

	/* a jump over the lock prefix */
	.p2align 4
BEGIN t_lock_skip
	mov	%rdi, -8(%rsp)
	test	$1, %sil
	je	1f + 1
1:	lock addq %rsi, -8(%rsp)
	nop
	mov	-8(%rsp), %rax
	ret
END t_lock_skip

	/* the same, with the prefix inside the window of the instructions before it */
	.p2align 4
BEGIN t_lock_skip_near
	push	%rdi
	test	$2, %sil
	nop
	je	1f + 1
1:	lock incq (%rsp)
	pop	%rax
	ret
END t_lock_skip_near

	.p2align 4
BEGIN t_locked
	mov	%rdi, -8(%rsp)
	lock xadd %rsi, -8(%rsp)
	mov	%rsi, %rax
	nop
	lock cmpxchg %rdi, -8(%rsp)
	mov	-8(%rsp), %rax
	ret
END t_locked

/* ---- across cache lines and pages -------------------------------------------------------------------------------- */

	.p2align 6, 0xcc
	.skip	62, 0xcc
BEGIN t_line_five
	mov	$0x7654321, %eax
	add	%rdi, %rax
	ret
END t_line_five

	.p2align 6, 0xcc
	.skip	62, 0xcc
BEGIN t_line_window
	push	%rdi
	nop
	push	%rsi
	pop	%rax
	pop	%rdx
	sub	%rdx, %rax
	ret
END t_line_window

	.p2align 6, 0xcc
	.skip	63, 0xcc
BEGIN t_line_two
	mov	%edi, %eax
	xor	%esi, %eax
	nop
	ret
END t_line_two

	.p2align 12, 0xcc
	.skip	4093, 0xcc
BEGIN t_page_window
	mov	%rdi, %rax
	add	%rsi, %rax
	nop
	not	%rax
	ret
END t_page_window

/* ---- long instructions ------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_prefixes
	.byte	0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
	.byte	0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
	movabs	$0x1122334455667788, %rax
	add	%rdi, %rax
	movq	$0x11223344, -0x40(%rsp)
	movl	$0x55667788, -0x48(%rsp)
	ret
END t_prefixes

	.p2align 4
BEGIN t_pause_nops
	pause
	.byte	0x66, 0x90
	.byte	0x0f, 0x1f, 0x00
	lea	(%rsi, %rdi), %rax
	xchg	%ax, %ax
	ret
END t_pause_nops

	.p2align 4
BEGIN t_muldiv
	mov	%rdi, %rax
	mul	%rsi
	mov	%rdx, %rcx
	xor	%edx, %edx
	mov	$1000, %r8d
	div	%r8
	cqto
	add	%rcx, %rax
	xor	%rdx, %rax
	bswap	%rax
	ret
END t_muldiv

/* ---- system calls ------------------------------------------------------------------------------------------------ */

	.p2align 4
BEGIN t_syscall
	mov	$102, %eax			/* getuid */
	syscall
	nop
	xor	%ecx, %ecx
	xor	%r11d, %r11d
	add	%rdi, %rax
	ret
END t_syscall

/* ---- extended state ---------------------------------------------------------------------------------------------- */

	.p2align 4
BEGIN t_xmm
	movq	%rdi, %xmm0
	movq	%rsi, %xmm15
	nop
	paddq	%xmm15, %xmm0
	movdqa	%xmm0, %xmm7
	nop
	psubq	%xmm15, %xmm7
	pxor	%xmm7, %xmm0
	movq	%xmm0, %rax
	ret
END t_xmm

	.p2align 4
BEGIN t_x87
	mov	%edi, -8(%rsp)
	fildl	-8(%rsp)
	mov	%esi, -4(%rsp)
	fildl	-4(%rsp)
	nop
	faddp
	fistpll	-16(%rsp)
	mov	-16(%rsp), %rax
	ret
END t_x87

	.p2align 4
BEGIN t_ymm
	vmovq	%rdi, %xmm1
	vpbroadcastq %xmm1, %ymm1
	vmovq	%rsi, %xmm2
	vpbroadcastq %xmm2, %ymm2
	vpaddq	%ymm2, %ymm1, %ymm3
	nop
	vpxor	vector_word(%rip), %ymm3, %ymm3
	vextracti128 $1, %ymm3, %xmm4
	nop
	vmovq	%xmm4, %rax
	vzeroupper
	ret
END t_ymm

	.p2align 4
BEGIN t_zmm
	vpbroadcastq %rdi, %zmm17
	vpbroadcastq %rsi, %zmm30
	mov	$0xa5, %eax
	kmovd	%eax, %k3
	vpaddq	%zmm30, %zmm17, %zmm17{%k3}
	nop
	vpaddq	vector_word(%rip){1to8}, %zmm17, %zmm17
	vextracti64x4 $1, %zmm17, %ymm18
	nop
	kmovd	%k3, %ecx
	vmovq	%xmm18, %rax
	add	%rcx, %rax
	vzeroupper
	ret
END t_zmm

/* ---- places without effect, to change registers at ------------------------------------------------------------*/

	.p2align 4
BEGIN t_nops
	nop
	nop
	nop
	nop
	nop
	nop
	ret
END t_nops

	.p2align 4
BEGIN t_long_nop
	.byte	0x0f, 0x1f, 0x44, 0x00, 0x00
	ret
END t_long_nop

/* ---- procedures that destroy what they may --------------------------------------------------------------------*/

	/* void destroy_general(struct patch_exec_context *, uint8_t post): general purpose registers and flags only */
	.p2align 4
	.globl	destroy_general
	.hidden	destroy_general
	.type	destroy_general, @function
destroy_general:
	.cfi_startproc
	mov	%rsp, destroy_entry_rsp(%rip)
	pushfq
	.cfi_adjust_cfa_offset 8
	pop	destroy_entry_flags(%rip)
	.cfi_adjust_cfa_offset -8
	sub	$4104, %rsp
	.cfi_adjust_cfa_offset 4104
	call	*destroy_inner(%rip)
	/* the stack, as far as a procedure would go */
	cld
	mov	%rsp, %rdi
	mov	$513, %ecx
	mov	$0xdeadbeefdeadbeef, %rax
	rep stosq
	add	$4104, %rsp
	.cfi_adjust_cfa_offset -4104
	mov	%rax, %rcx
	mov	%rax, %rdx
	mov	%rax, %rsi
	mov	%rax, %rdi
	mov	%rax, %r8
	mov	%rax, %r9
	mov	%rax, %r10
	mov	%rax, %r11
	stc
	sbb	%ecx, %ecx
	ret
	.cfi_endproc
	.size	destroy_general, . - destroy_general

	/* the same and xmm, MXCSR's status and the x87 stack */
	.p2align 4
	.globl	destroy_sse
	.hidden	destroy_sse
	.type	destroy_sse, @function
destroy_sse:
	.cfi_startproc
	sub	$24, %rsp
	.cfi_adjust_cfa_offset 24
	movaps	%xmm0, (%rsp)			/* faults unless the stack is aligned as the ABI says */
	call	destroy_general
	stmxcsr	(%rsp)
	orl	$0x3f, (%rsp)
	ldmxcsr	(%rsp)
	emms
	fldpi
	fstp	%st(0)
	pcmpeqd	%xmm0, %xmm0
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movdqa	%xmm0, %xmm\n
	.endr
	add	$24, %rsp
	.cfi_adjust_cfa_offset -24
	ret
	.cfi_endproc
	.size	destroy_sse, . - destroy_sse

	.p2align 4
	.globl	destroy_avx
	.hidden	destroy_avx
	.type	destroy_avx, @function
destroy_avx:
	.cfi_startproc
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	destroy_sse
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vxorps	%ymm\n, %ymm\n, %ymm\n
	.endr
	vzeroupper
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	destroy_avx, . - destroy_avx

	.p2align 4
	.globl	destroy_avx512
	.hidden	destroy_avx512
	.type	destroy_avx512, @function
destroy_avx512:
	.cfi_startproc
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	destroy_sse
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vpternlogd $0xff, %zmm\n, %zmm\n, %zmm\n
	.endr
	.irp	n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	vpternlogd $0xff, %zmm\n, %zmm\n, %zmm\n
	.endr
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	kxnorq	%k\n, %k\n, %k\n
	.endr
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	destroy_avx512, . - destroy_avx512

/* ---- calls with all of the extended state known ---------------------------------------------------------------*/

/*
 * void extended_call_*(const struct extended_state *in, struct extended_state *out, void *f): zmm at 0, 64 bytes each,
 * k at 2048, 8 bytes each, MXCSR at 2112, x87 st0 at 2128, an 80-bit value, and st1.
 */
.macro EXTENDED_ENTER name
	.p2align 4
	.globl	\name
	.hidden	\name
	.type	\name, @function
\name:
	.cfi_startproc
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	sub	$16, %rsp
	.cfi_adjust_cfa_offset 16
	mov	%rsi, %rbx
	stmxcsr	8(%rsp)
	ldmxcsr	2112(%rdi)
	fldt	2144(%rdi)
	fldt	2128(%rdi)
.endm

.macro EXTENDED_LEAVE name
	fstpt	2128(%rbx)
	fstpt	2144(%rbx)
	stmxcsr	2112(%rbx)
	ldmxcsr	8(%rsp)
	add	$16, %rsp
	.cfi_adjust_cfa_offset -16
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
	.cfi_endproc
	.size	\name, . - \name
.endm

EXTENDED_ENTER extended_call_sse
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movups	\n * 64(%rdi), %xmm\n
	.endr
	call	*%rdx
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movups	%xmm\n, \n * 64(%rbx)
	.endr
EXTENDED_LEAVE extended_call_sse

EXTENDED_ENTER extended_call_avx
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovups	\n * 64(%rdi), %ymm\n
	.endr
	call	*%rdx
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovups	%ymm\n, \n * 64(%rbx)
	.endr
	vzeroupper
EXTENDED_LEAVE extended_call_avx

EXTENDED_ENTER extended_call_avx512
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovups	\n * 64(%rdi), %zmm\n
	.endr
	.irp	n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	vmovups	\n * 64(%rdi), %zmm\n
	.endr
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq	2048 + \n * 8(%rdi), %k\n
	.endr
	call	*%rdx
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	kmovq	%k\n, 2048 + \n * 8(%rbx)
	.endr
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovups	%zmm\n, \n * 64(%rbx)
	.endr
	.irp	n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	vmovups	%zmm\n, \n * 64(%rbx)
	.endr
	vzeroupper
EXTENDED_LEAVE extended_call_avx512

	/* uint64_t load_word(const uint64_t *): the fault of its load is repaired by the program */
	.p2align 4
BEGIN t_load
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	nop
	.globl	t_load_site
	.hidden	t_load_site
t_load_site:
	mov	(%rdi), %rax
	nop
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_load

	/* uint64_t f(void (*callback)(void *), void *argument): calls it from inside a window */
	.p2align 4
BEGIN t_call_callback
	push	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rbx, 0
	mov	%rdi, %rax
	mov	%rsi, %rdi
	nop
	call	*%rax
	nop
	mov	$77, %eax
	pop	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore %rbx
	ret
END t_call_callback

	.p2align 4
	.globl	t_text_end
	.hidden	t_text_end
t_text_end:

/* ---- data -------------------------------------------------------------------------------------------------------- */

	.section .rodata
	.p2align 6
	.globl	machine_xmm
	.hidden	machine_xmm
machine_xmm:
	.set	i, 0
	.rept	256
	.byte	(i * 37 + 11) & 0xff
	.set	i, i + 1
	.endr
	.p2align 5
vector_word:
	.quad	0x0f0f0f0f0f0f0f0f, 0x1111111111111111, 0x2222222222222222, 0x3333333333333333
	.p2align 4
data_word:
	.quad	0x1122334455667788, 0x99aabbccddeeff00
switch_table:
	.long	.Lswitch0 - switch_table
	.long	.Lswitch1 - switch_table
	.long	.Lswitch2 - switch_table
	.long	.Lswitch3 - switch_table

	.section .data.rel.ro, "aw"
	.p2align 3
helper_pointer:
	.quad	helper_add
jump_pointer:
	.quad	t_rip_jmp_continue

	.data
	.p2align 3
scratch_word:
	.quad	0
	.globl	destroy_inner, destroy_entry_rsp, destroy_entry_flags
	.hidden	destroy_inner, destroy_entry_rsp, destroy_entry_flags
destroy_inner:
	.quad	0
destroy_entry_rsp:
	.quad	0
destroy_entry_flags:
	.quad	0

	.section .note.GNU-stack, "", @progbits
