/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies with a hole on each way out of the instruction, for hooks that run behind it. What is guaranteed of them is
 * said in relocate.c.
 */
#include "arch/x86_64/relocate.h"

#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

#include <string.h>

/* A hole, where `pushed` words on the stack are not the program's. */
static void emit_hole(struct arch_code *code, const struct arch_exit *way, uint8_t pushed, arch_exit_fn *exit,
		      void *data)
{
	code->pushed = pushed;
	exit(code, way, data);
	code->pushed = 0;
	arch_emit_row(code, pushed);
}

/* Read the target of an indirect call, and keep it where it will be right below the return address. */
static void emit_keep_target(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t push_again[] = { 0xFF, 0x34, 0x24 };        /* push [rsp] */
	static const uint8_t drop_both[] = { 0x48, 0x8D, 0x64, 0x24, 16 }; /* lea rsp, [rsp + 16] */
	/* POP computes its address with the stack pointer that it leaves. */
	static const uint8_t pop_kept[] = { 0x8F, 0x44, 0x24, 112 }; /* pop [rsp + 112] */
	static const uint8_t drop_red_zone[] = { 0x48, 0x8D, 0xA4, 0x24, 128, 0, 0, 0 }; /* lea rsp, [rsp + 128] */

	if (is_far_operand(code, insn)) {
		arch_emit_far_target_below(code, bytes, insn);
		arch_emit_bytes(code, pop_kept, sizeof(pop_kept));
		arch_emit_row(code, RED_ZONE);
		arch_emit_bytes(code, drop_red_zone, sizeof(drop_red_zone));
	} else {
		arch_relocate_other(code, bytes, insn, EXTENSION_PUSH);
		arch_emit_row(code, 1);
		arch_emit_bytes(code, push_again, sizeof(push_again));
		arch_emit_row(code, 2);
		arch_emit_bytes(code, drop_both, sizeof(drop_both));
	}
	arch_emit_row(code, 0);
}

/* A hook keeps the red zone, in which the target is, and signal handlers do. */
static void emit_call_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			     uintptr_t address, const struct arch_map *map, arch_exit_fn *exit, void *data)
{
	static const uint8_t jmp_kept[] = { 0xFF, 0x64, 0x24, 0xF8 }; /* jmp [rsp - 8] */
	const bool indirect = insn->kind == ARCH_CALL_IND;
	const struct arch_exit way = { .next = address + insn->length, .held = indirect ? ARCH_HELD_BELOW : 0 };
	const size_t copy = code->size;
	size_t field;

	if (indirect)
		emit_keep_target(code, bytes, insn);
	/* The operand may be where the return address is written. */
	if (insn->flags & ARCH_F_MEM_RSP)
		arch_emit_stretch(code, ARCH_COPY, 0);
	else
		emit_stretch_since(code, ARCH_COPY, copy);
	field = arch_emit_push_return(code, way.next);
	emit_hole(code, &way, 1, exit, data);
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	if (indirect)
		arch_emit_bytes(code, jmp_kept, sizeof(jmp_kept));
	else
		arch_emit_jmp(code, relocate_resolve(map, insn->target));
	arch_emit_return_constant(code, field, way.next);
}

static bool is_register(const uint8_t *bytes, const struct arch_insn *insn)
{
	return bytes[insn->modrm_offset] >> 6 == 3;
}

/* The number of the register of an FF /4. */
static uint8_t register_of(const uint8_t *bytes, const struct arch_insn *insn)
{
	return (uint8_t)((bytes[insn->modrm_offset] & 7) | (arch_rex_of(bytes, insn) & 1) << 3);
}

/* Push the operand of an FF /4 from below the red zone. */
static void emit_push_from_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	uint8_t push[INSN_MAX];
	int32_t disp;

	if (!(insn->flags & ARCH_F_MEM_RSP)) {
		arch_relocate_other(code, bytes, insn, EXTENSION_PUSH);
		return;
	}
	disp = sib_displacement(bytes, insn) + 128;
	memcpy(push, bytes, insn->modrm_offset + 2U);
	push[insn->modrm_offset] = 0x84 | EXTENSION_PUSH << 3;
	arch_emit_bytes(code, push, insn->modrm_offset + 2U);
	arch_emit_u32(code, (uint32_t)disp);
}

/*
 * A jump whose target must be read before the hole and is in no register behind it. It has a live red zone, so the
 * target is kept below that, and a return leads there.
 */
