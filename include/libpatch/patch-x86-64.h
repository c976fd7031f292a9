/* SPDX-License-Identifier: MIT */
/*
 * The x86-64 part of the libpatch interface: register indices, register masks, the execution context that
 * probe procedures receive, and typed views of an XSAVE image.
 *
 * Included by <libpatch/patch.h>; do not include it directly.
 */
#ifndef LIBPATCH_PATCH_X86_64_H
#define LIBPATCH_PATCH_X86_64_H

#ifndef LIBPATCH_PATCH_H
#error "include <libpatch/patch.h> instead"
#endif

typedef uint64_t patch_reg;

/* Number of general purpose registers in a context: all but RSP, which is `stack_pointer`. */
#define PATCH_ARCH_GREGS_COUNT 15

/* Indices in general_purpose_registers[], and bit numbers in register masks. */
enum {
	PATCH_X86_64_RAX = 0,
	PATCH_X86_64_RBX = 1,
	PATCH_X86_64_RCX = 2,
	PATCH_X86_64_RDX = 3,
	PATCH_X86_64_RSI = 4,
	PATCH_X86_64_RDI = 5,
	PATCH_X86_64_RBP = 6,
	PATCH_X86_64_R8 = 7,
	PATCH_X86_64_R9 = 8,
	PATCH_X86_64_R10 = 9,
	PATCH_X86_64_R11 = 10,
	PATCH_X86_64_R12 = 11,
	PATCH_X86_64_R13 = 12,
	PATCH_X86_64_R14 = 13,
	PATCH_X86_64_R15 = 14
};

/*
 * Register masks. Bit i below 15 stands for general_purpose_registers[i]. The bits above say something in the clobber
 * mask only, of extended state:
 *
 *   none of them          all of it is preserved, nothing is offered: the default, right for any procedure
 *   PATCH_REGS_NO_STATE   nothing is preserved: the procedure must not touch any
 *   bits of VECTOR        what they name is preserved and offered; the procedure must not touch any other
 *   any other bit         all of it is preserved and offered
 *
 * The last ones count when there are several.
 */
#define PATCH_REGS_ALL (~(uint64_t)0)
/* By itself: general purpose registers are all that the procedure touches, and it is offered none. */
#define PATCH_REGS_NO_STATE ((uint64_t)1 << 31)
/* All general purpose registers, and nothing else. */
#define PATCH_REGS_GP_ONLY (PATCH_REGS_NO_STATE | (((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1))
/* One state component: PATCH_X86_64_SSE_STATE etc. */
#define PATCH_REGS_STATE_SHIFT 32
#define PATCH_REGS_STATE(component) ((uint64_t)1 << (PATCH_REGS_STATE_SHIFT + (component)))
/* xmm0 to xmm15, and MXCSR */
#define PATCH_REGS_SSE PATCH_REGS_STATE(1)
/* ymm0 to ymm15 */
#define PATCH_REGS_AVX (PATCH_REGS_SSE | PATCH_REGS_STATE(2))
/* zmm0 to zmm31 and k0 to k7 */
#define PATCH_REGS_AVX512 (PATCH_REGS_AVX | PATCH_REGS_STATE(5) | PATCH_REGS_STATE(6) | PATCH_REGS_STATE(7))
/* All of them; what PATCH_REGS_ALL has beside them is x87 and MMX state. */
#define PATCH_REGS_VECTOR PATCH_REGS_AVX512

/*
 * What a probe procedure sees of the probed program. The memory below the context is readable.
 *
 * A general purpose register is offered here when one of the patch's masks names it, and loaded from here on resume
 * when the write or the clobber mask names it; otherwise the slot is unspecified and a write to it has no effect.
 */
struct patch_exec_context {
	/*
	 * Before the instruction: the address the patch was located at. After it (PROBE_AROUND): the address of
	 * the instruction that runs next where that lies in the same function, else the located address; after a
	 * call the address behind it, where that lies in the same function.
	 *
	 * When the procedure changes it, the thread goes on there, whatever the masks say: before the instruction,
	 * instead of it, and later calls at the instruction are left out, the second one of PROBE_AROUND among them;
	 * after it, instead of where the instruction leads.
	 */
	patch_reg program_counter;
	/*
	 * RSP of the program at the site; after the instruction: as it left it, after a call with the return
	 * address on top. When the procedure changes it, the
	 * thread goes on with that, whatever the masks say. The 168 bytes below it must be writable, and are
	 * overwritten but for the 128 of the red zone, when the procedure changes this or program_counter.
	 */
	patch_reg stack_pointer;
	patch_reg general_purpose_registers[PATCH_ARCH_GREGS_COUNT];
	/* The user_data of the execution model. */
	void *user_data;
	/*
	 * XSAVE image of x87, SSE, AVX and AVX-512 state as far as the processor has them, standard format, 64-byte
	 * aligned; NULL unless the clobber mask asked for extended state. Values written to it take effect on resume.
	 * It has all components, or, with bits of PATCH_REGS_VECTOR only, at least those asked for that the processor
	 * has; what it does not have is unspecified. A component in its initial state may be absent from xstate_bv
	 * until patch_x86_64_state_component() is asked for any: then it is all 0 and named there, so that what is
	 * written to it takes effect. At a function's entry the x87 registers are empty, by the calling convention:
	 * there the image says so without a look at them, and has a status word of 0.
	 */
	void *extended_states;
	/* RFLAGS of the program at the site; restored whatever is written here. */
	patch_reg status_register;
};

