/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte strings of unit tests, compared and shown. */
#include "bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void bytes_print(const char *title, const uint8_t *bytes, size_t size, const uint8_t *other, size_t other_size)
{
	size_t i;

	fprintf(stderr, "  %-9s", title);
	for (i = 0; i < size; i++)
		fprintf(stderr, i < other_size && bytes[i] == other[i] ? " %02x " : "[%02x]", bytes[i]);
	fputc('\n', stderr);
}

void bytes_expect(const char *what, const uint8_t *got, size_t got_size, const uint8_t *expected, size_t expected_size)
{
	if (got_size == expected_size && memcmp(got, expected, got_size) == 0)
		return;
	fprintf(stderr, "%s\n", what);
	bytes_print("expected", expected, expected_size, got, got_size);
	bytes_print("got", got, got_size, expected, expected_size);
	cr_expect_fail("%s: bytes differ", what);
}
