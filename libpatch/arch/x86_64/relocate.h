/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of copying an instruction (relocate.c).
 */
#ifndef LIBPATCH_ARCH_X86_64_RELOCATE_H
#define LIBPATCH_ARCH_X86_64_RELOCATE_H

#include "arch/canonical.h"
#include "arch/emit.h"

#include <string.h>

/* ---- relocate_far.c ---------------------------------------------------------------------------------------------- */

/* A copy of an instruction whose RIP-relative operand is out of reach, and that arch_refuses_far() does not refuse. */
void arch_emit_far_operand(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);

/* ---- relocate_call.c --------------------------------------------------------------------------------------------- */

/*
 * The return address of a call, onto the stack. Returns the offset that must be told to arch_emit_return_constant()
 * once the jump to the callee is emitted, or 0.
 */
size_t arch_emit_push_return(struct arch_code *code, uintptr_t address);
void arch_emit_return_constant(struct arch_code *code, size_t field, uintptr_t address);
/*
 * The target of an indirect call or jump through a far operand to right below the red zone, and the stack pointer to
 * it.
 */
void arch_emit_far_target_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);
/* A real call, for a return that comes; the stack pointer is at what is right below the red zone, before and after. */
void arch_emit_call_for_return(struct arch_code *code);
/* jmp [rip + ...] in far code */
void arch_emit_jmp_by_return(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);
void arch_relocate_call(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
			const struct arch_map *map);
/* Of FF /2: the same operand with another extension of the opcode. */
void arch_relocate_other(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			 uint8_t extension);

/* ---- relocate.c -------------------------------------------------------------------------------------------------- */

/* The instruction's bytes from `offset` on, its RIP-relative operand (if any) still referring to the same address. */
void arch_relocate_copy(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, size_t offset);
/* loop or jrcxz that passes over `skip` bytes when taken. */
void arch_emit_loop(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uint8_t skip);

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static inline uintptr_t relocate_resolve(const struct arch_map *map, uintptr_t target)
{
	size_t i;

	for (i = 0; map && i < map->count; i++) {
		if (map->from[i] == target)
			return map->to[i];
	}
	return target;
}

/* A stretch that leads back to `copy`. */
static inline void emit_stretch_since(struct arch_code *code, uint8_t kind, size_t copy)
{
	arch_emit_stretch(code, kind, (uint8_t)(code->size - copy));
}

/* A forward branch within the code being emitted: its rel32 field is filled in when the label is known. */
static inline size_t emit_label_field(struct arch_code *code)
{
	arch_emit_u32(code, 0);
	return code->size;
}

static inline bool is_far_operand(const struct arch_code *code, const struct arch_insn *insn)
{
	return code->far && insn->disp_offset != 0;
}

/* The displacement of an operand that has a SIB byte. */
static inline int32_t sib_displacement(const uint8_t *bytes, const struct arch_insn *insn)
{
	const size_t sib_end = insn->modrm_offset + 2U;
	int32_t disp = 0;

	if (insn->length - sib_end == 1)
		disp = (int8_t)bytes[sib_end];
	else if (insn->length - sib_end == 4)
		memcpy(&disp, bytes + sib_end, sizeof(disp));
	return disp;
}

/* jcc rel32 without its displacement; `invert` is 1 for the opposite condition. */
static inline void emit_jcc_opcode(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
				   uint8_t invert)
{
	const uint8_t opcode = bytes[insn->rel_offset - 1];

	arch_emit_u8(code, 0x0F);
	arch_emit_u8(code, 0x80 | ((opcode & 0x0F) ^ invert));
}

static inline void relocate_ret(struct arch_code *code, uint8_t pops)
{
	const uint8_t ret[] = { 0xC2, pops, 0 };

	arch_emit_bytes(code, ret, sizeof(ret));
}

#endif
