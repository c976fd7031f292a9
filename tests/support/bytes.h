/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of machine code: byte strings compared, and both shown when they differ.
 */
#ifndef LIBPATCH_TESTS_UNIT_BYTES_H
#define LIBPATCH_TESTS_UNIT_BYTES_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Two initialisers: the bytes and how many they are. */
#define BYTES(...) { __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ })

static inline void bytes_print(const char *title, const uint8_t *bytes, size_t size, const uint8_t *other,
			       size_t other_size)
{
	size_t i;

	fprintf(stderr, "  %-9s", title);
	for (i = 0; i < size; i++)
		fprintf(stderr, i < other_size && bytes[i] == other[i] ? " %02x " : "[%02x]", bytes[i]);
	fputc('\n', stderr);
}

static inline void bytes_expect(const char *what, const uint8_t *got, size_t got_size, const uint8_t *expected,
				size_t expected_size)
{
	if (got_size == expected_size && memcmp(got, expected, got_size) == 0)
		return;
	fprintf(stderr, "%s\n", what);
	bytes_print("expected", expected, expected_size, got, got_size);
	bytes_print("got", got, got_size, expected, expected_size);
	cr_expect_fail("%s: bytes differ", what);
}

#endif
