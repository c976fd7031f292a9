/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executable memory near the code that it serves, for trampolines.
 *
 * Memory is private, anonymous, readable and executable, never writable; it is filled through staging.h. All functions
 * are called with the library lock held.
 *
 * An arena is one mapping:
 *
 *   slots           8 bytes each, for hooks to look at (writable)
 *   code            blocks, each a multiple of a granule
 *
 * and, elsewhere, a granule table: a uint16_t per 16-byte granule of code, how many granules back its block starts. An
 * arena is as large as memory allows: where there is room for one page only, that is code, or slots.
 *
 * A block begins with its map:
 *
 *   +0   uint64_t         address of the region it stands for
 *   +8   struct arch_row  rows, ascending `code` (offset from the block's start), then one with code 0xffff
 *   ...  address of its form (forms.h), in the last row behind `code`, and in the four bytes behind that row
 *   ...  padding, code from rows[0].code on
 */
#ifndef LIBPATCH_CODE_ARENA_H
#define LIBPATCH_CODE_ARENA_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>

#define ARENA_GRANULE 16
#define ARENA_BLOCK_ROWS 8 /* offset of the rows in a block */
#define ARENA_ROW_END 0xffff
#define ARENA_FORM_SHIFT 16 /* of the 64 bits from the last row on, the form's address has the upper 48 */
#define ARENA_NO_BLOCK 0xffff /* in the granule table: the granule belongs to no block */

/* Closed interval of addresses. */
struct arena_reach {
	uintptr_t lower;
	uintptr_t upper;
};

struct arena_block {
	uintptr_t address;
	uint32_t size; /* a multiple of ARENA_GRANULE */
} __attribute__((packed, aligned(4)));

/* Everything within 2 GiB of a rel32 that ends at `address`, less a margin for the size of a trampoline. */
struct arena_reach arena_reach_of(uintptr_t address);
static inline struct arena_reach arena_reach_everything(void)
{
	return (struct arena_reach){ 0, UINTPTR_MAX };
}
/* False when they have nothing in common. */
bool arena_reach_intersect(struct arena_reach *reach, struct arena_reach other);

/* Small arenas are where there is little memory in reach: they are for stubs first (trampoline.h). */
#define ARENA_SMALL (64UL << 10)

/* Arenas that were tried. Zeroed: none yet. */
struct arena_tried {
	bool not_small; /* nor are small ones to be */
	struct arena *last;
	bool new_ones; /* all that there were, and now those that are made */
};

/*
 * A block of at least `size` bytes inside `reach`, in the next arena behind those that were tried that has room, and in
 * the end in a new one, near `near`. PATCH_ENOMEM when there is no such memory.
 */
patch_status arena_alloc(size_t size, uintptr_t near, struct arena_reach reach, struct arena_tried *tried,
			 struct arena_block *block) REQUIRES(library_lock);
/* Where such a block will be that is not to be in a small arena, as a rule; 0: not known. */
uintptr_t arena_next(struct arena_reach reach) REQUIRES(library_lock);
/* Give back a block that no thread was ever led to, or that is proven quiet (I7). */
void arena_free(const struct arena_block *block) REQUIRES(library_lock);

/*
 * Call for what each arena has given out since the last call, in one piece: [lower, upper), of which blocks are where
 * the granule table says. Behind it `room` bytes are free; so many as are returned stay so.
 */
typedef size_t arena_new_fn(uintptr_t lower, uintptr_t upper, size_t room);
void arena_visit_new(arena_new_fn *function) REQUIRES(library_lock);
/* From now on blocks are given out in ascending order alone, and room is left for what arena_visit_new() may want. */
void arena_leave_room(void);

/* The writable part of an arena, for slots.c: slots in [lower, upper), of which those below `fresh` were given out. */
struct arena_slots {
	struct arena_slots *next;
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t fresh;
	uintptr_t free; /* the first free one; each holds the address of the next one */
};
/* Of arenas that have slots, those of the newest one; NULL: there is none. */
struct arena_slots *arena_slots(void) REQUIRES(library_lock);
/* Those of a new arena inside `reach`, near `near`; NULL: no memory. */
struct arena_slots *arena_add_slots(uintptr_t near, struct arena_reach reach) REQUIRES(library_lock);

struct arena_usage {
	uint64_t mappings;
	uint64_t code_bytes;
	uint64_t lost_bytes; /* freed, and never used again */
};
void arena_usage(struct arena_usage *usage) REQUIRES(library_lock);

#endif
