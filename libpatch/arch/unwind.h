/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwinding through generated code.
 */
#ifndef LIBPATCH_ARCH_UNWIND_H
#define LIBPATCH_ARCH_UNWIND_H

#include "base/compiler.h"

/*
 * Unwind description of one arena (.eh_frame: a CIE and an FDE over [code, code + size), terminated), see code/arena.h
 * for the tables it walks. Returns its size; writes at most `capacity` bytes.
 */
size_t arch_unwind_describe(uint8_t *out, size_t capacity, uintptr_t code, size_t size, uintptr_t granule_table);

#endif
