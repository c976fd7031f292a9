/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rows of an unwind table's entry: the rule for the CFA, and where in the frame registers are kept. Of rules of
 * other kinds only that there is one is kept. Rows are made one at a time. A row ends where the instructions advance to
 * a later address.
 *
 * Source: DWARF 5, 6.4.2.
 */
#include "elf/cfa.h"

#include "base/dwarf.h"

#include <string.h>

static bool cfa_pass(struct cursor *at)
{
	uint64_t ignored;

	return cursor_leb128(at, false, &ignored);
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

static void cfa_keep(struct cfa_frame *frame, uint64_t number, int16_t kept)
{
	if (number < CFA_KEPT)
		frame->kept[number] = kept;
}

static void cfa_restore(struct cfa_rows *rows, uint64_t number)
{
	if (number < CFA_KEPT)
		rows->frame.kept[number] = rows->kept_at_first[number];
}

/* A register is kept at an offset, in units of the table's. */
static bool cfa_read_kept(struct cursor *at, struct cfa_rows *rows, uint64_t number, bool is_signed)
{
	uint64_t operand;
	int64_t offset;

	if (!cursor_leb128(at, is_signed, &operand))
		return false;
	if (__builtin_mul_overflow((int64_t)operand, rows->entry.data_alignment, &offset) || offset % 8 != 0 ||
	    offset / 8 <= CFA_KEPT_ELSEWHERE || offset / 8 > INT16_MAX)
		offset = 8 * CFA_KEPT_ELSEWHERE;
	cfa_keep(&rows->frame, number, (int16_t)(offset / 8));
	return true;
}

/* How far an instruction advances; 0: it does not. */
static bool cfa_read_advance(struct cursor *at, uint8_t op, const struct cfa_rows *rows, uint64_t *distance)
{
	uintptr_t address;
	bool is_read = true;

	*distance = 0;
	switch (op) {
	case CFA_SET_LOC:
		if (!cursor_encoded(at, rows->entry.encoding, &address) || address < rows->upper)
			return false;
		*distance = address - rows->upper;
		return true;
	case CFA_ADVANCE_LOC1:
		is_read = cursor_take(at, distance, 1);
		break;
	case CFA_ADVANCE_LOC2:
		is_read = cursor_take(at, distance, 2);
		break;
	case CFA_ADVANCE_LOC4:
		is_read = cursor_take(at, distance, 4);
		break;
	default:
		if ((op & CFA_UPPER) == CFA_ADVANCE_LOC)
			*distance = op & ~CFA_UPPER;
		break;
	}
	return is_read && !__builtin_mul_overflow(*distance, rows->entry.code_alignment, distance);
}

/* An instruction that does not advance. False: there is no such instruction, or it is cut short. */
static bool cfa_apply(struct cursor *at, uint8_t op, struct cfa_rows *rows)
{
	struct cfa_frame *frame = &rows->frame;
	uint64_t number = op & ~CFA_UPPER;

	switch (op & CFA_UPPER) {
	case CFA_OFFSET:
		return cfa_read_kept(at, rows, number, false);
	case CFA_RESTORE:
		cfa_restore(rows, number);
		return true;
	case CFA_ADVANCE_LOC:
		return true;
	}
	switch (op) {
	case CFA_NOP:
	case CFA_SET_LOC:
	case CFA_ADVANCE_LOC1:
	case CFA_ADVANCE_LOC2:
	case CFA_ADVANCE_LOC4:
		return true;
	case CFA_GNU_ARGS_SIZE:
		return cfa_pass(at);
	case CFA_RESTORE_EXTENDED:
		if (!cursor_leb128(at, false, &number))
			return false;
		cfa_restore(rows, number);
		return true;
	case CFA_SAME_VALUE:
	case CFA_UNDEFINED:
		if (!cursor_leb128(at, false, &number))
			return false;
		cfa_keep(frame, number, op == CFA_SAME_VALUE ? CFA_KEPT_NOWHERE : CFA_KEPT_ELSEWHERE);
		return true;
	case CFA_OFFSET_EXTENDED:
	case CFA_OFFSET_EXTENDED_SF:
		return cursor_leb128(at, false, &number) &&
		       cfa_read_kept(at, rows, number, op == CFA_OFFSET_EXTENDED_SF);
	case CFA_REGISTER:
	case CFA_VAL_OFFSET:
	case CFA_VAL_OFFSET_SF:
	case CFA_GNU_NEGATIVE_OFFSET_EXTENDED:
		if (!cursor_leb128(at, false, &number))
			return false;
		cfa_keep(frame, number, CFA_KEPT_ELSEWHERE);
		return cfa_pass(at);
	case CFA_EXPRESSION:
	case CFA_VAL_EXPRESSION:
		if (!cursor_leb128(at, false, &number))
			return false;
		cfa_keep(frame, number, CFA_KEPT_ELSEWHERE);
		return cfa_pass_block(at);
	case CFA_REMEMBER_STATE:
		if (rows->depth == CFA_REMEMBERED)
			return false;
		rows->remembered[rows->depth++] = *frame;
		return true;
	case CFA_RESTORE_STATE:
		if (rows->depth == 0)
			return false;
		*frame = rows->remembered[--rows->depth];
		return true;
	case CFA_DEF_CFA:
		frame->known = true;
		return cfa_read_base(at, frame) && cfa_read_offset(at, frame);
	case CFA_DEF_CFA_SF:
		frame->known = true;
		return cfa_read_base(at, frame) && cfa_read_factored(at, rows);
	/* Behind an expression, these two have nothing to change. */
	case CFA_DEF_CFA_REGISTER:
		return cfa_read_base(at, frame);
	case CFA_DEF_CFA_OFFSET:
		return cfa_read_offset(at, frame);
	case CFA_DEF_CFA_OFFSET_SF:
		return cfa_read_factored(at, rows);
	case CFA_DEF_CFA_EXPRESSION:
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
	memset(rows->kept_at_first, 0, sizeof(rows->kept_at_first));
	rows->damaged = false;
	rows->depth = 0;
	rows->upper = rows->entry.lower;
	common = rows->entry.common;
	/* What functions have in common does not advance. */
	if (!cfa_make_row(rows, &common) || rows->upper != rows->entry.upper)
		cfa_give_up(rows);
	memcpy(rows->kept_at_first, rows->frame.kept, sizeof(rows->kept_at_first));
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
