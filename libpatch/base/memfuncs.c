/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * memcpy(), memmove(), memset(), memcmp(), memchr() and strchr() of the library's own.
 *
 * libc's are code like any other: they may be patched, and then hold trap bytes while a commit changes them (I9). These
 * are hidden, so that every reference of the library, also those that the compiler makes for structures, is bound to
 * them when it is linked, and the program's stay what they are.
 *
 * No vector registers. `rep movsb` costs some thirty cycles before its first byte, which is why short copies are moves
 * of words that overlap.
 */
#include "base/compiler.h"

#include <string.h>

/* `used`: link-time optimisation drops functions without references before it makes calls of its own to them. */
#define OWN __attribute__((visibility("hidden"), used))

/* Of any alignment, and whatever the memory holds. */
typedef uint64_t __attribute__((may_alias, aligned(1))) word;
typedef uint32_t __attribute__((may_alias, aligned(1))) half;

/* Sizes that moves of words do. */
#define SHORT 32

/* Up to SHORT bytes: everything is read before anything is written. */
static inline void move_short(uint8_t *to, const uint8_t *from, size_t size)
{
	if (size > 16) {
		uint64_t a = *(const word *)from, b = *(const word *)(from + 8);
		uint64_t c = *(const word *)(from + size - 16), d = *(const word *)(from + size - 8);

		*(word *)to = a;
		*(word *)(to + 8) = b;
		*(word *)(to + size - 16) = c;
		*(word *)(to + size - 8) = d;
	} else if (size >= 8) {
		uint64_t a = *(const word *)from, b = *(const word *)(from + size - 8);

		*(word *)to = a;
		*(word *)(to + size - 8) = b;
	} else if (size >= 4) {
		uint32_t a = *(const half *)from, b = *(const half *)(from + size - 4);

		*(half *)to = a;
		*(half *)(to + size - 4) = b;
	} else if (size > 0) {
		uint8_t a = from[0], b = from[size / 2], c = from[size - 1];

		to[0] = a;
		to[size / 2] = b;
		to[size - 1] = c;
	}
}

OWN void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	void *at = to;

	if (size <= SHORT)
		move_short(to, from, size);
	else
		__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
	return to;
}

OWN void *memmove(void *to, const void *from, size_t size)
{
	uint8_t *out = to;
	const uint8_t *in = from;

	if (size <= SHORT)
		move_short(to, from, size);
	else if ((uintptr_t)to - (uintptr_t)from >= size) /* not behind `from` and within it */
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	else {
		for (; size >= sizeof(word); size -= sizeof(word))
			*(word *)(out + size - sizeof(word)) = *(const word *)(in + size - sizeof(word));
		while (size-- > 0)
			out[size] = in[size];
	}
	return out;
}

OWN void *memset(void *to, int value, size_t size)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
	return to;
}

OWN int memcmp(const void *first, const void *second, size_t size)
{
	const uint8_t *a = first, *b = second;

	for (; size >= 4 * sizeof(word); size -= 4 * sizeof(word)) {
		const word *x = (const word *)a, *y = (const word *)b;

		if (((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3])) != 0)
			break;
		a += 4 * sizeof(word);
		b += 4 * sizeof(word);
	}
	for (; size >= sizeof(word) && *(const word *)a == *(const word *)b; size -= sizeof(word)) {
		a += sizeof(word);
		b += sizeof(word);
	}
	for (; size > 0; --size, ++a, ++b)
		if (*a != *b)
			return *a - *b;
	return 0;
}

/* From C23 on, <string.h> may define memchr and strchr as macros too: the parentheses keep them from being expanded. */
OWN void *(memchr)(const void *bytes, int value, size_t size)
{
	const uint64_t wanted = BYTES_ONE * (uint8_t)value;
	const uint8_t *at = bytes;

	for (; size >= sizeof(word) && !bytes_have_zero(*(const word *)at ^ wanted); size -= sizeof(word))
		at += sizeof(word);
	for (; size > 0; --size, ++at)
		if (*at == (uint8_t)value)
			return (void *)(uintptr_t)at;
	return NULL;
}

OWN char *(strchr)(const char *string, int value)
{
	for (; *string != (char)value; ++string)
		if (*string == '\0')
			return NULL;
	return (char *)(uintptr_t)string;
}
