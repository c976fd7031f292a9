/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layout of XSAVE images (Intel SDM vol. 1, 13.4 and 13.5.2; AMD APM vol. 2, 11.5).
 *
 * CPUID is intercepted in virtual machines, so the layout is read once. Any number of threads and signal handlers may
 * do so at once: they store equal values and then set `ready`.
 */
#include "../arch.h"

#include "frame.h"

#include <cpuid.h>

#define HEADER_OFFSET 512
#define EXTENDED_OFFSET 576 /* legacy region and header */
#define COMPONENT_MAX 62
#define COMPACTED (UINT64_C(1) << 63)

/* x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM */
#define OFFERED_MASK UINT64_C(0xe7)

#define CPUID_1_ECX_OSXSAVE (1u << 27)
#define CPUID_D_ECX_ALIGNED (1u << 1)

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
	struct component components[COMPONENT_MAX + 1];
} layout;

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

static uint64_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static void read_layout(void)
{
	uint32_t eax, ebx, ecx, edx;
	uint64_t enabled, described;
	uint32_t image_size = EXTENDED_OFFSET;

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
}

void arch_xsave_init(void)
{
	/* Pairs with the release below: whoever sees `ready` sees the layout. */
	if (atomic_load_explicit(&layout.ready, memory_order_acquire))
		return;
	read_layout();
	atomic_store_explicit(&layout.ready, true, memory_order_release);
}

uint64_t arch_xsave_mask(void)
{
	/* Hooks have room for so much, which every combination of the offered components fits in so far. */
	if (arch_xsave_size() > ARCH_HOOK_IMAGE_SIZE)
		return 0;
	return GET(layout.enabled) & OFFERED_MASK;
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

/*
 * How the image came about decides which of its fields count:
 *
 *   a signal frame of a kernel that uses XSAVE has FP_XSTATE_MAGIC1 and says itself what it holds, in standard
 *   format (Linux, arch/x86/kernel/fpu/signal.c: save_sw_bytes(); every 64-bit kernel since 2.6.30);
 *   everything else was written by an XSAVE instruction, whose header says the format. Whoever makes such an image
 *   clears its bytes 464 to 467, or a value left there by an old signal frame could be taken for the magic.
 *
 * A frame with neither, of a kernel that does not use XSAVE, cannot be met where OSXSAVE is set; where it is not set
 * nothing behind the legacy region is looked at.
 */
EXPORT patch_status patch_x86_64_state_component(void *xsave, int component, void **out, void *reserved)
{
	const struct software_bytes *software;
	const struct patch_x86_64_xsave_header *header;
	uint64_t enabled, bit;
	size_t offset = 0;

	if (xsave == NULL || out == NULL || reserved != NULL || component < 0 || component > COMPONENT_MAX)
		return PATCH_EINVAL;
	arch_xsave_init();
	enabled = GET(layout.enabled);
	bit = UINT64_C(1) << component;
	software = (const void *)((char *)xsave + SOFTWARE_OFFSET);
	header = (const void *)((char *)xsave + HEADER_OFFSET);
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
	} else if ((header->xcomp_bv & COMPACTED) != 0) {
		if ((header->xcomp_bv & bit) == 0)
			return PATCH_ENEXIST;
		if (component >= 2)
			offset = compacted_offset(header->xcomp_bv, component);
	}
	*out = (char *)xsave + offset;
	return PATCH_OK;
}
