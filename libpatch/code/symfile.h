/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An ELF object in memory that tells a debugger of generated code: where it is, one name for all of it, and how to
 * unwind through it. Pure.
 */
#ifndef LIBPATCH_CODE_SYMFILE_H
#define LIBPATCH_CODE_SYMFILE_H

#include "base/compiler.h"
#include "code/code_ranges.h"

#include <elf.h>

#define SYMFILE_SECTIONS 5

struct symfile {
	Elf64_Ehdr header;
	Elf64_Shdr sections[SYMFILE_SECTIONS];
	Elf64_Sym symbols[2];
	char strings[96];
	uint8_t eh_frame[];
};

/* Fill in all but the bytes of `file->eh_frame`, which are `eh_frame_size`. */
void symfile_make(struct symfile *file, const struct code_range *range, size_t eh_frame_size);

#endif
