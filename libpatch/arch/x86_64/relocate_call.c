/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls, whose return address is the original's, and jumps and calls whose target has to be kept on the stack until
 * they are made. What is guaranteed of them is said in relocate.c.
 */
#include "arch/x86_64/relocate.h"

#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

#include <string.h>

static const uint8_t drop_word[] = { 0x48, 0x8D, 0x64, 0x24, 8 };  /* lea rsp, [rsp + 8] */
static const uint8_t push_constant[] = { 0xFF, 0x35 };        /* push qword [rip + rel32] */
static const uint8_t mov_simm32[] = { 0x48, 0xC7 };           /* mov qword r/m, simm32 */

static bool fits_simm32(uintptr_t address)
{
	return (int64_t)address == (int32_t)address;
}

/* A real call, which the return predictor counts; `cfa` is that behind it. */
static void emit_call_over(struct arch_code *code, uint8_t cfa)
{
	static const uint8_t call_over[] = { 0xE8, 1, 0, 0, 0, ARCH_INT3 }; /* call 1f; int3; 1: */

	arch_emit_bytes(code, call_over, sizeof(call_over));
	arch_emit_row(code, cfa);
}

/*
 * Return addresses: a real call keeps the return predictor balanced for the frames above, then its return address is
 * replaced. The call's displacement must not be 0: predictors do not count that as a call (Zen 5: five nested frames
 * take 44 ns instead of 16, a push would take 37). One 8-byte store, because the callee's `ret` cannot forward from two
 * 4-byte ones (19 ns). LEA and MOV change no flags.
 */
size_t arch_emit_push_return(struct arch_code *code, uintptr_t address)
{
	static const uint8_t at_top[] = { 0x04, 0x24 }; /* [rsp] */
	size_t field = 0;

	emit_call_over(code, 1);
	if (fits_simm32(address)) {
		arch_emit_bytes(code, mov_simm32, sizeof(mov_simm32));
		arch_emit_bytes(code, at_top, sizeof(at_top));
		arch_emit_u32(code, (uint32_t)address);
	} else {
		arch_emit_bytes(code, drop_word, sizeof(drop_word));
		arch_emit_row(code, 0);
		arch_emit_bytes(code, push_constant, sizeof(push_constant));
		field = emit_label_field(code);
		arch_emit_row(code, 1);
	}
	return field;
}

void arch_emit_return_constant(struct arch_code *code, size_t field, uintptr_t address)
{
	if (field != 0)
		arch_emit_constant(code, field, address);
	arch_emit_row(code, 0);
}

void arch_relocate_other(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			   uint8_t extension)
{
	uint8_t other[INSN_MAX];

	memcpy(other, bytes, insn->length);
	other[insn->modrm_offset] = (uint8_t)((other[insn->modrm_offset] & 0xC7) | extension << 3);
	arch_relocate_copy(code, other, insn, 0);
}

/*
 * Of an FF /2 with an RSP-based operand: the FF /4 where the stack pointer is 8 lower. The copy's length, 0: there is
 * none that means the same, or the operand may be where the return address is written.
 */
static size_t jmp_through_stack(const uint8_t *bytes, const struct arch_insn *insn, uint8_t jmp[INSN_MAX])
{
	const size_t sib_end = insn->modrm_offset + 2U;
	const int64_t disp = sib_displacement(bytes, insn);
	const int32_t moved = (int32_t)(disp + 8);
	const size_t disp_size = moved == (int8_t)moved ? 1 : 4;
	const bool rex_x = insn->opcode_offset > 0 && (bytes[insn->opcode_offset - 1] & 0xF2) == 0x42;
	const bool has_index = (bytes[sib_end - 1] & 0x38) != 0x20 || rex_x;

	if (has_index || (disp > -16 && disp < 0) || moved != disp + 8 || sib_end + disp_size > INSN_MAX)
		return 0;
	memcpy(jmp, bytes, sib_end);
	jmp[insn->modrm_offset] = disp_size == 1 ? 0x64 : 0xA4;
	memcpy(jmp + sib_end, &moved, disp_size);
	return sib_end + disp_size;
}

/* call rsp */
static bool is_rsp(const uint8_t *bytes, const struct arch_insn *insn)
{
	return (bytes[insn->modrm_offset] & 0xC7) == 0xC4 && !(arch_rex_of(bytes, insn) & 1);
}

/* The return address into its slot, from 8 bytes below the red zone. Returns what arch_emit_push_return() returns. */
static size_t emit_store_return(struct arch_code *code, uintptr_t address)
{
	static const uint8_t pop[] = { 0x8F };
	static const uint8_t slot[] = { 0x84, 0x24, 128, 0, 0, 0 }; /* [rsp + 128] */
	size_t field = 0;

	if (fits_simm32(address)) {
		arch_emit_bytes(code, mov_simm32, sizeof(mov_simm32));
		arch_emit_bytes(code, slot, sizeof(slot));
		arch_emit_u32(code, (uint32_t)address);
	} else {
		arch_emit_bytes(code, push_constant, sizeof(push_constant));
		field = emit_label_field(code);
		arch_emit_row(code, RED_ZONE + 2);
		/* POP computes its address with the stack pointer that it leaves. */
		arch_emit_bytes(code, pop, sizeof(pop));
		arch_emit_bytes(code, slot, sizeof(slot));
		arch_emit_row(code, RED_ZONE + 1);
	}
	return field;
}

