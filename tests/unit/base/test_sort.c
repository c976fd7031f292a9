/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/sort.h: structures in order of address, whatever order they come in, and each of them whole. */
#include "base/sort.h"

#include <criterion/criterion.h>
#include <string.h>

struct row {
	uintptr_t address;
	uint64_t complement; /* of the address: tells whether a structure was moved as a whole */
	uint64_t index;
};

#define ROWS 200

static void fill(struct row *rows, size_t count, uintptr_t (*address)(size_t index))
{
	for (size_t i = 0; i < count; i++)
		rows[i] = (struct row){ address(i), ~address(i), i };
}

static void expect_sorted(const struct row *rows, size_t count, const char *what)
{
	bool present[ROWS] = { false };

	for (size_t i = 0; i < count; i++) {
		cr_expect_eq(rows[i].complement, ~rows[i].address, "%s: row %zu of %zu is torn", what, i, count);
		cr_assert_lt(rows[i].index, count);
		cr_expect_not(present[rows[i].index], "%s: row %zu of %zu is there twice", what, i, count);
		present[rows[i].index] = true;
		if (i > 0)
			cr_expect_leq(rows[i - 1].address, rows[i].address, "%s: row %zu of %zu", what, i, count);
	}
}

static uintptr_t up(size_t index)
{
	return 0x1000 + index;
}

static uintptr_t down(size_t index)
{
	return UINTPTR_MAX - index;
}

static uintptr_t equal(size_t index)
{
	(void)index;
	return 42;
}

static uintptr_t halves(size_t index)
{
	return index % 2 ? UINTPTR_MAX / 2 + index : index;
}

static uintptr_t scattered(size_t index)
{
	uint64_t x = (index + 1) * 0x9e3779b97f4a7c15;

	return x ^ x >> 29;
}

static uintptr_t few_values(size_t index)
{
	return scattered(index) % 7;
}

Test(sort, every_count_of_every_order)
{
	static const struct {
		uintptr_t (*address)(size_t index);
		const char *name;
	} orders[] = { { up, "up" },
		       { down, "down" },
		       { equal, "equal" },
		       { halves, "two halves" },
		       { scattered, "scattered" },
		       { few_values, "few values" } };
	struct row rows[ROWS];

	for (size_t o = 0; o < ARRAY_SIZE(orders); o++)
		for (size_t count = 0; count <= ROWS; count++) {
			fill(rows, count, orders[o].address);
			sort_by_address(rows, count, sizeof(rows[0]));
			expect_sorted(rows, count, orders[o].name);
		}
}

Test(sort, one_out_of_place)
{
	struct row rows[64];

	for (size_t from = 0; from < ARRAY_SIZE(rows); from++)
		for (size_t to = 0; to < ARRAY_SIZE(rows); to++) {
			struct row moved;

			fill(rows, ARRAY_SIZE(rows), up);
			moved = rows[from];
			rows[from] = rows[to];
			rows[to] = moved;
			sort_by_address(rows, ARRAY_SIZE(rows), sizeof(rows[0]));
			for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
				cr_assert_eq(rows[i].index, i);
		}
}

Test(sort, structures_of_one_word)
{
	uintptr_t words[] = { 3, 1, UINTPTR_MAX, 0, 2, 1 };
	static const uintptr_t expected[] = { 0, 1, 1, 2, 3, UINTPTR_MAX };

	sort_by_address(words, ARRAY_SIZE(words), sizeof(words[0]));
	cr_expect_eq(memcmp(words, expected, sizeof(words)), 0);
}

Test(sort, nothing_behind_the_end_is_touched)
{
	uintptr_t words[] = { 5, 4, 3, 2, 1, 0 };

	sort_by_address(words, 4, sizeof(words[0]));
	cr_expect_eq(words[0], 2);
	cr_expect_eq(words[4], 1);
	cr_expect_eq(words[5], 0);
}
