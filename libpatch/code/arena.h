/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executable memory at wanted addresses: arenas for trampolines, near their sites, and pads, 5-byte jumps at the
 * particular addresses that constrained displacements can reach.
 *
 * Memory is private, anonymous, readable and executable, never writable; it is filled through text.h. All functions but
 * arena_original_pc() are called with the library lock held.
 *
 * An arena is one mapping:
 *
 *   granule table   uint16_t per 16-byte granule of code: how many granules back its block starts (writable)
 *   slots           8 bytes each, for hooks to look at (writable)
 *   code            blocks, each a multiple of a granule
 *
 * A block begins with its map:
 *
 *   +0   uint64_t         address of the region it stands for
 *   +8   struct arch_row  rows, ascending `code` (offset from the block's start), then one with code 0xffff
 *   ...  padding, code from rows[0].code on
 */
#ifndef LIBPATCH_CODE_ARENA_H
#define LIBPATCH_CODE_ARENA_H

#include "base/compiler.h"

#include <libpatch/patch.h>

#define ARENA_GRANULE 16
#define ARENA_BLOCK_ROWS 8 /* offset of the rows in a block */
#define ARENA_ROW_END 0xffff

/* Closed interval of addresses. */
struct arena_reach {
	uintptr_t lower;
	uintptr_t upper;
};

struct arena_block {
	uintptr_t address;
	uint32_t size; /* a multiple of ARENA_GRANULE */
};

/* Everything within 2 GiB of a rel32 that ends at `address`, less a margin for the size of a trampoline. */
struct arena_reach arena_reach_of(uintptr_t address);
static inline struct arena_reach arena_reach_everything(void)
{
	return (struct arena_reach){ 0, UINTPTR_MAX };
}
/* False when they have nothing in common. */
bool arena_reach_intersect(struct arena_reach *reach, struct arena_reach other);

/* A block of at least `size` bytes inside `reach`, near `near`. PATCH_ENOMEM when there is no such memory. */
patch_status arena_alloc(size_t size, uintptr_t near, struct arena_reach reach, struct arena_block *block);
/* Where such a block will be, as a rule; 0: not known. */
uintptr_t arena_next(struct arena_reach reach);
/* Give back a block that no thread was ever led to, or that is proven quiet (I7). */
void arena_free(const struct arena_block *block);

/*
 * The address of 8 writable bytes, 0, that code near `near` can reach if there is memory for that, else of some anywhere, for
 * far code. 0: no memory.
 */
uintptr_t hook_slot_alloc(uintptr_t near);
/* Give back one that no thread was ever led to code for. */
void hook_slot_free(uintptr_t slot);

/*
 * A pad: 5 free bytes at source + disp, where disp's bytes selected by `fixed_mask` have the values of `fixed_value`
 * (a little-endian rel32; `source` is the address behind the jump). The pad can reach `reach` by rel32.
 * On success *pad is its address.
 */
patch_status pad_alloc(uintptr_t source, uint32_t fixed_mask, uint32_t fixed_value, struct arena_reach reach,
			     uintptr_t *pad);
void pad_free(uintptr_t pad);

/*
 * Original address for a pc in a block or at a pad. Async-signal-safe, any thread, no lock.
 */
bool arena_original_pc(uintptr_t pc, uintptr_t *original);
/* Is pc in any arena or pad mapping? Same guarantees. */
bool arena_contains(uintptr_t pc);

/* Unwind descriptions made since the last call are registered here: outside the library lock, with signals blocked. */
void arena_register_unwind(void);
/* Are there any? */
bool arena_has_unregistered(void);

struct arena_usage {
	uint64_t mappings;
	uint64_t code_bytes;
	uint64_t pads;
	uint64_t pad_bytes;
};
void arena_usage(struct arena_usage *usage);
/* Its part of pads. */
void pad_usage(struct arena_usage *usage);

#endif
