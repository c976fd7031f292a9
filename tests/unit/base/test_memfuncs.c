/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's own memcpy() and the like: every short size, every small distance of source and destination, and what
 * lies around them.
 */
#include <criterion/criterion.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SIZES 80
#define ROOM 256

/* By pointers, so that the compiler puts nothing of its own in their place. */
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void *(*volatile move)(void *, const void *, size_t) = memmove;
static void *(*volatile set)(void *, int, size_t) = memset;
static int (*volatile compare)(const void *, const void *, size_t) = memcmp;
static void *(*volatile find)(const void *, int, size_t) = memchr;
static char *(*volatile find_in_string)(const char *, int) = strchr;

static void fill(uint8_t *bytes)
{
	for (int i = 0; i < ROOM; ++i)
		bytes[i] = (uint8_t)(i * 7 + 1);
}

static void expect(const uint8_t *bytes, const uint8_t *wanted, const char *what, size_t size, int at)
{
	for (int i = 0; i < ROOM; ++i)
		cr_assert_eq(bytes[i], wanted[i], "%s of %zu, %d: byte %d", what, size, at, i);
}

Test(memory, copies)
{
	uint8_t from[ROOM], to[ROOM], wanted[ROOM];

	fill(from);
	for (size_t size = 0; size <= SIZES; ++size) {
		for (int i = 0; i < ROOM; ++i)
			to[i] = wanted[i] = 0xEE;
		for (size_t i = 0; i < size; ++i)
			wanted[33 + i] = from[5 + i];
		cr_assert_eq(copy(to + 33, from + 5, size), to + 33);
		expect(to, wanted, "memcpy", size, 0);
	}
}

Test(memory, moves_over_itself)
{
	uint8_t bytes[ROOM], from[ROOM], wanted[ROOM];

	fill(from);
	for (size_t size = 0; size <= SIZES; ++size) {
		for (int distance = -SIZES; distance <= SIZES; ++distance) {
			fill(bytes);
			fill(wanted);
			for (size_t i = 0; i < size; ++i)
				wanted[SIZES + distance + (int)i] = from[SIZES + i];
			cr_assert_eq(move(bytes + SIZES + distance, bytes + SIZES, size), bytes + SIZES + distance);
			expect(bytes, wanted, "memmove", size, distance);
		}
	}
}

Test(memory, sets)
{
	uint8_t bytes[ROOM], wanted[ROOM];

	for (size_t size = 0; size <= SIZES; ++size) {
		fill(bytes);
		fill(wanted);
		for (size_t i = 0; i < size; ++i)
			wanted[9 + i] = 0xA5;
		cr_assert_eq(set(bytes + 9, 0x5A5, size), bytes + 9);
		expect(bytes, wanted, "memset", size, 0);
	}
}

Test(memory, compares_as_unsigned_bytes)
{
	uint8_t a[ROOM], b[ROOM];

	for (size_t size = 0; size <= SIZES; ++size) {
		fill(a);
		fill(b);
		b[3 + size] ^= 0x80; /* behind the end */
		cr_assert_eq(compare(a + 3, b + 3, size), 0);
		for (size_t at = 0; at < size; ++at) {
			fill(b);
			a[3 + at] = 0x7F;
			b[3 + at] = 0x80;
			cr_assert_lt(compare(a + 3, b + 3, size), 0, "%zu at %zu", size, at);
			cr_assert_gt(compare(b + 3, a + 3, size), 0, "%zu at %zu", size, at);
			fill(a);
		}
	}
}

Test(memory, finds)
{
	char string[] = "0123[5";
	uint8_t bytes[ROOM] = { 0 };

	bytes[40] = 0xCC;
	cr_assert_eq(find(bytes, 0xCC, 41), bytes + 40);
	cr_assert_eq(find(bytes, 0x7CC, 41), bytes + 40);
	cr_assert_null(find(bytes, 0xCC, 40));
	cr_assert_null(find(bytes, 0xCC, 0));
	cr_assert_eq(find_in_string(string, '['), string + 4);
	cr_assert_eq(find_in_string(string, '\0'), string + 6);
	cr_assert_null(find_in_string(string, ']'));
}
