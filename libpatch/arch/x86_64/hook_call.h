/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hooks call in the library (hook_call.S): with the record in rcx and the procedure's arguments in rdi and esi,
 * from a frame as in hook_frame.h. They call the procedure; each has an unwind description of the ordinary kind.
 */
#ifndef LIBPATCH_ARCH_X86_64_HOOK_CALL_H
#define LIBPATCH_ARCH_X86_64_HOOK_CALL_H

#include "base/compiler.h"

typedef void arch_call_fn(void);

/*
 * Called by a hook that met a guard other than 0, which is in rax. ZF is set, and rax is 0, when the hook may run: see
 * hook_threads_may_run(). Every other register is kept, but not flags.
 */
arch_call_fn libpatch_may_run;

/*
 * Jumped to by a hook whose procedure has changed program_counter or stack_pointer: from its frame, when all registers
 * are the program's again but rax and the flags. Takes these from the frame, and both of them from the context.
 */
arch_call_fn libpatch_move;
/* The same, from a frame on the thread's own stack. */
arch_call_fn libpatch_move_from_own;

/*
 * Called with a pair's execution in rcx: hook_pairs_find(), which sets ZF when there is one; hook_pairs_forget(). With
 * a pair's place in rcx: hook_pairs_find_at(), which sets ZF, too; hook_pairs_make_room(); hook_pairs_pass(). Registers
 * but rax are kept, flags are not.
 */
arch_call_fn libpatch_find_pair;
arch_call_fn libpatch_forget_pair;
arch_call_fn libpatch_find_pair_at;
arch_call_fn libpatch_make_room;
arch_call_fn libpatch_pass_pair;

/* Called with a stack pointer in rdx: shadow_find(), which sets ZF when there is a leaf. Registers but rax are kept. */
arch_call_fn libpatch_find_shadow;
/* Called with a stack pointer in rcx: shadow_forget(). The same. */
arch_call_fn libpatch_pass_exit;

/* Aligns the stack. */
arch_call_fn libpatch_call_aligned;

/*
 * These align the stack, and preserve extended state by moves: up to SSE, AVX or AVX-512. Names with `offer`: in a
 * standard-format XSAVE image, which they put into the context. Names with `x87`: x87 state, too; with `entry`: at a
 * function's entry, where the calling convention says that the x87 registers are empty.
 */
#define ARCH_CALLS(level)                                                                                              \
	extern arch_call_fn libpatch_keep_##level, libpatch_keep_x87_##level, libpatch_offer_##level,                  \
		libpatch_offer_entry_##level, libpatch_offer_x87_##level
ARCH_CALLS(sse);
ARCH_CALLS(avx);
ARCH_CALLS(avx512);
/* The same by XSAVE and XRSTOR, for layouts that the others do not know. */
arch_call_fn libpatch_keep_xsave;
arch_call_fn libpatch_offer_xsave;

/*
 * The function that calls a procedure with this clobber mask. `x87_empty`: at a function's entry. NULL: the mask says
 * that the procedure touches no extended state.
 */
arch_call_fn *arch_call_with_state(uint64_t clobber, bool x87_empty);

/* The layout of images, for these functions. xsave.c writes it once, before there are hooks. */
struct call_layout {
	uint32_t mask; /* of XSAVE */
	uint32_t mxcsr_mask;
	/* Where components are in the image. */
	uint32_t opmask;
	uint32_t zmm_hi256;
	uint32_t hi16_zmm;
};
extern struct call_layout libpatch_call_layout __attribute__((visibility("hidden")));

/* Where errno is, from the thread pointer. */
int32_t arch_errno_offset(void);

#endif
