/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a user's name of a symbol means, and which names are like it. Looks at texts alone, and calls nothing.
 */
#include "elf/symbol_name.h"

#include <string.h>

size_t name_length(const char *text)
{
	size_t length = 0;

	while (text[length] != '\0')
		++length;
	return length;
}

const char *name_part_rest(const struct name_part *part, const char *text)
{
	for (size_t i = 0; i < part->length; ++i)
		if (*text++ != part->text[i])
			return NULL;
	return text;
}

bool name_part_is(const struct name_part *part, const char *text)
{
	const char *rest = name_part_rest(part, text);

	return rest != NULL && *rest == '\0';
}

bool symbol_name_parse(const char *text, struct symbol_name *out)
{
	const char *colon = strchr(text, ':');
	const char *at;

	*out = (struct symbol_name){ .only_default = false };
	if (colon != NULL) {
		out->module = (struct name_part){ text, (size_t)(colon - text) };
		text = colon + 1;
	}
	at = strchr(text, '@');
	if (at == NULL) {
		out->name = (struct name_part){ text, name_length(text) };
		return out->name.length > 0;
	}
	out->name = (struct name_part){ text, (size_t)(at - text) };
	out->only_default = at[1] == '@';
	at += out->only_default ? 2 : 1;
	out->version = (struct name_part){ at, name_length(at) };
	return out->name.length > 0 && out->version.length > 0;
}

bool symbol_name_is_program(const struct symbol_name *name)
{
	const struct name_part *module = &name->module;

	return module->text != NULL &&
	       (module->length == 0 || (module->length == 4 && memcmp(module->text, "main", 4) == 0));
}

bool symbol_name_has_slash(const struct symbol_name *name)
{
	return name->module.length > 0 && memchr(name->module.text, '/', name->module.length) != NULL;
}

const char *symbol_name_of_file(const char *path)
{
	const char *last = path;

	for (; *path != '\0'; ++path)
		if (*path == '/')
			last = path + 1;
	return last;
}

static bool symbol_name_has_suffix(const char *text, size_t length)
{
	for (size_t i = 0; i + 3 <= length; ++i)
		if (memcmp(text + i, ".so", 3) == 0 && (i + 3 == length || text[i + 3] == '.'))
			return true;
	return false;
}

bool symbol_name_fits_file(const struct symbol_name *name, const char *path)
{
	const struct name_part *module = &name->module;
	const char *rest = name_part_rest(module, symbol_name_of_file(path));

	if (rest == NULL || *rest == '\0')
		return rest != NULL;
	if (symbol_name_has_suffix(module->text, module->length))
		return *rest == '.';
	return rest[0] == '.' && rest[1] == 's' && rest[2] == 'o' && (rest[3] == '\0' || rest[3] == '.');
}

/* The rows of the usual matrix, of which only what lies within `limit` of the diagonal can be small enough. */
unsigned int name_distance(const char *a, size_t a_length, const char *b, size_t b_length, unsigned int limit)
{
	unsigned int above[2 * SPELLING_LIMIT + 3], row[2 * SPELLING_LIMIT + 3];
	const unsigned int far = limit + 1;
	const size_t width = 2 * limit + 1;

	if (MAX(a_length, b_length) - MIN(a_length, b_length) > limit)
		return far;
	/* What both begin or end with changes nothing. */
	for (; a_length > 0 && b_length > 0 && *a == *b; ++a, ++b, --a_length, --b_length)
		;
	for (; a_length > 0 && b_length > 0 && a[a_length - 1] == b[b_length - 1]; --a_length, --b_length)
		;
	/* Place d + 1 stands for b's letter i + d - limit; on both sides is a place that is too far. */
	for (size_t d = 0; d < width + 2; ++d)
		above[d] = d >= limit + 1 && d <= width ? (unsigned int)d - (limit + 1) : far;
	for (size_t i = 1; i <= a_length; ++i) {
		unsigned int least = far;

		row[0] = far;
		row[width + 1] = far;
		for (size_t d = 0; d < width; ++d) {
			size_t j = i + d - limit;
			unsigned int best;

			row[d + 1] = far;
			if (i + d < limit || j > b_length)
				continue;
			best = MIN(above[d + 2], row[d]) + 1;
			if (j == 0)
				best = (unsigned int)i;
			else
				best = MIN(best, above[d + 1] + (a[i - 1] != b[j - 1]));
			row[d + 1] = MIN(best, far);
			least = MIN(least, row[d + 1]);
		}
		if (least == far)
			return far;
		memcpy(above, row, sizeof(row));
	}
	return above[b_length - a_length + limit + 1];
}
