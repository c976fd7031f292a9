/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A trampoline while it is being built, and the parts of building it; trampoline.c puts them together.
 */
#ifndef LIBPATCH_CODE_TRAMPOLINE_BUILDER_H
#define LIBPATCH_CODE_TRAMPOLINE_BUILDER_H

#include "arch/canonical.h"
#include "base/scratch.h"
#include "code/trampoline.h"

/* Rows address code with 16 bits; this many of them leave room for the code. */
#define ROWS_MAX 2048
#define STRETCHES_MAX 4096
#define HOOK_STRETCHES (sizeof(struct arch_hook_map) / sizeof(struct arch_stretch))

#define NO_MEMORY "no free memory within 2 GiB of the site and of what its instructions refer to"

/* Scratch memory: it is large. */
struct builder {
	const struct window *window;
	const struct hook *hooks;
	struct built_hook *built; /* the same ones, with their slots */
	size_t count;
	/* The window's instructions, and behind them what has leads. */
	uintptr_t from[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uintptr_t to[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uint16_t entries[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uint8_t index; /* of the instruction being emitted */
	uint8_t lead_count; /* 0: none of them can be used */
	const struct arch_insn *insns; /* the window's */
	struct arch_insn decoded[WINDOW_INSNS_MAX];
	struct arch_cold cold;
	struct arch_row rows[ROWS_MAX];
	struct arch_stretch stretches[STRETCHES_MAX + ARCH_COLD_MAX * HOOK_STRETCHES]; /* and then hooks: a form */
	uint8_t block[ARENA_ROW_END + 1]; /* of which the last one is padding at most */
};
_Static_assert(sizeof(struct builder) <= SCRATCH_BUILDER, "scratch.h");

/* Where code goes, the best first. */
enum trampoline_how {
	TRAMPOLINE_NEAR,  /* within reach, where there is much memory */
	TRAMPOLINE_FAR,   /* out of reach, by 64 bits */
	TRAMPOLINE_ANYHOW /* within reach */
};

/* trampoline_emit.c: all code, for the addresses in `to`. Notes entries, and where diverts go on. */
void trampoline_emit_all(struct builder *builder, struct arch_code *code);

/* trampoline_memory.c: where the block must lie for every displacement in it to reach, but for those to slots. */
struct arena_reach trampoline_reach(const struct builder *builder);
/*
 * Each hook has a slot of its own, and a divert two, which code at the address reaches. Far code reads other slots
 * through a register; a jump has none to spare. False: there is no memory for them. *moved: a slot is a new one.
 */
bool trampoline_bring_slots(const struct builder *builder, uintptr_t address, bool far, bool *moved)
	REQUIRES(library_lock);
/* A block, and slots that its code reaches: in any arena that there is, or can be. */
patch_status trampoline_settle(const struct builder *builder, size_t size, enum trampoline_how how,
			       struct arena_block *block, bool *moved) REQUIRES(library_lock);
/* One of size 0 is none. */
void trampoline_free_block(struct arena_block *block) REQUIRES(library_lock);

/* trampoline_block.c: the block with the code. *message says why not. */
patch_status trampoline_emit_block(struct builder *builder, struct trampoline *trampoline, enum trampoline_how how,
				   const char **message) REQUIRES(library_lock);
/* The stub of a far one. */
patch_status trampoline_emit_stub(struct builder *builder, struct trampoline *trampoline, const char **message)
	REQUIRES(library_lock);

/* trampoline_jump.c: the window's jump. False: there is no pad that reaches the trampoline. */
bool trampoline_link_jump(struct trampoline *trampoline, struct window *window) REQUIRES(library_lock);
/* A pad that does not reach the trampoline: on the other side of the site. False: none. */
bool trampoline_find_pad_beyond(const struct trampoline *trampoline, struct window *window) REQUIRES(library_lock);

#endif
