/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layout of XSAVE images (Intel SDM vol. 1, 13.4 and 13.5.2; AMD APM vol. 2, 11.5).
 *
 * CPUID is intercepted in virtual machines, so the layout is read once. Any number of threads and signal handlers may
 * do so at once: they store equal values and then set `ready`.
 */
#include "arch/cpu.h"
#include "arch/hook.h"

#include "arch/x86_64/hook_call.h"
#include "arch/x86_64/hook_frame.h"

#include <cpuid.h>
#include <libpatch/patch.h>
#include <stdatomic.h>
#include <string.h>

#define HEADER_OFFSET 512
#define EXTENDED_OFFSET 576 /* legacy region and header */
#define COMPONENT_MAX 62
#define COMPACTED (UINT64_C(1) << 63)

/* x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM */
#define OFFERED_MASK UINT64_C(0xe7)
#define AVX_MASK UINT64_C(0x06)
#define AVX512_MASK UINT64_C(0xe6)

/* What hooks have room for (hook_call.S), which every combination of the offered components fits in so far. */
#define ROOM 2816

#define CPUID_1_ECX_OSXSAVE (1u << 27)
#define CPUID_D_ECX_ALIGNED (1u << 1)
#define CPUID_7_EBX_AVX512BW (1u << 30)
#define CPUID_80000001_ECX_LAHF (1u << 0)

/*
 * What the kernel puts into the bytes that XSAVE never writes (struct _fpx_sw_bytes in the kernel's
 * asm/sigcontext.h).
 */
#define SOFTWARE_OFFSET 464
#define FP_XSTATE_MAGIC1 0x46505853u
struct software_bytes {
	uint32_t magic1;
	uint32_t extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size;
};

struct component {
	_Atomic uint32_t offset; /* in the standard format; 0 for supervisor components, which it does not have */
	_Atomic uint32_t size;
	_Atomic uint32_t aligned; /* to 64 bytes in the compacted format */
};

static struct {
	atomic_bool ready;
	_Atomic uint64_t enabled; /* XCR0; 0 when XSAVE is not usable */
	_Atomic uint32_t image_size;
	_Atomic uint32_t wide_opmasks; /* 64 bits: AVX512BW */
	_Atomic uint32_t sahf;
	struct component components[COMPONENT_MAX + 1];
} layout;

struct call_layout libpatch_call_layout;

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

static uint64_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

/* Bits of MXCSR that can be set: what FXSAVE says, or those of the first processors (Intel SDM vol. 1, 11.6.6). */
static uint32_t read_mxcsr_mask(void)
{
	uint8_t image[512] __attribute__((aligned(16))) = { 0 };
	uint32_t mask;

	__asm__("fxsave64 %0" : "+m"(image));
	__builtin_memcpy(&mask, image + 28, sizeof(mask));
	return mask != 0 ? mask : 0xffbf;
}

static void read_layout(void)
{
	uint32_t eax, ebx, ecx, edx;
	uint64_t enabled, described;
	uint32_t image_size = EXTENDED_OFFSET;

	libpatch_call_layout.mxcsr_mask = read_mxcsr_mask();
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx))
		SET(layout.sahf, (ecx & CPUID_80000001_ECX_LAHF) != 0);
	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		SET(layout.wide_opmasks, (ebx & CPUID_7_EBX_AVX512BW) != 0);
	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & CPUID_1_ECX_OSXSAVE) == 0)
		return;
	if (__get_cpuid_max(0, NULL) < 0xd)
		return;
	enabled = read_xcr0();
	/* Components of XCR0 and of IA32_XSS; the latter only take room in the compacted format. */
	__cpuid_count(0xd, 0, eax, ebx, ecx, edx);
	described = (uint64_t)edx << 32 | eax;
	__cpuid_count(0xd, 1, eax, ebx, ecx, edx);
	described |= (uint64_t)edx << 32 | ecx;
	for (uint32_t i = 2; i <= COMPONENT_MAX; i++) {
		if ((described >> i & 1) == 0)
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		SET(layout.components[i].size, eax);
		SET(layout.components[i].offset, ebx);
		SET(layout.components[i].aligned, (ecx & CPUID_D_ECX_ALIGNED) != 0);
		if ((enabled & OFFERED_MASK) >> i & 1)
			image_size = MAX(image_size, ebx + eax);
	}
	SET(layout.image_size, image_size);
	SET(layout.enabled, enabled);
	libpatch_call_layout.mask = (uint32_t)(enabled & OFFERED_MASK);
	libpatch_call_layout.opmask = GET(layout.components[5].offset);
	libpatch_call_layout.zmm_hi256 = GET(layout.components[6].offset);
	libpatch_call_layout.hi16_zmm = GET(layout.components[7].offset);
}

