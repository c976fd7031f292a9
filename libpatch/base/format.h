/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers and words, written one behind the other: the counterpart of base/parse.h. Each function returns the end, and
 * puts no zero byte there. The caller has the room.
 */
#ifndef LIBPATCH_BASE_FORMAT_H
#define LIBPATCH_BASE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

static inline char *format_string(char *at, const char *string)
{
	while (*string != '\0')
		*at++ = *string++;
	return at;
}

/* In so many digits as it takes, of `base` 10 or 16: twenty at most. */
static inline char *format_number(char *at, uint64_t value, unsigned int base)
{
	char digits[20];
	size_t count = 0;

	do
		digits[count++] = "0123456789abcdef"[value % base];
	while ((value /= base) != 0);
	while (count > 0)
		*at++ = digits[--count];
	return at;
}

#endif
