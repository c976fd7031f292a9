/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers and words in the texts that the kernel writes. Each text ends with a zero byte, behind which nothing is read.
 */
#ifndef LIBPATCH_BASE_PARSE_H
#define LIBPATCH_BASE_PARSE_H

#include <stddef.h>
#include <stdint.h>

/* The number that `at` begins with, 0 where there is no digit. Returns the first character behind its digits. */
static inline const char *parse_decimal(const char *at, uint64_t *value)
{
	for (*value = 0; *at >= '0' && *at <= '9'; ++at)
		*value = *value * 10 + (uint64_t)(*at - '0');
	return at;
}

/* The same for the digits 0 to 9 and a to f. */
static inline const char *parse_hexadecimal(const char *at, uint64_t *value)
{
	for (*value = 0;; ++at) {
		if (*at >= '0' && *at <= '9')
			*value = *value << 4 | (uint64_t)(*at - '0');
		else if (*at >= 'a' && *at <= 'f')
			*value = *value << 4 | (uint64_t)(*at - 'a' + 10);
		else
			return at;
	}
}

/* The rest of a text that begins with `prefix`; NULL when it does not. */
static inline const char *parse_prefix(const char *at, const char *prefix)
{
	while (*prefix != '\0')
		if (*at++ != *prefix++)
			return NULL;
	return at;
}

/* What follows `key` and blanks in the first line that begins with `key`; NULL when no line does. */
static inline const char *parse_find_line(const char *text, const char *key)
{
	while (*text != '\0') {
		const char *rest = parse_prefix(text, key);

		if (rest != NULL) {
			while (*rest == ' ' || *rest == '\t')
				++rest;
			return rest;
		}
		while (*text != '\0' && *text++ != '\n')
			;
	}
	return NULL;
}

#endif
