/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What decode_fast.c takes from decode_zydis.c. */
#ifndef LIBPATCH_ARCH_X86_64_DECODE_H
#define LIBPATCH_ARCH_X86_64_DECODE_H

#include "arch/insn.h"

/* arch_decode(), whatever the instruction. */
bool decode_zydis(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn);

#endif
