/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rows of an unwind table's entry, of which only the rule for the CFA is kept: where registers were saved does not
 * matter here. Rows are made one at a time. A row ends where the instructions advance to a later address.
 *
 * Source: DWARF 5, 6.4.2 (instructions) and 7.24 (their encoding); for DW_CFA_GNU_*, Linux Standard Base 5.0, 10.5.2.
 */
#include "elf/cfa.h"

/* The two upper bits of an instruction; the lower six are an operand, or, where the upper ones are 0, the rest. */
enum {
	OP_ADVANCE_LOC = 0x40,
	OP_OFFSET = 0x80,
	OP_RESTORE = 0xc0,
	OP_UPPER = 0xc0
};

enum {
	OP_NOP = 0x00,
	OP_SET_LOC = 0x01,
	OP_ADVANCE_LOC1 = 0x02,
	OP_ADVANCE_LOC2 = 0x03,
	OP_ADVANCE_LOC4 = 0x04,
	OP_OFFSET_EXTENDED = 0x05,
	OP_RESTORE_EXTENDED = 0x06,
	OP_UNDEFINED = 0x07,
	OP_SAME_VALUE = 0x08,
	OP_REGISTER = 0x09,
	OP_REMEMBER_STATE = 0x0a,
	OP_RESTORE_STATE = 0x0b,
	OP_DEF_CFA = 0x0c,
	OP_DEF_CFA_REGISTER = 0x0d,
	OP_DEF_CFA_OFFSET = 0x0e,
	OP_DEF_CFA_EXPRESSION = 0x0f,
	OP_EXPRESSION = 0x10,
	OP_OFFSET_EXTENDED_SF = 0x11,
	OP_DEF_CFA_SF = 0x12,
	OP_DEF_CFA_OFFSET_SF = 0x13,
	OP_VAL_OFFSET = 0x14,
	OP_VAL_OFFSET_SF = 0x15,
	OP_VAL_EXPRESSION = 0x16,
	OP_GNU_ARGS_SIZE = 0x2e,
	OP_GNU_NEGATIVE_OFFSET_EXTENDED = 0x2f
};

/* So many operands in LEB128; their sign does not matter when they are passed over. */
static bool cfa_pass(struct cursor *at, unsigned int count)
{
	uint64_t ignored;

	while (count-- > 0)
		if (!cursor_leb128(at, false, &ignored))
			return false;
	return true;
}

static bool cfa_pass_block(struct cursor *at)
{
	uint64_t size;

	return cursor_leb128(at, false, &size) && cursor_skip(at, size);
}

static bool cfa_read_base(struct cursor *at, struct cfa_frame *frame)
{
	uint64_t base;

	if (!cursor_leb128(at, false, &base) || base > UINT8_MAX)
		return false;
	frame->base = (uint8_t)base;
	return true;
}

static bool cfa_read_offset(struct cursor *at, struct cfa_frame *frame)
{
	uint64_t offset;

	if (!cursor_leb128(at, false, &offset) || offset > INT64_MAX)
		return false;
	frame->offset = (int64_t)offset;
	return true;
}

/* The same, signed, in units of the table's. */
static bool cfa_read_factored(struct cursor *at, struct cfa_rows *rows)
{
	uint64_t offset;

	return cursor_leb128(at, true, &offset) &&
	       !__builtin_mul_overflow((int64_t)offset, rows->entry.data_alignment, &rows->frame.offset);
}

/* How far an instruction advances; 0: it does not. */
static bool cfa_read_advance(struct cursor *at, uint8_t op, const struct cfa_rows *rows, uint64_t *distance)
{
	uintptr_t address;
	bool is_read = true;

	*distance = 0;
	switch (op) {
	case OP_SET_LOC:
		if (!cursor_encoded(at, rows->entry.encoding, &address) || address < rows->upper)
			return false;
		*distance = address - rows->upper;
		return true;
	case OP_ADVANCE_LOC1:
		is_read = cursor_take(at, distance, 1);
		break;
	case OP_ADVANCE_LOC2:
		is_read = cursor_take(at, distance, 2);
		break;
	case OP_ADVANCE_LOC4:
		is_read = cursor_take(at, distance, 4);
		break;
	default:
		if ((op & OP_UPPER) == OP_ADVANCE_LOC)
			*distance = op & ~OP_UPPER;
		break;
	}
	return is_read && !__builtin_mul_overflow(*distance, rows->entry.code_alignment, distance);
}

