/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zydis, as libpatch calls it: through pointers (base/dependency.h), which have the names of its functions here.
 */
#ifndef LIBPATCH_ARCH_X86_64_ZYDIS_H
#define LIBPATCH_ARCH_X86_64_ZYDIS_H

#include <Zydis/Zydis.h>

#pragma GCC visibility push(hidden)
extern __typeof__(ZydisDecoderInit) *libpatch_ZydisDecoderInit;
extern __typeof__(ZydisDecoderDecodeFull) *libpatch_ZydisDecoderDecodeFull;
extern __typeof__(ZydisDecoderDecodeInstruction) *libpatch_ZydisDecoderDecodeInstruction;
extern __typeof__(ZydisRegisterGetLargestEnclosing) *libpatch_ZydisRegisterGetLargestEnclosing;
#pragma GCC visibility pop

#define ZydisDecoderInit (*libpatch_ZydisDecoderInit)
#define ZydisDecoderDecodeFull (*libpatch_ZydisDecoderDecodeFull)
#define ZydisDecoderDecodeInstruction (*libpatch_ZydisDecoderDecodeInstruction)
#define ZydisRegisterGetLargestEnclosing (*libpatch_ZydisRegisterGetLargestEnclosing)

#endif
