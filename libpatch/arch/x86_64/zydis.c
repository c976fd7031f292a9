/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pointers through which Zydis is called (zydis.h), and the list of them for patch_init(). Nothing is called here.
 */
#include "arch/insn.h"
#include "base/dependency.h"

#include <Zydis/Zydis.h>

#define DEFINE(name) __typeof__(name) *libpatch_##name = name
DEFINE(ZydisDecoderInit);
DEFINE(ZydisDecoderDecodeFull);
DEFINE(ZydisDecoderDecodeInstruction);
DEFINE(ZydisRegisterGetLargestEnclosing);

const struct dependency arch_decoder_dependency = {
	.library = ZYDIS_SONAME,
	.count = 4,
	.functions = {
		DEPENDENCY_FUNCTION(ZydisDecoderInit),
		DEPENDENCY_FUNCTION(ZydisDecoderDecodeFull),
		DEPENDENCY_FUNCTION(ZydisDecoderDecodeInstruction),
		DEPENDENCY_FUNCTION(ZydisRegisterGetLargestEnclosing),
	},
};
