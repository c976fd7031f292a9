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

void rows_expect(const struct arch_code *code, const struct arch_row *expected, size_t count)
{
	cr_expect_eq(code->row_count, count, "%zu rows, not %zu", code->row_count, count);
	for (size_t i = 0; i < count && i < code->row_count; i++) {
		const struct arch_row *row = &code->rows[i];

		cr_expect(row->code == expected[i].code && row->original == expected[i].original &&
				  row->cfa == expected[i].cfa,
			  "row %zu is { %u, %u, %u }, not { %u, %u, %u }", i, row->code, row->original, row->cfa,
			  expected[i].code, expected[i].original, expected[i].cfa);
	}
}
