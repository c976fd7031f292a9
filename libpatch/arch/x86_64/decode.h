/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The two decoders of arch_decode(): where the first one knows an instruction, both say the same. */
#ifndef LIBPATCH_ARCH_X86_64_DECODE_H
#define LIBPATCH_ARCH_X86_64_DECODE_H

#include "arch/insn.h"

/*
 * The instructions that compilers write most, by a table: in some 60 instructions, where the other takes some 800.
 * False: not one of these, or longer than `size`; nothing is said.
 */
bool decode_fast(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn);

/* Any instruction; false: the bytes are none. */
bool decode_zydis(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn);

#endif
