/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What relocating near and far have in common.
 */
#ifndef LIBPATCH_ARCH_X86_64_RELOCATE_H
#define LIBPATCH_ARCH_X86_64_RELOCATE_H

#include "arch/arch.h"

enum { RAX = 0, RCX = 1, RDX = 2, RSP = 4, RSI = 6, RDI = 7 };

/* With the number of one of those added. */
#define PUSH 0x50
#define POP 0x58

/* ModRM.reg of opcode FF. */
#define EXTENSION_JMP 4
#define EXTENSION_PUSH 6

/* In rows. */
#define RED_ZONE (128 / 8)

/* FS or GS, if the operand is relative to one of them. */
void arch_emit_segment(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);
/* mov rax, [target]: when it faults, RAX is unchanged. */
void arch_emit_load_rax(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);
/* An instruction whose RIP-relative operand is out of reach, and that arch_refuses_far() does not refuse. */
void arch_emit_far_operand(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);

#endif
