/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers in the encoding of instructions, and pieces of code that refer to an operand of the program's. emit.c writes
 * them.
 */
#ifndef LIBPATCH_ARCH_X86_64_ENCODE_H
#define LIBPATCH_ARCH_X86_64_ENCODE_H

#include "arch/emit.h"

enum { RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7, R8 = 8 };

/* The number of a register, up to RDI, is added to these opcodes. */
#define PUSH 0x50
#define POP 0x58

/* ModRM.reg of opcode FF. */
#define EXTENSION_JMP 4
#define EXTENSION_PUSH 6

/* The red zone as rows count it, in words. */
#define RED_ZONE (128 / 8)

/* The REX prefix, or 0. */
static inline uint8_t arch_rex_of(const uint8_t *bytes, const struct arch_insn *insn)
{
	const uint8_t last = insn->opcode_offset > 0 ? bytes[insn->opcode_offset - 1] : 0;

	return (last & 0xF0) == 0x40 ? last : 0;
}

/* The prefix FS or GS, if the operand is relative to one of them. */
void arch_emit_segment(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);
/* mov rax, [target]: when the load faults, RAX is unchanged. */
void arch_emit_load_rax(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);

#endif
