/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing code: fields that refer to something, rows. */
#include "arch/arch.h"

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

void arch_emit_jmp(struct arch_code *code, uintptr_t target)
{
	static const uint8_t jmp_constant[] = { 0xFF, 0x25 }; /* jmp [rip + rel32] */

	if (code->far) {
		arch_emit_bytes(code, jmp_constant, sizeof(jmp_constant));
		arch_emit_u32(code, 0);
		arch_emit_constant(code, code->size, target);
	} else {
		arch_emit_u8(code, ARCH_JMP_REL32);
		arch_emit_rel32(code, target, 0);
	}
}

void arch_emit_row(struct arch_code *code, uint8_t cfa)
{
	const struct arch_row row = { (uint16_t)code->size, code->original, cfa };
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

enum arch_trap_class arch_trap_class(uint8_t byte)
{
	static const uint8_t classes[256] = {
		[ARCH_INT3] = ARCH_TRAP_SIGTRAP,
		[0x06] = ARCH_TRAP_SIGILL, [0x07] = ARCH_TRAP_SIGILL, [0x0E] = ARCH_TRAP_SIGILL,
		[0x16] = ARCH_TRAP_SIGILL, [0x17] = ARCH_TRAP_SIGILL, [0x1E] = ARCH_TRAP_SIGILL,
		[0x1F] = ARCH_TRAP_SIGILL, [0x27] = ARCH_TRAP_SIGILL, [0x2F] = ARCH_TRAP_SIGILL,
		[0x37] = ARCH_TRAP_SIGILL, [0x3F] = ARCH_TRAP_SIGILL, [0x60] = ARCH_TRAP_SIGILL,
		[0x61] = ARCH_TRAP_SIGILL, [0x82] = ARCH_TRAP_SIGILL, [0x9A] = ARCH_TRAP_SIGILL,
		[0xCE] = ARCH_TRAP_SIGILL, [0xD4] = ARCH_TRAP_SIGILL, [0xD6] = ARCH_TRAP_SIGILL,
		[0xEA] = ARCH_TRAP_SIGILL,
	};

	return (enum arch_trap_class)classes[byte];
}

/*
 * As the top byte of a rel32. After int3 (-832 MiB) those of the same direction: below an image there is neither heap
 * nor stack, and position-independent code always has something there. Then, for images at low fixed addresses,
 * upwards, farthest first: brk grows from the image's end.
 */
const uint8_t arch_top_trap_bytes[] = {
	ARCH_INT3,
	0xCE, 0xD4, 0xD6, 0xEA, 0x9A, 0x82,
	0x61, 0x60, 0x3F, 0x37, 0x2F, 0x27, 0x1F, 0x1E, 0x17, 0x16, 0x0E, 0x07, 0x06,
};
const size_t arch_top_trap_byte_count = ARRAY_SIZE(arch_top_trap_bytes);
