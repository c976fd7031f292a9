/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread on its way from where it was interrupted to where all registers are the program's: what the parts of
 * canonical.c share.
 */
#ifndef LIBPATCH_ARCH_X86_64_CANONICAL_PARTS_H
#define LIBPATCH_ARCH_X86_64_CANONICAL_PARTS_H

#include "arch/canonical.h"
#include "arch/x86_64/flags.h"

struct canonical {
	const struct arch_code_map *map;
	uintptr_t thread_pointer;
	arch_read_fn *read;
	void *data;
	struct arch_canonical *out;
	struct arch_registers at; /* so far */
	bool failed;
};

/* ---- the block -------------------------------------------------------------------------------------------------- */

static inline uint16_t canonical_end(const struct arch_code_map *map)
{
	const struct arch_stretch *stretch = map->stretches;

	while (stretch->kind != ARCH_STRETCH_END)
		++stretch;
	return stretch->code;
}

static inline bool canonical_is_inside(const struct arch_code_map *map, uintptr_t address)
{
	return address - map->code < canonical_end(map);
}

static inline const struct arch_stretch *canonical_stretch(const struct arch_code_map *map, uintptr_t pc)
{
	const struct arch_stretch *stretch = map->stretches;

	while (stretch[1].code <= pc - map->code)
		++stretch;
	return stretch;
}

static inline const struct arch_row *canonical_row(const struct arch_code_map *map, uintptr_t pc)
{
	const struct arch_row *row = map->rows;

	while (row[1].code <= pc - map->block)
		++row;
	return row;
}

static inline uintptr_t canonical_original(const struct arch_code_map *map, uintptr_t pc)
{
	return map->region + canonical_row(map, pc)->original;
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

static inline uint64_t canonical_word(struct canonical *c, uintptr_t address)
{
	uint64_t word = 0;

	if (!c->read(c->data, address, &word, sizeof(word)))
		c->failed = true;
	return word;
}

static inline uint32_t canonical_half(struct canonical *c, uintptr_t address)
{
	uint32_t half = 0;

	if (!c->read(c->data, address, &half, sizeof(half)))
		c->failed = true;
	return half;
}

static inline void canonical_write(struct canonical *c, uintptr_t address, uint64_t value, uint8_t size)
{
	c->out->writes[c->out->write_count++] = (struct arch_write){ address, value, size };
}

static inline void canonical_take_flags(struct canonical *c, uint64_t flags)
{
	c->at.flags = flags_put_back(c->at.flags, flags);
}

/* The program's stack pointer, by the row. */
static inline uintptr_t canonical_stack_pointer(struct canonical *c)
{
	const struct arch_row *row = canonical_row(c->map, c->at.pc);
	uintptr_t base = c->at.general[ARCH_RSP];

	if (row->cfa & ARCH_ROW_DEREF)
		base = canonical_word(c, base);
	return base + 8U * (row->cfa & ~ARCH_ROW_DEREF);
}

/* canonical_hook.c: from a stretch of a hook to where that began; or false: to where it ends. */
bool canonical_in_hook(struct canonical *c, const struct arch_stretch *stretch, uint8_t kind);

#endif