void arch_emit_far_target_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t skip[] = { 0x48, 0x8D, 0xA4, 0x24, 0x78, 0xFF, 0xFF, 0xFF }; /* lea rsp, [rsp - 136] */
	static const uint8_t store[] = { 0x48, 0x89, 0x44, 0x24, 8 };                     /* mov [rsp + 8], rax */
	const size_t copy = code->size;

	arch_emit_bytes(code, skip, sizeof(skip));
	arch_emit_row(code, RED_ZONE + 1);
	arch_emit_u8(code, PUSH | RAX);
	arch_emit_row(code, RED_ZONE + 2);
	emit_stretch_since(code, ARCH_BORROWED | RAX << ARCH_STRETCH_REGISTER, copy);
	arch_emit_load_rax(code, bytes, insn);
	arch_emit_bytes(code, store, sizeof(store));
	arch_emit_u8(code, POP | RAX);
	arch_emit_row(code, RED_ZONE + 1);
	emit_stretch_since(code, ARCH_COPY, copy);
}

void arch_emit_call_for_return(struct arch_code *code)
{
	emit_call_over(code, RED_ZONE + 2);
	arch_emit_bytes(code, drop_word, sizeof(drop_word));
	arch_emit_row(code, RED_ZONE + 1);
}

/*
 * The same as arch_emit_far_target_below(), for any indirect call. The target is pushed first, as the original reads it
 * first, and taken from the slot of the return address.
 */
static void emit_target_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t skip[] = { 0x48, 0x8D, 0x64, 0x24, 0x88 }; /* lea rsp, [rsp - 120] */
	static const uint8_t push_target[] = { 0xFF, 0x74, 0x24, 120 }; /* push [rsp + 120] */

	if (is_far_operand(code, insn)) {
		arch_emit_far_target_below(code, bytes, insn);
		return;
	}
	arch_relocate_other(code, bytes, insn, EXTENSION_PUSH);
	arch_emit_row(code, 1);
	arch_emit_bytes(code, skip, sizeof(skip));
	arch_emit_row(code, RED_ZONE);
	arch_emit_bytes(code, push_target, sizeof(push_target));
	arch_emit_row(code, RED_ZONE + 1);
}

/*
 * A call whose target cannot be read again once the return address is written: it is kept below the red zone, and a
 * return leads there and takes everything off. That return is predicted wrongly, the callee's is not: a real call for
 * each.
 */
static void emit_call_by_return(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
				uintptr_t return_address)
{
	size_t field;

	emit_target_below(code, bytes, insn);
	arch_emit_call_for_return(code);
	arch_emit_call_for_return(code);
	field = emit_store_return(code, return_address);
	/* What it has overwritten may be the operand. */
	arch_emit_stretch(code, ARCH_CALL_KEPT, 0);
	relocate_ret(code, 120);
	arch_emit_return_constant(code, field, return_address);
}

void arch_emit_jmp_by_return(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	arch_emit_far_target_below(code, bytes, insn);
	arch_emit_call_for_return(code);
	relocate_ret(code, 128);
	arch_emit_row(code, 0);
}

static void emit_call_indirect(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			       uintptr_t return_address)
{
	const bool memory = bytes[insn->modrm_offset] >> 6 != 3;
	uint8_t jmp[INSN_MAX];
	size_t jmp_size = 0, field;

	if (insn->flags & ARCH_F_MEM_RSP)
		jmp_size = jmp_through_stack(bytes, insn, jmp);
	if (is_far_operand(code, insn) || (insn->flags & ARCH_F_MEM_RSP ? jmp_size == 0 : is_rsp(bytes, insn))) {
		emit_call_by_return(code, bytes, insn, return_address);
		return;
	}
	/* For the faults of a read: in the order, and with the state, that the original has. */
	if (memory) {
		arch_relocate_other(code, bytes, insn, EXTENSION_PUSH);
		arch_emit_row(code, 1);
		arch_emit_bytes(code, drop_word, sizeof(drop_word));
		arch_emit_row(code, 0);
	}
	field = arch_emit_push_return(code, return_address);
	if (jmp_size != 0)
		arch_emit_bytes(code, jmp, jmp_size);
	else
		arch_relocate_other(code, bytes, insn, EXTENSION_JMP);
	arch_emit_return_constant(code, field, return_address);
}

void arch_relocate_call(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
		      const struct arch_map *map)
{
	const uintptr_t return_address = address + insn->length;
	size_t field;

	if (insn->kind == ARCH_CALL_IND) {
		emit_call_indirect(code, bytes, insn, return_address);
		return;
	}
	field = arch_emit_push_return(code, return_address);
	arch_emit_jmp(code, relocate_resolve(map, insn->target));
	arch_emit_return_constant(code, field, return_address);
}
