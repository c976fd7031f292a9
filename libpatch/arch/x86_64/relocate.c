/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies of instructions that do elsewhere what the originals do in place.
 *
 * Guarantees, for every instruction arch_decode() does not refuse:
 *  1. Registers, flags and memory at and above the stack pointer are those the original leaves; no flag or register is
 *     borrowed on the way, and nothing below the stack pointer is written that the original does not write.
 *  2. A call leaves the original return address, written before the callee's first instruction.
 *  3. The rows tell at every instruction where the program's stack pointer is.
 *  4. A call through memory reads its pointer before anything is written, and faults there as the original does.
 *
 * Exceptions:
 *  - A call through `rsp`, or through memory with RSP as a base where the pointer may be in the slot of the return
 *    address, also writes to 16 bytes below the red zone.
 *  - A call through other memory that happens to be in the slot of its return address reads part of that address: what
 *    the pointer was can then be kept neither there nor in a register, and to find out takes a register or flags.
 *  - A copy with holes (arch_relocate_around()) of an indirect call, which reads its pointer once, keeps it in the 8
 *    bytes below its return address, which are the callee's by the calling convention; that of a jump through memory
 *    writes to 16 bytes below the red zone.
 *  - In far code (arch_code.far) an instruction with a RIP-relative operand, unless it is an LEA, writes to 16 bytes
 *    below the red zone; on the way, and when the operand faults, a register that it does not use may hold something
 *    else. At its end guarantee 1 holds. The rows behind the access are those of the next instruction.
 *
 * Prefixes without effect on direct branches (hints, BND on processors without MPX, padding) are dropped; of loop and
 * jrcxz, repeat prefixes are kept.
 */
#include "arch/x86_64/relocate.h"

#include "arch/canonical.h"
#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

#include <string.h>

#define OPCODE_JMP_REL8 0xEB

static uintptr_t relocate_resolve(const struct arch_map *map, uintptr_t target)
{
	size_t i;

	for (i = 0; map && i < map->count; i++) {
		if (map->from[i] == target)
			return map->to[i];
	}
	return target;
}

/* A stretch that leads back to `copy`. */
static void emit_stretch_since(struct arch_code *code, uint8_t kind, size_t copy)
{
	arch_emit_stretch(code, kind, (uint8_t)(code->size - copy));
}

/* A forward branch within the code being emitted: its rel32 field is filled in when the label is known. */
static size_t emit_label_field(struct arch_code *code)
{
	arch_emit_u32(code, 0);
	return code->size;
}

static bool is_far_operand(const struct arch_code *code, const struct arch_insn *insn)
{
	return code->far && insn->disp_offset != 0;
}

/* The instruction's bytes from `offset` on, its RIP-relative operand (if any) still referring to the same address. */
static void relocate_copy(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, size_t offset)
{
	size_t tail;

	if (insn->disp_offset != 0) {
		tail = insn->length - insn->disp_offset - 4U;
		arch_emit_bytes(code, bytes + offset, insn->disp_offset - offset);
		arch_emit_rel32(code, insn->target, tail);
		offset = insn->length - tail;
	}
	arch_emit_bytes(code, bytes + offset, insn->length - offset);
}

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
 *
 * Returns the offset that must be told to emit_return_constant() once the jump to the callee is emitted, or 0.
 */
static size_t emit_push_return(struct arch_code *code, uintptr_t address)
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

static void emit_return_constant(struct arch_code *code, size_t field, uintptr_t address)
{
	if (field != 0)
		arch_emit_constant(code, field, address);
	arch_emit_row(code, 0);
}

/* The displacement of an operand that has a SIB byte. */
static int32_t sib_displacement(const uint8_t *bytes, const struct arch_insn *insn)
{
	const size_t sib_end = insn->modrm_offset + 2U;
	int32_t disp = 0;

	if (insn->length - sib_end == 1)
		disp = (int8_t)bytes[sib_end];
	else if (insn->length - sib_end == 4)
		memcpy(&disp, bytes + sib_end, sizeof(disp));
	return disp;
}

