/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names as users write them: [MODULE:]NAME[@VERSION]. Pure.
 */
#ifndef LIBPATCH_ELF_SYMBOL_NAME_H
#define LIBPATCH_ELF_SYMBOL_NAME_H

#include "base/compiler.h"

/* A part of a text: it does not end with a zero byte. */
struct name_part {
	const char *text; /* NULL: the part is missing */
	size_t length;
};

struct symbol_name {
	struct name_part module;
	struct name_part name;
	struct name_part version;
	bool only_default; /* the version is written behind two @ */
};

/*
 * The module is in front of the first colon, the version behind the first @. False: the name or the version is empty.
 */
bool symbol_name_parse(const char *text, struct symbol_name *out);

/* Is the program meant, by no name or by "main"? */
bool symbol_name_is_program(const struct symbol_name *name);
/*
 * Does the path end in the module that is meant? The last part of the path is MODULE, or MODULE followed by a version
 * (".1.2" behind ".so"), or by ".so" and a version. Not for names that have a slash.
 */
bool symbol_name_fits_file(const struct symbol_name *name, const char *path);
bool symbol_name_has_slash(const struct symbol_name *name);

/* The last part of a path. */
const char *symbol_name_of_file(const char *path);

/* The rest of a text that begins with the part; NULL when it does not. */
const char *name_part_rest(const struct name_part *part, const char *text);
/* Does `text` end right behind the part? */
bool name_part_is(const struct name_part *part, const char *text);
size_t name_length(const char *text);

/*
 * How many letters must be taken out, put in or replaced to make one name of the other; more than `limit` (at most
 * SPELLING_LIMIT): limit + 1.
 */
#define SPELLING_LIMIT 3
unsigned int name_distance(const char *a, size_t a_length, const char *b, size_t b_length, unsigned int limit);

#endif
