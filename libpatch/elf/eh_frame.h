/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extents of functions, from a module's unwind tables in memory. Lock-free and async-signal-safe; no file is read.
 */
#ifndef LIBPATCH_ELF_EH_FRAME_H
#define LIBPATCH_ELF_EH_FRAME_H

#include "elf/module.h"

/*
 * Extent [*lower, *upper) of the function around address, from the module's unwind table. False when there is no
 * entry around it. *next_lower (may be NULL) receives the start of the next described function, or UINTPTR_MAX. A range
 * without an entry around `address` still fills *next_lower.
 */
bool eh_frame_function(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper,
		       uintptr_t *next_lower);

#endif