/* Of FF /2: the same operand with another extension of the opcode. */
static void relocate_other(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			   uint8_t extension)
{
	uint8_t other[INSN_MAX];

	memcpy(other, bytes, insn->length);
	other[insn->modrm_offset] = (uint8_t)((other[insn->modrm_offset] & 0xC7) | extension << 3);
	relocate_copy(code, other, insn, 0);
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

/* The return address into its slot, from 8 bytes below the red zone. Returns what emit_push_return() returns. */
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

/*
 * The target of an indirect call or jump through a far operand to right below the red zone, and the stack pointer to
 * it.
 */
static void emit_far_target_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
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

/* A real call, for a return that comes; the stack pointer is at what is right below the red zone, before and after. */
static void emit_call_for_return(struct arch_code *code)
{
	emit_call_over(code, RED_ZONE + 2);
	arch_emit_bytes(code, drop_word, sizeof(drop_word));
	arch_emit_row(code, RED_ZONE + 1);
}

/*
 * The same as emit_far_target_below(), for any indirect call. The target is pushed first, as the original reads it
 * first, and taken from the slot of the return address.
 */
static void emit_target_below(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	static const uint8_t skip[] = { 0x48, 0x8D, 0x64, 0x24, 0x88 }; /* lea rsp, [rsp - 120] */
	static const uint8_t push_target[] = { 0xFF, 0x74, 0x24, 120 }; /* push [rsp + 120] */

	if (is_far_operand(code, insn)) {
		emit_far_target_below(code, bytes, insn);
		return;
	}
	relocate_other(code, bytes, insn, EXTENSION_PUSH);
	arch_emit_row(code, 1);
	arch_emit_bytes(code, skip, sizeof(skip));
	arch_emit_row(code, RED_ZONE);
	arch_emit_bytes(code, push_target, sizeof(push_target));
	arch_emit_row(code, RED_ZONE + 1);
}

static void relocate_ret(struct arch_code *code, uint8_t pops)
{
	const uint8_t ret[] = { 0xC2, pops, 0 };

	arch_emit_bytes(code, ret, sizeof(ret));
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
	emit_call_for_return(code);
	emit_call_for_return(code);
	field = emit_store_return(code, return_address);
	/* What it has overwritten may be the operand. */
	arch_emit_stretch(code, ARCH_CALL_KEPT, 0);
	relocate_ret(code, 120);
	emit_return_constant(code, field, return_address);
}

/* jmp [rip + ...] in far code */
static void emit_jmp_by_return(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	emit_far_target_below(code, bytes, insn);
	emit_call_for_return(code);
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
		relocate_other(code, bytes, insn, EXTENSION_PUSH);
		arch_emit_row(code, 1);
		arch_emit_bytes(code, drop_word, sizeof(drop_word));
		arch_emit_row(code, 0);
	}
	field = emit_push_return(code, return_address);
	if (jmp_size != 0)
		arch_emit_bytes(code, jmp, jmp_size);
	else
		relocate_other(code, bytes, insn, EXTENSION_JMP);
	emit_return_constant(code, field, return_address);
}

static void relocate_call(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
		      const struct arch_map *map)
{
	const uintptr_t return_address = address + insn->length;
	size_t field;

	if (insn->kind == ARCH_CALL_IND) {
		emit_call_indirect(code, bytes, insn, return_address);
		return;
	}
	field = emit_push_return(code, return_address);
	arch_emit_jmp(code, relocate_resolve(map, insn->target));
	emit_return_constant(code, field, return_address);
}

/* jcc rel32 without its displacement; `invert` is 1 for the opposite condition. */
static void emit_jcc_opcode(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uint8_t invert)
{
	const uint8_t opcode = bytes[insn->rel_offset - 1];

	arch_emit_u8(code, 0x0F);
	arch_emit_u8(code, 0x80 | ((opcode & 0x0F) ^ invert));
}

/* loop or jrcxz that passes over `skip` bytes when taken. */
static void emit_loop(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uint8_t skip)
{
	size_t i;

	/*
	 * The address-size prefix chooses between RCX and ECX; the last repeat prefix overrides the condition of loope
	 * and loopne, which no manual tells (seen on Zen 5).
	 */
	for (i = 0; i < insn->opcode_offset; i++)
		if (bytes[i] == 0x67 || bytes[i] == 0xF2 || bytes[i] == 0xF3)
			arch_emit_u8(code, bytes[i]);
	arch_emit_u8(code, bytes[insn->opcode_offset]);
	arch_emit_u8(code, skip);
}

/*
 * SYSCALL leaves the address behind it in RCX (AMD APM vol. 3): the original's. The call has been made by then, so the
 * row is the next instruction's: a thread that resumes by it does not make the call again.
 */
static void emit_syscall_return(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
				uintptr_t address)
{
	static const uint8_t mov_rcx[] = { 0x48, 0xB9 };

	if (bytes[insn->opcode_offset] != 0x0F || bytes[insn->opcode_offset + 1] != 0x05)
		return;
	code->original += insn->length;
	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_SYSCALL_MADE, 0);
	arch_emit_bytes(code, mov_rcx, sizeof(mov_rcx));
	arch_emit_u64(code, address + insn->length);
}

/* ---- any instruction -------------------------------------------------------------------------------------------- */

