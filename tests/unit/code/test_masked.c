/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The next number with given bits, and the one before: against trying all of them. */
#include "code/masked.h"

#include <criterion/criterion.h>

static uint32_t seed = 2463534242U;

static uint32_t random_u32(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

/*
 * With the fixed bits of `mask` spread over eight free ones, small enough to try all: the numbers of `space` bits that
 * match, one after the other.
 */
static void check_matches(uint32_t mask, uint32_t value)
{
	uint32_t x, expected, got;
	int64_t last = -1;
	bool found;

	for (x = 0; x < 1 << 12; x++) {
		for (expected = x; expected < 1 << 12 && (expected & mask) != value; expected++)
			;
		found = masked_next(x, mask, value, &got);
		/* Above 12 bits all are free, so there always is a next one. */
		cr_assert(found, "mask %#x, value %#x: nothing from %#x on", mask, value, x);
		if (expected < 1 << 12)
			cr_assert_eq(got, expected, "mask %#x, value %#x: %#x follows %#x, not %#x", mask, value, got,
				     x, expected);
		else
			cr_assert_eq(got, (1 << 12) + value, "mask %#x, value %#x: %#x follows %#x", mask, value, got,
				     x);

		if ((x & mask) == value)
			last = x;
		found = masked_previous(x, mask, value, &got);
		cr_assert_eq(found, last >= 0, "mask %#x, value %#x: before %#x there is %s", mask, value, x,
			     found ? "one" : "none");
		if (found)
			cr_assert_eq(got, (uint32_t)last, "mask %#x, value %#x: %#x precedes %#x, not %#lx", mask,
				     value, got, x, last);
	}
}

Test(masked, against_brute_force)
{
	uint32_t mask, round;

	/* Every combination of nibbles fixed, and some that are no nibbles. */
	for (mask = 0; mask < 8; mask++) {
		uint32_t nibbles = (mask & 1 ? 0xf : 0) | (mask & 2 ? 0xf0 : 0) | (mask & 4 ? 0xf00 : 0);

		for (round = 0; round < 12; round++)
			check_matches(nibbles, random_u32() & nibbles);
		check_matches(nibbles, nibbles);
		check_matches(nibbles, 0);
	}
	for (round = 0; round < 20; round++) {
		mask = random_u32() & 0xfff;
		check_matches(mask, random_u32() & mask);
	}
}

/* At the upper end of 32 bits, by the mirror image of what was tried at the lower one. */
Test(masked, at_the_end_of_the_range)
{
	static const uint32_t masks[] = { 0, 0xff, 0xff00, 0xff0000, 0xff000000, 0xff00ff00, 0x00ffff00, 0xffffffff };
	uint32_t got, x, distance;
	size_t i;
	int round;

	for (i = 0; i < ARRAY_SIZE(masks); i++) {
		for (round = 0; round < 200; round++) {
			uint32_t value = random_u32() & masks[i];
			uint32_t greatest = ~masks[i] | value;

			cr_assert(masked_next(greatest, masks[i], value, &got) && got == greatest);
			cr_assert(greatest == UINT32_MAX || !masked_next(greatest + 1, masks[i], value, &got),
				  "mask %#x, value %#x: %#x follows the greatest", masks[i], value, got);
			cr_assert(masked_previous(UINT32_MAX, masks[i], value, &got) && got == greatest);
			cr_assert(masked_next(0, masks[i], value, &got) && got == value);
			cr_assert(value == 0 || !masked_previous(value - 1, masks[i], value, &got));

			x = random_u32();
			if (!masked_next(x, masks[i], value, &got))
				continue;
			cr_assert(got >= x && (got & masks[i]) == value);
			/* None in between, as far as there is time to look. */
			for (distance = 0; distance < 300 && x + distance < got; distance++)
				cr_assert(((x + distance) & masks[i]) != value);
		}
	}
}
