/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sections of a module, as its file has them. Segments are coarser: some linkers put tables and constants into
 * executable segments, and nothing in memory tells them from code. The file may be gone, changed, or without sections.
 */
#ifndef LIBPATCH_ELF_SECTIONS_H
#define LIBPATCH_ELF_SECTIONS_H

#include "base/compiler.h"

#include <link.h>

/*
 * The extent of the module's sections of code: none is outside [*lower, *upper). False, with neither set, when the file
 * is not the one that is mapped, or has no sections. Raw system calls only; async-signal-safe.
 */
bool sections_of_code(const char *path, uintptr_t bias, const ElfW(Phdr) *headers, size_t count, uintptr_t *lower,
		      uintptr_t *upper);

#endif
