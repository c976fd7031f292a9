/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The address ranges that hold generated code, readable from any signal handler without a lock: an append-only array.
 */
#ifndef LIBPATCH_CODE_CODE_RANGES_H
#define LIBPATCH_CODE_CODE_RANGES_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#define CODE_RANGES_MAX 8192

struct code_range {
	uintptr_t lower;
	uintptr_t upper;
	const uint16_t *granules; /* of an arena; NULL for pads */
};

/* Appends, and has unwinders told (code/unwinders.h). False when the array is full, or there is no memory. */
bool code_ranges_publish(const struct code_range *range) REQUIRES(library_lock);
/* The range that contains pc, or NULL. */
const struct code_range *code_ranges_find(uintptr_t pc);
uint64_t code_ranges_count(void);
/* The range that was published after `index` others. */
const struct code_range *code_ranges_at(size_t index);

#endif
