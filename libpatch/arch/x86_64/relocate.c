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

#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"

#define OPCODE_JMP_REL8 0xEB

void arch_relocate_copy(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, size_t offset)
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

void arch_emit_loop(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uint8_t skip)
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
		arch_emit_loop(code, bytes, insn, ARCH_JMP_SIZE);
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
		arch_emit_jmp_by_return(code, bytes, insn);
	else
		arch_relocate_copy(code, bytes, insn, 0);
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
		arch_emit_loop(code, bytes, insn, 2);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_u8(code, OPCODE_JMP_REL8);
		arch_emit_u8(code, ARCH_JMP_SIZE);
		arch_emit_jmp(code, relocate_resolve(map, insn->target));
		break;
	case ARCH_CALL:
	case ARCH_CALL_IND:
		arch_relocate_call(code, bytes, insn, address, map);
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
		arch_relocate_copy(code, bytes, insn, 0);
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
			arch_relocate_copy(code, bytes, insn, 0);
		break;
	}
}
