/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic linker, and what it tells debuggers. Lock-free.
 */
#ifndef LIBPATCH_ELF_LINKER_H
#define LIBPATCH_ELF_LINKER_H

#include "base/compiler.h"

struct r_debug;

/* What it tells debuggers, for the program's namespace; NULL: there is no such thing, as in a static program. */
const struct r_debug *linker_debug(void);
/* Its load address less p_vaddr; 0: there is none. */
uintptr_t linker_bias(void);

#endif
