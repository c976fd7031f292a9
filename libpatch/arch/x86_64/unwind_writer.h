/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing .eh_frame as code is written: numbers of DWARF 5 and of the x86-64 psABI, and what entries and expressions
 * consist of.
 */
#ifndef LIBPATCH_ARCH_X86_64_UNWIND_WRITER_H
#define LIBPATCH_ARCH_X86_64_UNWIND_WRITER_H

#include "arch/emit.h"
#include "base/dwarf.h"

#define REGISTER_RBX 3
#define REGISTER_RSP 7
#define REGISTER_RIP 16
#define REGISTER_COUNT 17

enum {
	OP_DEREF = 0x06,
	OP_CONST1U = 0x08,
	OP_CONST4U = 0x0c,
	OP_CONST8U = 0x0e,
	OP_DUP = 0x12,
	OP_DROP = 0x13,
	OP_OVER = 0x14,
	OP_PICK = 0x15,
	OP_SWAP = 0x16,
	OP_AND = 0x1a,
	OP_MINUS = 0x1c,
	OP_PLUS = 0x22,
	OP_PLUS_UCONST = 0x23,
	OP_SHL = 0x24,
	OP_SHR = 0x25,
	OP_XOR = 0x27,
	OP_BRA = 0x28,
	OP_EQ = 0x29,
	OP_GT = 0x2b,
	OP_SKIP = 0x2f,
	OP_LIT0 = 0x30,
	OP_BREG0 = 0x70,
	OP_DEREF_SIZE = 0x94
};

static inline void unwind_put_u16(struct arch_code *writer, uint16_t value)
{
	arch_emit_bytes(writer, &value, sizeof(value));
}

static inline void unwind_patch_at(struct arch_code *writer, size_t at, const void *bytes, size_t size)
{
	if (at <= writer->capacity && size <= writer->capacity - at)
		__builtin_memcpy(writer->bytes + at, bytes, size);
}

static inline void unwind_put_operator(struct arch_code *writer, uint8_t operator, uint8_t operand)
{
	arch_emit_u8(writer, operator);
	arch_emit_u8(writer, operand);
}

static inline void unwind_put_const(struct arch_code *writer, uint64_t value)
{
	arch_emit_u8(writer, OP_CONST8U);
	arch_emit_u64(writer, value);
}

/* A 4-byte length of what follows, padded to 8 bytes: begin and end. */
static inline size_t unwind_begin_entry(struct arch_code *writer)
{
	arch_emit_u32(writer, 0);
	return writer->size;
}

static inline void unwind_end_entry(struct arch_code *writer, size_t begin)
{
	uint32_t length;

	while (writer->size % 8 != 0)
		arch_emit_u8(writer, CFA_NOP);
	length = (uint32_t)(writer->size - begin);
	unwind_patch_at(writer, begin - sizeof(length), &length, sizeof(length));
}

/* A ULEB128 length of what follows, always in two bytes, up to 16383: begin and end. */
static inline size_t unwind_begin_expression(struct arch_code *writer)
{
	unwind_put_u16(writer, 0);
	return writer->size;
}

static inline void unwind_end_expression(struct arch_code *writer, size_t begin)
{
	size_t length = writer->size - begin;
	uint8_t bytes[2] = {(uint8_t)(length & 0x7f) | 0x80, (uint8_t)(length >> 7)};

	unwind_patch_at(writer, begin - sizeof(bytes), bytes, sizeof(bytes));
}

#endif
