/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The address ranges that hold generated code, readable from any signal handler without a lock: an append-only array.
 */
#ifndef LIBPATCH_RANGE_H
#define LIBPATCH_RANGE_H

#include "base/base.h"

struct range {
	uintptr_t lower;
	uintptr_t upper;
	const uint16_t *granules; /* of an arena; NULL for pads */
};

/* Appends; with the library lock held. False when the array is full. */
bool range_publish(const struct range *range);
/* The range that contains pc, or NULL. */
const struct range *range_find(uintptr_t pc);
uint64_t range_count(void);

#endif
