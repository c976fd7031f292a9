/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instructions with RIP-relative operands that are out of reach of a rel32: see the exceptions to guarantee 1 in
 * relocate.c.
 */
#include "arch/x86_64/relocate.h"

#include "arch/canonical.h"
#include "arch/x86_64/encode.h"

#include <string.h>

#define OPCODE_LEA 0x8D

/* Legacy prefixes and REX; what follows them is the opcode, or a VEX, EVEX or XOP prefix. */
static size_t legacy_prefixes(const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t legacy[] = { 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3 };
	size_t i = 0;

	while (i < insn->opcode_offset && ((bytes[i] & 0xF0) == 0x40 || memchr(legacy, bytes[i], sizeof(legacy))))
		i++;
	return i;
}

static bool is_primary(const uint8_t *bytes, const struct arch_insn *insn, uint8_t opcode)
{
	return bytes[insn->opcode_offset] == opcode && legacy_prefixes(bytes, insn) == insn->opcode_offset;
}

static uint8_t extension_of(const uint8_t *bytes, const struct arch_insn *insn)
{
	return bytes[insn->modrm_offset] >> 3 & 7;
}

static bool is_16_bits(const uint8_t *bytes, const struct arch_insn *insn)
{
	return memchr(bytes, 0x66, insn->opcode_offset) != NULL && !(arch_rex_of(bytes, insn) & 8);
}

static bool is_push(const uint8_t *bytes, const struct arch_insn *insn)
{
	return is_primary(bytes, insn, 0xFF) && extension_of(bytes, insn) == EXTENSION_PUSH;
}

static bool is_pop(const uint8_t *bytes, const struct arch_insn *insn)
{
	return is_primary(bytes, insn, 0x8F);
}

/*
 * A register that the instruction does not use, to hold the operand's address. It is never a register that functions
 * preserve: an exception that is thrown from here finds the right values in these.
 */
static int scratch_for(const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t candidates[] = { RAX, RCX, RDX, RSI, RDI };
	const uint16_t used = arch_general_registers(bytes, insn);

	for (size_t i = 0; i < sizeof(candidates); i++)
		if (!(used & 1U << candidates[i]))
			return candidates[i];
	return -1;
}

#define NO_MEMORY "no free memory within 2 GiB, and farther away "

const char *arch_refuses_far(const uint8_t *bytes, const struct arch_insn *insn)
{
	bool moves_target;

	if (insn->disp_offset == 0 || insn->kind == ARCH_TRAP || is_primary(bytes, insn, OPCODE_LEA))
		return NULL;
	if (insn->kind == ARCH_JMP_IND && extension_of(bytes, insn) != EXTENSION_JMP)
		return NO_MEMORY "a far jump through a RIP-relative operand cannot be displaced";
	moves_target = insn->kind == ARCH_JMP_IND || insn->kind == ARCH_CALL_IND;
	if (moves_target || is_push(bytes, insn) || is_pop(bytes, insn)) {
		if (is_16_bits(bytes, insn))
			return NO_MEMORY "a RIP-relative operand of 16 bits cannot be pushed, popped or jumped to";
		return NULL;
	}
	if (arch_general_registers(bytes, insn) & 1U << RSP)
		return NO_MEMORY "an instruction with a RIP-relative operand and the stack pointer cannot be displaced";
	if (scratch_for(bytes, insn) < 0)
		return NO_MEMORY "an instruction with a RIP-relative operand and so many registers cannot be displaced";
	return NULL;
}

/* lea r, [rip + ...] as mov r, immediate */
static void emit_far_lea(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	const uint8_t rex = arch_rex_of(bytes, insn);
	const bool short_one = is_16_bits(bytes, insn);
	const uint16_t low = (uint16_t)insn->target;

	if (short_one)
		arch_emit_u8(code, 0x66);
	/* REX.R of ModRM's reg is REX.B of the opcode's. */
	if (rex & 0x0C)
		arch_emit_u8(code, 0x40 | (rex & 8) | (rex & 4) >> 2);
	arch_emit_u8(code, 0xB8 | extension_of(bytes, insn));
	if (rex & 8)
		arch_emit_u64(code, insn->target);
	else if (short_one)
		arch_emit_bytes(code, &low, sizeof(low));
	else
		arch_emit_u32(code, (uint32_t)insn->target);
}

static void emit_mov_address(struct arch_code *code, uint8_t scratch, uintptr_t address)
{
	arch_emit_u8(code, 0x48);
	arch_emit_u8(code, 0xB8 | scratch);
	arch_emit_u64(code, address);
}