/* A conditional branch in far code is one of the opposite condition over a jump. */
static void emit_far_conditional(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
				 uintptr_t target)
{
	static const uint8_t xbegin[] = { 0xC7, 0xF8 };
	size_t over, abort;

	if (insn->kind == ARCH_JCC) {
		emit_jcc_opcode(code, bytes, insn, 1);
		over = emit_label_field(code);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
	} else if (insn->kind == ARCH_LOOP) {
		/* loop 1f; jmp 2f; 1: jmp target; 2: */
		emit_loop(code, bytes, insn, ARCH_JMP_SIZE);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_u8(code, ARCH_JMP_REL32);
		over = emit_label_field(code);
	} else {
		/* xbegin 1f; jmp 2f; 1: jmp target; 2: */
		arch_emit_bytes(code, xbegin, sizeof(xbegin));
		abort = emit_label_field(code);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_u8(code, ARCH_JMP_REL32);
		over = emit_label_field(code);
		arch_emit_label(code, abort);
	}
	arch_emit_jmp(code, target);
	arch_emit_label(code, over);
}

/* A jump or return that leaves nothing behind it. */
static void emit_leaving(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	if (is_far_operand(code, insn))
		emit_jmp_by_return(code, bytes, insn);
	else
		relocate_copy(code, bytes, insn, 0);
}

void arch_relocate(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
		   const struct arch_map *map)
{
	static const uint8_t xbegin[] = { 0xC7, 0xF8 };

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	if (code->far && (insn->kind == ARCH_JCC || insn->kind == ARCH_LOOP || insn->kind == ARCH_XBEGIN)) {
		emit_far_conditional(code, bytes, insn, relocate_resolve(map, insn->target));
		return;
	}
	switch ((enum arch_kind)insn->kind) {
	case ARCH_JMP:
		arch_emit_jmp(code, relocate_resolve(map, insn->target));
		break;
	case ARCH_JCC:
		emit_jcc_opcode(code, bytes, insn, 0);
		arch_emit_rel32(code, relocate_resolve(map, insn->target), 0);
		break;
	case ARCH_LOOP:
		/* loop 1f; jmp short 2f; 1: jmp target; 2: */
		emit_loop(code, bytes, insn, 2);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_u8(code, OPCODE_JMP_REL8);
		arch_emit_u8(code, ARCH_JMP_SIZE);
		arch_emit_jmp(code, relocate_resolve(map, insn->target));
		break;
	case ARCH_CALL:
	case ARCH_CALL_IND:
		relocate_call(code, bytes, insn, address, map);
		break;
	case ARCH_XBEGIN:
		arch_emit_bytes(code, xbegin, sizeof(xbegin));
		arch_emit_rel32(code, relocate_resolve(map, insn->target), 0);
		break;
	case ARCH_PLAIN:
		if (is_far_operand(code, insn)) {
			arch_emit_far_operand(code, bytes, insn);
			break;
		}
		relocate_copy(code, bytes, insn, 0);
		if (insn->flags & ARCH_F_SYSCALL)
			emit_syscall_return(code, bytes, insn, address);
		break;
	case ARCH_JMP_IND:
	case ARCH_RET:
		emit_leaving(code, bytes, insn);
		break;
	case ARCH_TRAP:
		/* The operand of a trapping instruction is not accessed. */
		if (is_far_operand(code, insn))
			arch_emit_bytes(code, bytes, insn->length);
		else
			relocate_copy(code, bytes, insn, 0);
		break;
	}
}

/* ---- with holes ------------------------------------------------------------------------------------------------- */

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
		emit_far_target_below(code, bytes, insn);
		arch_emit_bytes(code, pop_kept, sizeof(pop_kept));
		arch_emit_row(code, RED_ZONE);
		arch_emit_bytes(code, drop_red_zone, sizeof(drop_red_zone));
	} else {
		relocate_other(code, bytes, insn, EXTENSION_PUSH);
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
	field = emit_push_return(code, way.next);
	emit_hole(code, &way, 1, exit, data);
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	if (indirect)
		arch_emit_bytes(code, jmp_kept, sizeof(jmp_kept));
	else
		arch_emit_jmp(code, relocate_resolve(map, insn->target));
	emit_return_constant(code, field, way.next);
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
		relocate_other(code, bytes, insn, EXTENSION_PUSH);
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
		emit_far_target_below(code, bytes, insn);
	} else {
		arch_emit_bytes(code, skip, sizeof(skip));
		arch_emit_row(code, RED_ZONE);
		emit_push_from_below(code, bytes, insn);
		arch_emit_row(code, RED_ZONE + 1);
	}
	emit_hole(code, &way, RED_ZONE + 1, exit, data);
	arch_emit_stretch(code, ARCH_JMP_KEPT, 0);
	emit_call_for_return(code);
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
	relocate_copy(code, bytes, insn, 0);
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
		emit_loop(code, bytes, insn, ARCH_JMP_SIZE);
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
