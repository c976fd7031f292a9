/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/parse.h: numbers, prefixes and lines, at the ends of texts above all. */
#include "base/parse.h"

#include <criterion/criterion.h>

Test(parse, decimal)
{
	uint64_t value = 1;

	cr_expect_str_eq(parse_decimal("", &value), "");
	cr_expect_eq(value, 0);
	cr_expect_str_eq(parse_decimal("12345678901 7", &value), " 7");
	cr_expect_eq(value, 12345678901);
	cr_expect_str_eq(parse_decimal("6.1", &value), ".1");
	cr_expect_eq(value, 6);
	cr_expect_str_eq(parse_decimal("-1", &value), "-1");
	cr_expect_eq(value, 0);
}

Test(parse, hexadecimal)
{
	uint64_t value = 1;

	cr_expect_str_eq(parse_hexadecimal("", &value), "");
	cr_expect_eq(value, 0);
	cr_expect_str_eq(parse_hexadecimal("7ffe90ab1000-", &value), "-");
	cr_expect_eq(value, 0x7ffe90ab1000);
	cr_expect_str_eq(parse_hexadecimal("ffffffffffffffff\n", &value), "\n");
	cr_expect_eq(value, UINT64_MAX);
	cr_expect_str_eq(parse_hexadecimal("0fg", &value), "g");
	cr_expect_eq(value, 0xf);
}

Test(parse, prefix)
{
	cr_expect_str_eq(parse_prefix("[vdso]", "[v"), "dso]");
	cr_expect_str_eq(parse_prefix("[v", "[v"), "");
	cr_expect_null(parse_prefix("[", "[v"));
	cr_expect_null(parse_prefix("", "[v"));
}

Test(parse, find_line)
{
	const char text[] = "Name:\tSigBlk:\nShdPnd:\t01\nSigBlk:\t \tfe\nSigIgn:\n";

	/* Not where it stands in the middle of a line. */
	cr_expect_str_eq(parse_find_line(text, "SigBlk:"), "fe\nSigIgn:\n");
	cr_expect_str_eq(parse_find_line(text, "SigIgn:"), "\n");
	cr_expect_null(parse_find_line(text, "SigCgt:"));
	cr_expect_null(parse_find_line("SigBl", "SigBlk:"));
	cr_expect_null(parse_find_line("", "SigBlk:"));
}
