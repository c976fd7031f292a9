/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pads: 5-byte jumps at the particular addresses that a jump with a constrained displacement can reach. Memory is as
 * that of arenas (arena.h). Called with the library lock held.
 */
#ifndef LIBPATCH_CODE_PAD_H
#define LIBPATCH_CODE_PAD_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/arena.h"

#include <libpatch/patch.h>

/*
 * A pad: 5 free bytes at source + disp, where disp's bytes selected by `fixed_mask` have the values of `fixed_value`
 * (a little-endian rel32; `source` is the address behind the jump). The pad can reach `reach` by rel32.
 * On success *pad is its address.
 */
patch_status pad_alloc(uintptr_t source, uint32_t fixed_mask, uint32_t fixed_value, struct arena_reach reach,
		       uintptr_t *pad) REQUIRES(library_lock);
void pad_free(uintptr_t pad) REQUIRES(library_lock);

struct pad_usage {
	uint64_t pads;
	uint64_t bytes; /* of pages with pads */
};
void pad_usage(struct pad_usage *usage) REQUIRES(library_lock);

#endif
