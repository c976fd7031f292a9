/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How names are taken apart, which files they fit, and how far one is from another. */
#include "elf/symbol_name.h"

#include <criterion/criterion.h>
#include <string.h>

static void expect_part(const struct name_part *part, const char *text)
{
	if (text == NULL)
		cr_expect_null(part->text);
	else
		cr_expect(name_part_is(part, text), "%.*s is not %s", (int)part->length, part->text, text);
}

Test(symbol_name, parts)
{
	static const struct {
		const char *text, *module, *name, *version;
		bool only_default;
	} rows[] = {
		{ "f", NULL, "f", NULL, false },
		{ ":f", "", "f", NULL, false },
		{ "m:f", "m", "f", NULL, false },
		{ "/a/b.so:f@V", "/a/b.so", "f", "V", false },
		{ "f@@V", NULL, "f", "V", true },
		{ "f@V@W", NULL, "f", "V@W", false },
		{ "m:a:b", "m", "a:b", NULL, false },
		{ "m@n:f", "m@n", "f", NULL, false },
	};
	static const char *const wrong[] = { "", ":", "m:", "@", "@V", "f@", "f@@", "m:@V" };
	struct symbol_name name;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cr_assert(symbol_name_parse(rows[i].text, &name), "%s", rows[i].text);
		expect_part(&name.module, rows[i].module);
		expect_part(&name.name, rows[i].name);
		expect_part(&name.version, rows[i].version);
		cr_expect_eq(name.only_default, rows[i].only_default);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		cr_expect_not(symbol_name_parse(wrong[i], &name), "%s", wrong[i]);
}

Test(symbol_name, files)
{
	static const struct {
		const char *text, *path;
		bool fits;
	} rows[] = {
		{ "libc.so.6:f", "/lib/libc.so.6", true },
		{ "libc.so:f", "/lib/libc.so.6", true },
		{ "libc:f", "/lib/libc.so.6", true },
		{ "libc:f", "libc.so", true },
		{ "libc.so.6:f", "/lib/libc.so.61", false },
		{ "libc.so.6:f", "/lib/libc.so.6.1", true },
		{ "libc:f", "/lib/libcrypt.so.1", false },
		{ "lib:f", "/lib/libc.so.6", false },
		{ "c:f", "/lib/libc.so.6", false },
		{ "libc.:f", "/lib/libc.so.6", false },
		{ "libc.s:f", "/lib/libc.so.6", false },
		{ "libc.so.:f", "/lib/libc.so.6", false },
		{ "libc.so.6.1:f", "/lib/libc.so.6", false },
		{ "libc:f", "/libc/other", false },
		{ "libc:f", "/lib/libc.solid", false },
		{ "plugin:f", "/a/plugin", true },
		{ "plugin:f", "", false },
	};
	struct symbol_name name;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cr_assert(symbol_name_parse(rows[i].text, &name));
		cr_expect_eq(symbol_name_fits_file(&name, rows[i].path), rows[i].fits, "%s %s", rows[i].text,
			     rows[i].path);
	}
}

static unsigned int distance_in_full(const char *a, const char *b)
{
	unsigned int row[16], above;

	for (size_t j = 0; j <= strlen(b); j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= strlen(a); i++) {
		above = row[0];
		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= strlen(b); j++) {
			unsigned int best = MIN(MIN(row[j], row[j - 1]) + 1, above + (a[i - 1] != b[j - 1]));

			above = row[j];
			row[j] = best;
		}
	}
	return row[strlen(b)];
}

/* All pairs of words of up to five of two letters, with each limit. */
Test(symbol_name, distances)
{
	char words[63][6];
	size_t count = 0;

	for (size_t length = 0; length <= 5; length++) {
		for (unsigned int bits = 0; bits < 1u << length; bits++, count++) {
			for (size_t i = 0; i < length; i++)
				words[count][i] = bits >> i & 1 ? 'a' : 'b';
			words[count][length] = '\0';
		}
	}
	cr_assert_eq(count, ARRAY_SIZE(words));
	for (size_t a = 0; a < count; a++)
		for (size_t b = 0; b < count; b++)
			for (unsigned int limit = 0; limit <= SPELLING_LIMIT; limit++)
				cr_expect_eq(name_distance(words[a], strlen(words[a]), words[b], strlen(words[b]),
							   limit),
					     MIN(distance_in_full(words[a], words[b]), limit + 1), "%s %s %u",
					     words[a], words[b], limit);
}
