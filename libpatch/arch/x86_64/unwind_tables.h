/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the unwind description of an arena and the personality routine of its frames share: the tables of code/arena.h,
 * which is above this layer. tests/unit/arch/test_unwind.c compares the numbers with those of arena.h.
 */
#ifndef LIBPATCH_ARCH_X86_64_UNWIND_TABLES_H
#define LIBPATCH_ARCH_X86_64_UNWIND_TABLES_H

#include "arch/emit.h"

#include <unwind.h>

#define GRANULE_SHIFT 4
/* The rows' offset in a block. */
#define BLOCK_ROWS 8

struct arena_tables {
	uintptr_t code;     /* where the arena's code begins */
	uintptr_t granules; /* for each granule of code, a uint16_t: how many granules its block began before it */
};

/* Called for each frame of generated code that is unwound through. */
_Unwind_Reason_Code libpatch_hook_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					      struct _Unwind_Exception *exception, struct _Unwind_Context *context)
	__attribute__((visibility("hidden")));

#endif
