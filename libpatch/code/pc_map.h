/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Generated code seen from outside: is this pc in it, and which original instruction does it stand for?
 * Async-signal-safe, any thread, no lock (I9).
 */
#ifndef LIBPATCH_CODE_PC_MAP_H
#define LIBPATCH_CODE_PC_MAP_H

#include "base/compiler.h"

/* The original address for a pc in a block or at a pad. False: the pc stands for none. */
bool pc_map_original(uintptr_t pc, uintptr_t *original);
/* Is pc in any arena or pad mapping? */
bool pc_map_contains(uintptr_t pc);

#endif
