/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions and where they are described, from a module's unwind tables in memory. Lock-free and async-signal-safe; no
 * file is read.
 */
#ifndef LIBPATCH_ELF_EH_FRAME_H
#define LIBPATCH_ELF_EH_FRAME_H

#include "elf/cursor.h"
#include "elf/module.h"

/*
 * Extent [*lower, *upper) of the function around address, from the module's unwind table. False when there is no
 * entry around it. *next_lower (may be NULL) receives the start of the next described function, or UINTPTR_MAX. A range
 * without an entry around `address` still fills *next_lower.
 */
bool eh_frame_function(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper,
		       uintptr_t *next_lower);

/* How the table describes a function: all that elf/cfa.h needs to tell its frame. */
struct eh_frame_entry {
	uintptr_t lower; /* [lower, upper): the function */
	uintptr_t upper;
	uint8_t encoding; /* of addresses (elf/cursor.h) */
	uint64_t code_alignment;
	int64_t data_alignment;
	/* DW_CFA_* instructions: those that many functions have in common, which come first; and its own. */
	struct cursor common;
	struct cursor rows;
};

/* The same as eh_frame_function(), and the entry. Undefined contents of *entry when false. */
bool eh_frame_find(const struct module *module, uintptr_t address, struct eh_frame_entry *entry, uintptr_t *next_lower);

#endif
