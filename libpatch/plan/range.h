/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The instructions of a range, one after the other, from either end. Called with the library lock held.
 */
#ifndef LIBPATCH_PLAN_RANGE_H
#define LIBPATCH_PLAN_RANGE_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct range {
	uintptr_t lower;
	uintptr_t at;     /* forwards: where the next one starts; backwards: it starts in front of here */
	uintptr_t upper;  /* of what decodes */
	uint64_t *starts; /* backwards: a bit for each byte from `lower` on; NULL: forwards */
};

/* Of [lower, upper), which is not empty, and begins with an instruction. False: out of memory. */
bool range_begin(struct range *range, uintptr_t lower, uintptr_t upper, bool backward) REQUIRES(library_lock);
/*
 * Where the next one starts; false: there are no more. Bytes that are no instruction end the range, and are the last of
 * it.
 */
bool range_next(struct range *range, uintptr_t *address) REQUIRES(library_lock);
void range_end(struct range *range) REQUIRES(library_lock);

#endif
