/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pieces of machine code that more than one generator writes. Nothing here knows what the code is for.
 */
#include "arch/emit.h"
#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

void arch_emit_constant(struct arch_code *code, size_t field_end, uint64_t value)
{
	while (arch_code_here(code) % sizeof(value) != 0)
		arch_emit_u8(code, ARCH_INT3);
	arch_emit_label(code, field_end);
	arch_emit_u64(code, value);
}

static const uint8_t jmp_memory[] = { 0xFF, 0x25 }; /* jmp [rip + rel32] */

void arch_emit_jmp_slot(struct arch_code *code, uintptr_t slot)
{
	arch_emit_bytes(code, jmp_memory, sizeof(jmp_memory));
	arch_emit_rel32(code, slot, 0);
}

void arch_emit_jmp(struct arch_code *code, uintptr_t target)
{
	if (code->far) {
		arch_emit_bytes(code, jmp_memory, sizeof(jmp_memory));
		arch_emit_u32(code, 0);
		arch_emit_constant(code, code->size, target);
	} else {
		arch_emit_u8(code, ARCH_JMP_REL32);
		arch_emit_rel32(code, target, 0);
	}
}

void arch_emit_segment(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	for (size_t i = 0; i < insn->opcode_offset; i++)
		if (bytes[i] == 0x64 || bytes[i] == 0x65)
			arch_emit_u8(code, bytes[i]);
}

void arch_emit_load_rax(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t mov_moffs[] = { 0x48, 0xA1 };

	arch_emit_segment(code, bytes, insn);
	arch_emit_bytes(code, mov_moffs, sizeof(mov_moffs));
	arch_emit_u64(code, insn->target);
}