/* State component numbers (Intel SDM vol. 1, 13.1). */
#define PATCH_X86_64_SSE_STATE 1
#define PATCH_X86_64_AVX_STATE 2
#define PATCH_X86_64_AVX512_OPMASK_STATE 5
#define PATCH_X86_64_AVX512_ZMM_HI256_STATE 6
#define PATCH_X86_64_AVX512_HI16_ZMM_STATE 7

/* Legacy region (FXSAVE64 layout, Intel SDM vol. 1, 10.5.1). */
struct patch_x86_64_legacy {
	uint16_t fcw;
	uint16_t fsw;
	uint8_t ftw;
	uint8_t reserved0;
	uint16_t fop;
	uint64_t fip;
	uint64_t fdp;
	uint32_t mxcsr;
	uint32_t mxcsr_mask;
	uint8_t st0[8][16];
	uint8_t xmm0[16][16]; /* xmm0 to xmm15 */
	uint8_t reserved1[96];
};

/* XSAVE header (Intel SDM vol. 1, 13.4.2). */
struct patch_x86_64_xsave_header {
	uint64_t xstate_bv;
	uint64_t xcomp_bv;
	uint64_t reserved[6];
};

/* Bits 255:128 of ymm0 to ymm15. */
struct patch_x86_64_avx {
	uint8_t ymm0[16][16];
};

/* k0 to k7. */
struct patch_x86_64_avx512_opmask {
	uint64_t k0[8];
};

/* Bits 511:256 of zmm0 to zmm15. */
struct patch_x86_64_avx512_zmm_hi256 {
	uint8_t zmm0[16][32];
};

/* zmm16 to zmm31, whole. */
struct patch_x86_64_avx512_hi16_zmm {
	uint8_t zmm16[16][64];
};

/*
 * Find a state component in an XSAVE image: `extended_states` of a context, or `uc_mcontext.fpregs` of a signal
 * frame. Both formats, standard and compacted.
 *
 * xsave      the image, not NULL
 * component  state component number, 0 to 62
 * out        receives the component's address inside the image, not NULL
 * reserved   NULL
 *
 * PATCH_OK; PATCH_EINVAL for a NULL pointer, a non-NULL reserved or a number out of range; PATCH_ENOTSUP when this
 * processor or kernel does not have the component; PATCH_ENEXIST when the image does not hold it (compacted format
 * without it, or a signal frame without extended state).
 *
 * A component in its initial state (all zero) may be absent from `xstate_bv` of a signal frame; its memory is then
 * unspecified (Intel SDM vol. 1, 13.6), as it is in contexts of probes that asked for some components only.
 *
 * Thread safe, async-signal-safe, needs no patch_init(). patch_last_error() tells of a failure.
 */
patch_status patch_x86_64_state_component(void *xsave, int component, void **out, void *reserved);

static inline patch_status patch_x86_sse_state(void *xsave, struct patch_x86_64_legacy **state)
{
	void *out = 0;
	patch_status status = patch_x86_64_state_component(xsave, PATCH_X86_64_SSE_STATE, &out, 0);

	if (status == PATCH_OK)
		*state = (struct patch_x86_64_legacy *)out;
	return status;
}

static inline patch_status patch_x86_avx_state(void *xsave, struct patch_x86_64_avx **state)
{
	void *out = 0;
	patch_status status = patch_x86_64_state_component(xsave, PATCH_X86_64_AVX_STATE, &out, 0);

	if (status == PATCH_OK)
		*state = (struct patch_x86_64_avx *)out;
	return status;
}

static inline patch_status patch_x86_avx512_opmask_state(void *xsave, struct patch_x86_64_avx512_opmask **state)
{
	void *out = 0;
	patch_status status = patch_x86_64_state_component(xsave, PATCH_X86_64_AVX512_OPMASK_STATE, &out, 0);

	if (status == PATCH_OK)
		*state = (struct patch_x86_64_avx512_opmask *)out;
	return status;
}

static inline patch_status patch_x86_avx512_zmm_hi256_state(void *xsave, struct patch_x86_64_avx512_zmm_hi256 **state)
{
	void *out = 0;
	patch_status status = patch_x86_64_state_component(xsave, PATCH_X86_64_AVX512_ZMM_HI256_STATE, &out, 0);

	if (status == PATCH_OK)
		*state = (struct patch_x86_64_avx512_zmm_hi256 *)out;
	return status;
}

static inline patch_status patch_x86_avx512_hi16_zmm_state(void *xsave, struct patch_x86_64_avx512_hi16_zmm **state)
{
	void *out = 0;
	patch_status status = patch_x86_64_state_component(xsave, PATCH_X86_64_AVX512_HI16_ZMM_STATE, &out, 0);

	if (status == PATCH_OK)
		*state = (struct patch_x86_64_avx512_hi16_zmm *)out;
	return status;
}

#endif
