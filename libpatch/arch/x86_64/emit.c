/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing machine code into a buffer: fields that refer to an address or to another offset, rows, and the pieces that
 * more than one generator writes. Nothing here knows what the code is for.
 */
#include "arch/emit.h"
#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

#include <string.h>

void arch_emit_rel32(struct arch_code *code, uintptr_t target, size_t tail)
{
	const int64_t distance = (int64_t)(target - (arch_code_here(code) + 4 + tail));

	if (distance != (int32_t)distance)
		code->out_of_range = true;
	arch_emit_u32(code, (uint32_t)distance);
}

void arch_emit_label_at(struct arch_code *code, size_t field_end, size_t offset)
{
	const uint32_t distance = (uint32_t)(offset - field_end);

	if (code->bytes && field_end <= code->capacity)
		memcpy(code->bytes + field_end - sizeof(distance), &distance, sizeof(distance));
}

void arch_emit_label(struct arch_code *code, size_t field_end)
{
	arch_emit_label_at(code, field_end, code->size);
}

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

void arch_emit_row(struct arch_code *code, uint8_t cfa)
{
	const struct arch_row row = { (uint16_t)code->size, code->original, (uint8_t)(cfa + code->pushed) };
	const struct arch_row *last;

	/* A row cannot point that far; the generator's caller gives up on the site as for any distance too long. */
	if (code->size > UINT16_MAX)
		code->out_of_range = true;
	if (code->rows && code->row_count <= code->row_capacity) {
		if (code->row_count > 0 && code->rows[code->row_count - 1].code == row.code)
			code->row_count--;
		if (code->row_count > 0) {
			last = &code->rows[code->row_count - 1];
			if (last->original == row.original && last->cfa == row.cfa)
				return;
		}
		if (code->row_count < code->row_capacity)
			code->rows[code->row_count] = row;
	}
	code->row_count++;
}

void arch_emit_stretch(struct arch_code *code, uint8_t kind, uint8_t arg)
{
	if (code->stretches == NULL)
		return;
	if (code->stretch_count > 0 && code->stretch_count <= code->stretch_capacity &&
	    code->stretches[code->stretch_count - 1].code == code->size)
		code->stretch_count--;
	if (code->stretch_count < code->stretch_capacity)
		code->stretches[code->stretch_count] = (struct arch_stretch){ (uint16_t)code->size, kind, arg };
	code->stretch_count++;
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