void arch_xsave_init(void)
{
	/* Pairs with the release below: a thread that sees `ready` sees the layout. */
	if (atomic_load_explicit(&layout.ready, memory_order_acquire))
		return;
	read_layout();
	atomic_store_explicit(&layout.ready, true, memory_order_release);
}

uint64_t arch_xsave_mask(void)
{
	if (arch_xsave_size() > ROOM)
		return 0;
	return GET(layout.enabled) & OFFERED_MASK;
}

/* Is all extended state preserved: is none named, or more than vectors? */
static bool xsave_preserves_all(uint64_t clobber)
{
	const uint64_t named = ARCH_GENERAL | PATCH_REGS_NO_STATE | PATCH_REGS_VECTOR;

	return (clobber & ~ARCH_GENERAL) == 0 || (clobber & ~named) != 0;
}

/* What is kept, and what is offered, must be both; to keep all and to offer some is to offer all. */
uint64_t arch_join_clobber(uint64_t a, uint64_t b)
{
	const uint64_t general = (a | b) & ARCH_GENERAL, vector = (a | b) & PATCH_REGS_VECTOR;

	if (xsave_preserves_all(a) || xsave_preserves_all(b))
		return general | (arch_offers_state(a) || arch_offers_state(b) ? ~ARCH_GENERAL : 0);
	return general | (vector != 0 ? vector : PATCH_REGS_NO_STATE);
}

/* Moves of xmm registers and FXSAVE do where the kernel does not enable XSAVE, but make no image. */
bool arch_can_preserve(uint64_t clobber)
{
	uint64_t extended = clobber & ~PATCH_REGS_GP_ONLY;

	if (arch_xsave_mask() != 0 || (extended == 0 && clobber & PATCH_REGS_NO_STATE))
		return true;
	return extended == 0 && GET(layout.enabled) == 0;
}

bool arch_has_sahf(void)
{
	arch_xsave_init();
	return GET(layout.sahf);
}

/* What the processor has, as hook_call.S knows it. */
enum { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX512, LEVEL_XSAVE, LEVELS };

static int xsave_level(void)
{
	uint64_t available = arch_xsave_mask();

	if ((available & AVX_MASK) != AVX_MASK)
		return LEVEL_SSE;
	if (GET(layout.components[2].offset) != EXTENDED_OFFSET)
		return LEVEL_XSAVE;
	if ((available & AVX512_MASK) == AVX_MASK)
		return LEVEL_AVX;
	return (available & AVX512_MASK) == AVX512_MASK && GET(layout.wide_opmasks) ? LEVEL_AVX512 : LEVEL_XSAVE;
}

/*
 * More components may be saved than the mask names: the others cost little, and a move to a register of less width
 * would set their part of the register to 0.
 */
arch_call_fn *arch_call_with_state(uint64_t clobber, bool x87_empty)
{
	static const struct {
		arch_call_fn *keep, *keep_x87, *offer, *offer_entry, *offer_x87;
	} calls[LEVELS] = {
#define CALLS(level)                                                                                                   \
	{                                                                                                              \
		libpatch_keep_##level, libpatch_keep_x87_##level, libpatch_offer_##level,                              \
			libpatch_offer_entry_##level, libpatch_offer_x87_##level                                       \
	}
		[LEVEL_SSE] = CALLS(sse),
		[LEVEL_AVX] = CALLS(avx),
		[LEVEL_AVX512] = CALLS(avx512),
		[LEVEL_XSAVE] = { libpatch_keep_xsave, libpatch_keep_xsave, libpatch_offer_xsave, libpatch_offer_xsave,
				  libpatch_offer_xsave },
	};
	uint64_t extended = clobber & ~PATCH_REGS_GP_ONLY;
	int level = xsave_level();

	if (extended == 0) {
		if (clobber & PATCH_REGS_NO_STATE)
			return NULL;
		return x87_empty ? calls[level].keep : calls[level].keep_x87;
	}
	if (extended & ~PATCH_REGS_VECTOR)
		return x87_empty ? calls[level].offer_entry : calls[level].offer_x87;
	return calls[extended == PATCH_REGS_SSE ? LEVEL_SSE : level].offer;
}

