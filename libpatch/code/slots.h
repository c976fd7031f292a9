/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hook slots: 8 writable bytes each, which a hook's code reads to find out whether it is open, and for whom. The
 * functions are called with the library lock held.
 */
#ifndef LIBPATCH_CODE_SLOTS_H
#define LIBPATCH_CODE_SLOTS_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/arena.h"

/* The address of a slot that holds 0, within reach, and of a new one near `near`. 0: no memory. */
uintptr_t hook_slot_alloc(uintptr_t near, struct arena_reach reach) REQUIRES(library_lock);
/* Give back a slot that no thread was ever led to code for. */
void hook_slot_free(uintptr_t slot) REQUIRES(library_lock);

#endif
