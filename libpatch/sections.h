/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sections of a module, as its file has them. Segments are coarser: some linkers put tables and constants into executable
 * ones. For what nothing in memory tells; files may be gone, changed, or without sections.
 */
#ifndef LIBPATCH_SECTIONS_H
#define LIBPATCH_SECTIONS_H

#include "base.h"

#include <link.h>

/*
 * Is there no code at `address`, which is in a segment of the module? True is sure: the file is the one that is mapped, and
 * none of its sections of code is there. Raw system calls only; async-signal-safe.
 */
bool sections_have_no_code(const char *path, uintptr_t bias, const ElfW(Phdr) *headers, size_t count, uintptr_t address);

#endif