static void emit_jmp_kept(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			  arch_exit_fn *exit, void *data)
{
	static const uint8_t skip[] = { 0x48, 0x8D, 0x64, 0x24, 0x80 }; /* lea rsp, [rsp - 128] */
	const struct arch_exit way = { .held = ARCH_HELD_ON_TOP, .above = 136 };

	if (is_far_operand(code, insn)) {
		arch_emit_far_target_below(code, bytes, insn);
	} else {
		arch_emit_bytes(code, skip, sizeof(skip));
		arch_emit_row(code, RED_ZONE);
		emit_push_from_below(code, bytes, insn);
		arch_emit_row(code, RED_ZONE + 1);
	}
	emit_hole(code, &way, RED_ZONE + 1, exit, data);
	arch_emit_stretch(code, ARCH_JMP_KEPT, 0);
	arch_emit_call_for_return(code);
	relocate_ret(code, 128);
	arch_emit_row(code, 0);
}

static bool is_kept(const uint8_t *bytes, const struct arch_insn *insn, uint16_t written)
{
	return insn->kind == ARCH_JMP_IND &&
	       (!is_register(bytes, insn) || written & 1U << register_of(bytes, insn));
}

/* What a near return takes off the stack: ret, ret imm16. */
static int32_t popped_by(const uint8_t *bytes, const struct arch_insn *insn)
{
	const uint8_t *operand = bytes + insn->opcode_offset;

	return operand[0] == 0xC2 ? 8 + (operand[1] | operand[2] << 8) : 8;
}

/* A return, or a jump through a register that the hole does not change. */
static void emit_leaving_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
				arch_exit_fn *exit, void *data)
{
	struct arch_exit way = { .held = ARCH_HELD_ON_TOP };

	if (insn->kind == ARCH_RET)
		way.above = popped_by(bytes, insn);
	else
		way.held = register_of(bytes, insn);
	emit_hole(code, &way, 0, exit, data);
	arch_emit_stretch(code, ARCH_COPY, 0);
	arch_relocate_copy(code, bytes, insn, 0);
}

static void emit_direct_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			       uintptr_t address, const struct arch_map *map, arch_exit_fn *exit, void *data)
{
	const struct arch_exit taken = { .next = insn->target }, not_taken = { .next = address + insn->length };
	size_t field = 0;

	/* Not taken: to the label behind the jump. */
	if (insn->kind == ARCH_JCC) {
		emit_jcc_opcode(code, bytes, insn, 1);
		field = emit_label_field(code);
	} else if (insn->kind == ARCH_LOOP) {
		arch_emit_loop(code, bytes, insn, ARCH_JMP_SIZE);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_u8(code, ARCH_JMP_REL32);
		field = emit_label_field(code);
	}
	emit_hole(code, &taken, 0, exit, data);
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	arch_emit_jmp(code, relocate_resolve(map, insn->target));
	if (insn->kind != ARCH_JMP) {
		arch_emit_label(code, field);
		emit_hole(code, &not_taken, 0, exit, data);
	}
}

void arch_relocate_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			  uintptr_t address, const struct arch_map *map, uint16_t written, arch_exit_fn *exit,
			  void *data)
{
	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	if (insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND)
		emit_call_around(code, bytes, insn, address, map, exit, data);
	else if (is_kept(bytes, insn, written))
		emit_jmp_kept(code, bytes, insn, exit, data);
	else if (insn->kind == ARCH_JMP_IND || insn->kind == ARCH_RET)
		emit_leaving_around(code, bytes, insn, exit, data);
	else
		emit_direct_around(code, bytes, insn, address, map, exit, data);
}

const char *arch_refuses_around(const uint8_t *bytes, const struct arch_insn *insn, uint16_t written, bool shadow_stack)
{
	const size_t sib_end = insn->modrm_offset + 2U;

	if (insn->kind == ARCH_TRAP)
		return "control never comes back behind a trapping instruction";
	if (insn->kind == ARCH_XBEGIN)
		return "a call behind xbegin would abort the transaction";
	if (insn->kind != ARCH_JMP_IND)
		return NULL;
	if ((bytes[insn->modrm_offset] >> 3 & 7) != EXTENSION_JMP)
		return "what a far jump reads cannot be kept until it is made";
	if (memchr(bytes, 0x66, insn->opcode_offset) != NULL && !(arch_rex_of(bytes, insn) & 8))
		return "a jump with a 16-bit operand size, which processors disagree about";
	if (!is_kept(bytes, insn, written))
		return NULL;
	if (shadow_stack)
		return "no call fits between a jump and the reading of its operand while the thread has a user shadow "
		       "stack";
	if (insn->flags & ARCH_F_MEM_RSP &&
	    (sib_end + sizeof(int32_t) > INSN_MAX || sib_displacement(bytes, insn) > INT32_MAX - 128))
		return "the operand of a jump is too far from the stack pointer, or has too many prefixes";
	return NULL;
}
