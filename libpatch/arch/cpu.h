/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this processor, and the calling thread, have: shadow stacks, extended state, SAHF. The thread pointer is in
 * thread_pointer.h.
 */
#ifndef LIBPATCH_ARCH_CPU_H
#define LIBPATCH_ARCH_CPU_H

#include "base/compiler.h"

#include <libpatch/patch.h>

/*
 * Has the calling thread a user shadow stack? RDSSP is a no-op without one (Intel SDM vol. 2; reserved NOP elsewhere).
 */
static inline bool arch_has_shadow_stack(void)
{
	uint64_t pointer = 0;

	__asm__ volatile("rdsspq %0" : "+r"(pointer));
	return pointer != 0;
}

/* Read the processor's XSAVE layout once. */
void arch_xsave_init(void);
/* Components saved for procedures that ask for extended state; 0 when XSAVE is not usable, or the image too large. */
uint64_t arch_xsave_mask(void);
/* Can all that this clobber mask lets a procedure destroy be preserved, and be offered if it says so? */
bool arch_can_preserve(uint64_t clobber);
/* Are LAHF and SAHF there? Early processors lack them in 64-bit mode. */
bool arch_has_sahf(void);
/* Bytes of a standard-format image of those components. */
size_t arch_xsave_size(void);
/*
 * Where a state component is in an XSAVE image: PATCH_OK and *out; PATCH_EINVAL: there is no such number;
 * PATCH_ENOTSUP: the processor or the kernel does not have it; PATCH_ENEXIST: the image does not hold it.
 * Async-signal-safe.
 */
patch_status arch_xsave_component(void *xsave, int component, void **out);

#endif