size_t arch_xsave_size(void)
{
	arch_xsave_init();
	return GET(layout.image_size);
}

/* Offset of a component, 2 or above, in a compacted image of the components `held` (Intel SDM vol. 1, 13.4.3). */
static size_t compacted_offset(uint64_t held, int component)
{
	size_t offset = EXTENDED_OFFSET;

	for (int i = 2;; i++) {
		if ((held >> i & 1) == 0)
			continue;
		if (GET(layout.components[i].aligned))
			offset = ALIGN_UP(offset, (size_t)64);
		if (i == component)
			return offset;
		offset += GET(layout.components[i].size);
	}
}

/* FSW, the tags, FOP, FIP and FDP. FCW is in the image in any case. */
#define X87_OFFSET 2
#define X87_SIZE 22

/* In an image that a procedure is offered, what is in its initial state has been left out: put it there. */
static void xsave_complete(char *image, struct patch_x86_64_xsave_header *header, uint64_t components)
{
	if (components & 1)
		memset(image + X87_OFFSET, 0, X87_SIZE);
	for (int i = 2; i <= COMPONENT_MAX; i++)
		if (components >> i & 1)
			memset(image + GET(layout.components[i].offset), 0, GET(layout.components[i].size));
	header->xstate_bv |= components;
}

/*
 * How the image came about decides which of its fields count:
 *
 *   a signal frame of a kernel that uses XSAVE has FP_XSTATE_MAGIC1 and says itself what it holds, in standard format
 *   (Linux, arch/x86/kernel/fpu/signal.c: save_sw_bytes(); every 64-bit kernel since 2.6.30); the image of a context
 *   has CALL_MARK in the same place, and is in standard format; everything else was written by an XSAVE instruction,
 *   whose header says the format. The code that makes such an image clears its bytes 464 to 467, or else a value left
 *   there by an old signal frame could be taken for the magic.
 *
 * A frame with neither, of a kernel that does not use XSAVE, cannot be met where OSXSAVE is set; where it is not set
 * nothing behind the legacy region is looked at.
 */
patch_status arch_xsave_component(void *xsave, int component, void **out)
{
	const struct software_bytes *software;
	struct patch_x86_64_xsave_header *header;
	uint64_t enabled, bit;
	size_t offset = 0;

	if (component < 0 || component > COMPONENT_MAX)
		return PATCH_EINVAL;
	arch_xsave_init();
	enabled = GET(layout.enabled);
	bit = UINT64_C(1) << component;
	software = (const void *)((char *)xsave + SOFTWARE_OFFSET);
	header = (void *)((char *)xsave + HEADER_OFFSET);
	if (component >= 2) {
		if ((enabled & bit) == 0)
			return PATCH_ENOTSUP;
		offset = GET(layout.components[component].offset);
	}
	if (enabled == 0 || (software->magic1 == FP_XSTATE_MAGIC1 && component < 2)) {
		offset = 0;
	} else if (software->magic1 == FP_XSTATE_MAGIC1) {
		/* Components with dynamic permission (AMX) are left out of the frames of tasks without it. */
		if ((software->xfeatures & bit) == 0 ||
		    offset + GET(layout.components[component].size) > software->xstate_size)
			return PATCH_ENEXIST;
	} else if (software->magic1 == CALL_MARK) {
		uint64_t room = software->extended_size; /* IMAGE_COMPONENTS in hook_call.S */

		if (component >= 2 && (room & bit) == 0)
			return PATCH_ENEXIST;
		xsave_complete(xsave, header, room & ~header->xstate_bv);
	} else if ((header->xcomp_bv & COMPACTED) != 0) {
		if ((header->xcomp_bv & bit) == 0)
			return PATCH_ENEXIST;
		if (component >= 2)
			offset = compacted_offset(header->xcomp_bv, component);
	}
	*out = (char *)xsave + offset;
	return PATCH_OK;
}