/* The instruction with [scratch] instead of its RIP-relative operand. */
static void emit_with_scratch(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			      uint8_t scratch)
{
	const size_t prefixes = legacy_prefixes(bytes, insn);
	uint8_t changed[INSN_MAX];

	memcpy(changed, bytes, insn->length);
	changed[insn->modrm_offset] = (uint8_t)((bytes[insn->modrm_offset] & 0x38) | scratch);
	/* The extension of the base has no meaning for a RIP-relative operand. It is inverted but in REX. */
	if (prefixes != insn->opcode_offset) {
		if (changed[prefixes] != 0xC5)
			changed[prefixes + 1] |= 0x20;
	} else if (arch_rex_of(bytes, insn) != 0) {
		changed[insn->opcode_offset - 1] &= 0xFE;
	}
	arch_emit_bytes(code, changed, insn->disp_offset);
	arch_emit_bytes(code, changed + insn->disp_offset + 4, insn->length - insn->disp_offset - 4U);
}

static const uint8_t pass_red_zone[] = { 0x48, 0x8D, 0x64, 0x24, 0x80 }; /* lea rsp, [rsp - 128] */

/* The stack pointer below the red zone and one register there. */
static void emit_borrow(struct arch_code *code, uint8_t scratch)
{
	arch_emit_bytes(code, pass_red_zone, sizeof(pass_red_zone));
	arch_emit_row(code, RED_ZONE);
	arch_emit_u8(code, PUSH | scratch);
	arch_emit_row(code, RED_ZONE + 1);
	arch_emit_stretch(code, (uint8_t)(ARCH_BORROWED | scratch << ARCH_STRETCH_REGISTER),
			  sizeof(pass_red_zone) + 1);
}

/*
 * And back. The instruction has been executed, and has taken `pops` bytes off the stack. The rows are those of the next
 * instruction: a thread that resumes by them does not execute this one again.
 */
static void emit_give_back(struct arch_code *code, const struct arch_insn *insn, uint8_t scratch, int pops)
{
	static const uint8_t lea_rsp[] = { 0x48, 0x8D, 0xA4, 0x24 }; /* lea rsp, [rsp + disp32] */

	code->original += insn->length;
	arch_emit_row(code, (uint8_t)(RED_ZONE + 1 + pops / 8));
	arch_emit_stretch(code, (uint8_t)(ARCH_GIVEN_BACK | scratch << ARCH_STRETCH_REGISTER), 0);
	arch_emit_u8(code, POP | scratch);
	arch_emit_row(code, (uint8_t)(RED_ZONE + pops / 8));
	arch_emit_bytes(code, lea_rsp, sizeof(lea_rsp));
	arch_emit_u32(code, (uint32_t)(128 + pops));
	arch_emit_row(code, 0);
}

static void emit_far_push(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t store[] = { 0x48, 0x89, 0x84, 0x24, 128, 0, 0, 0 }; /* mov [rsp + 128], rax */

	emit_borrow(code, RAX);
	arch_emit_load_rax(code, bytes, insn);
	arch_emit_bytes(code, store, sizeof(store));
	emit_give_back(code, insn, RAX, -8);
}

static void emit_far_pop(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t push_top[] = { 0xFF, 0xB4, 0x24, 136, 0, 0, 0 }; /* push qword [rsp + 136] */
	static const uint8_t pop_rax[] = { 0x8F, 0x00 };                      /* pop qword [rax] */

	emit_borrow(code, RAX);
	emit_mov_address(code, RAX, insn->target);
	arch_emit_bytes(code, push_top, sizeof(push_top));
	arch_emit_row(code, RED_ZONE + 2);
	arch_emit_segment(code, bytes, insn);
	arch_emit_bytes(code, pop_rax, sizeof(pop_rax));
	emit_give_back(code, insn, RAX, 8);
}

/*
 * A borrowed register holds the address: a signal handler that looks at it after a fault of the operand, or in between,
 * sees that. A handler that makes the operand accessible and returns has the instruction executed again.
 */
void arch_emit_far_operand(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	int scratch;

	if (is_primary(bytes, insn, OPCODE_LEA)) {
		emit_far_lea(code, bytes, insn);
	} else if (is_push(bytes, insn)) {
		emit_far_push(code, bytes, insn);
	} else if (is_pop(bytes, insn)) {
		emit_far_pop(code, bytes, insn);
	} else {
		scratch = scratch_for(bytes, insn);
		emit_borrow(code, (uint8_t)scratch);
		emit_mov_address(code, (uint8_t)scratch, insn->target);
		emit_with_scratch(code, bytes, insn, (uint8_t)scratch);
		emit_give_back(code, insn, (uint8_t)scratch, 0);
	}
}
