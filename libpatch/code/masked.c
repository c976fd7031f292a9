/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for the next number with given bits, without trying numbers one by one. Pure: it must not know what the
 * numbers are displacements of.
 */
#include "code/masked.h"

bool masked_next(uint32_t x, uint32_t mask, uint32_t value, uint32_t *out)
{
	uint32_t candidate = (x & ~mask) | value;
	uint32_t below; /* the bits from the highest one where they differ, a fixed one, on down */

	*out = candidate;
	if (candidate == x)
		return true;
	below = (2U << (31 - __builtin_clz(candidate ^ x))) - 1;
	if (candidate > x) {
		*out = (x & ~mask & ~below) | value;
	} else {
		/* Count up the free bits above. */
		uint32_t next = (x | mask | below) + 1;

		if (next == 0)
			return false;
		*out = (next & ~mask & ~below) | value;
	}
	return *out >= x;
}

/* The mirror image. */
bool masked_previous(uint32_t x, uint32_t mask, uint32_t value, uint32_t *out)
{
	uint32_t mirrored;

	if (!masked_next(~x, mask, ~value & mask, &mirrored))
		return false;
	*out = ~mirrored;
	return true;
}
