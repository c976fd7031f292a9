/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lead: where copies of branches to an instruction go. The instruction may hold a trap byte, which the copies, being
 * generated code, need not meet: they jump through a slot, which holds what a trap there would lead to, or else the
 * instruction's address. Called with the library lock held; threads read the slot at any time.
 *
 * A thread reads the slot and goes there in one instruction, so it never holds what the slot held before. Where it went
 * stays as long as a thread may be there, as for all generated code (I7).
 */
#ifndef LIBPATCH_CODE_LEAD_H
#define LIBPATCH_CODE_LEAD_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct lead {
	struct lead *next; /* the registry's */
	uintptr_t address; /* of the instruction */
	uintptr_t slot;
	uint32_t references; /* of the instruction's registry entry, and of trampolines whose code reads the slot */
};

/* With one reference, and the address in its slot. NULL: out of memory. */
struct lead *lead_make(uintptr_t address) REQUIRES(library_lock);
/* Where copies go from now on. */
void lead_set(const struct lead *lead, uintptr_t where) REQUIRES(library_lock);
void lead_take(struct lead *lead) REQUIRES(library_lock);
/* Give up a reference; with the last one it is freed. No thread is in code that reads the slot. */
void lead_drop(struct lead *lead) REQUIRES(library_lock);

#endif
