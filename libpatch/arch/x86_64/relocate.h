/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What relocate.c takes from relocate_far.c.
 */
#ifndef LIBPATCH_ARCH_X86_64_RELOCATE_H
#define LIBPATCH_ARCH_X86_64_RELOCATE_H

#include "arch/emit.h"

/* A copy of an instruction whose RIP-relative operand is out of reach, and that arch_refuses_far() does not refuse. */
void arch_emit_far_operand(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn);

#endif
