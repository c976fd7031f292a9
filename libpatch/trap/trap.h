/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trap dispatch: from a trap byte to the code that stands for the instruction under it. Only reads: the registry under
 * its read side, and one byte of text. The public entry is libpatch_on_trap() in <libpatch/trap_handler.h>.
 */
#ifndef LIBPATCH_TRAP_TRAP_H
#define LIBPATCH_TRAP_TRAP_H

#include "base/compiler.h"

/* Traps served since the start. */
uint64_t trap_count(void);

#endif