/* An instruction that does not advance. False: there is no such instruction, or it is cut short. */
static bool cfa_apply(struct cursor *at, uint8_t op, struct cfa_rows *rows)
{
	struct cfa_frame *frame = &rows->frame;

	switch (op & OP_UPPER) {
	case OP_OFFSET:
		return cfa_pass(at, 1);
	case OP_RESTORE:
	case OP_ADVANCE_LOC:
		return true;
	}
	switch (op) {
	case OP_NOP:
	case OP_SET_LOC:
	case OP_ADVANCE_LOC1:
	case OP_ADVANCE_LOC2:
	case OP_ADVANCE_LOC4:
		return true;
	case OP_RESTORE_EXTENDED:
	case OP_UNDEFINED:
	case OP_SAME_VALUE:
	case OP_GNU_ARGS_SIZE:
		return cfa_pass(at, 1);
	case OP_OFFSET_EXTENDED:
	case OP_REGISTER:
	case OP_OFFSET_EXTENDED_SF:
	case OP_VAL_OFFSET:
	case OP_VAL_OFFSET_SF:
	case OP_GNU_NEGATIVE_OFFSET_EXTENDED:
		return cfa_pass(at, 2);
	case OP_EXPRESSION:
	case OP_VAL_EXPRESSION:
		return cfa_pass(at, 1) && cfa_pass_block(at);
	case OP_REMEMBER_STATE:
		if (rows->depth == CFA_REMEMBERED)
			return false;
		rows->remembered[rows->depth++] = *frame;
		return true;
	case OP_RESTORE_STATE:
		if (rows->depth == 0)
			return false;
		*frame = rows->remembered[--rows->depth];
		return true;
	case OP_DEF_CFA:
		frame->known = true;
		return cfa_read_base(at, frame) && cfa_read_offset(at, frame);
	case OP_DEF_CFA_SF:
		frame->known = true;
		return cfa_read_base(at, frame) && cfa_read_factored(at, rows);
	/* Behind an expression, these two have nothing to change. */
	case OP_DEF_CFA_REGISTER:
		return cfa_read_base(at, frame);
	case OP_DEF_CFA_OFFSET:
		return cfa_read_offset(at, frame);
	case OP_DEF_CFA_OFFSET_SF:
		return cfa_read_factored(at, rows);
	case OP_DEF_CFA_EXPRESSION:
		frame->known = false;
		return cfa_pass_block(at);
	default:
		return false;
	}
}

/*
 * Make the row that begins at rows->upper: apply instructions up to one that advances, or to their end. Instructions
 * behind the end of the function are not looked at.
 */
static bool cfa_make_row(struct cfa_rows *rows, struct cursor *at)
{
	uintptr_t end = rows->entry.upper;
	uint64_t distance;
	uint8_t op;

	rows->lower = rows->upper;
	while (cursor_u8(at, &op)) {
		if (!cfa_read_advance(at, op, rows, &distance) || !cfa_apply(at, op, rows))
			return false;
		if (distance >= end - rows->lower)
			break;
		if (distance != 0) {
			rows->upper = rows->lower + distance;
			return true;
		}
	}
	rows->upper = end;
	return true;
}

static void cfa_give_up(struct cfa_rows *rows)
{
	rows->damaged = true;
	rows->frame = (struct cfa_frame){ 0 };
	rows->upper = rows->entry.upper;
}

bool cfa_begin(struct cfa_rows *rows, const struct module *module, uintptr_t address)
{
	struct cursor common;

	if (!eh_frame_find(module, address, &rows->entry, NULL))
		return false;
	rows->frame = (struct cfa_frame){ 0 };
	rows->damaged = false;
	rows->depth = 0;
	rows->upper = rows->entry.lower;
	common = rows->entry.common;
	/* What functions have in common does not advance. */
	if (!cfa_make_row(rows, &common) || rows->upper != rows->entry.upper)
		cfa_give_up(rows);
	rows->lower = rows->upper = rows->entry.lower;
	if (rows->damaged || !cfa_make_row(rows, &rows->entry.rows))
		cfa_give_up(rows);
	return true;
}

bool cfa_next(struct cfa_rows *rows)
{
	if (rows->upper == rows->entry.upper)
		return false;
	if (!cfa_make_row(rows, &rows->entry.rows))
		cfa_give_up(rows);
	return true;
}
