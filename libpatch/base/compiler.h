/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small macros that every layer uses, and nothing that runs: alignment, the attributes of symbols and of thread-local
 * variables, arithmetic on the bytes of a word. The first header that any file sees: it asks the C library for all its
 * declarations.
 */
#ifndef LIBPATCH_BASE_COMPILER_H
#define LIBPATCH_BASE_COMPILER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096UL
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + (a)-1, a)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A word each of whose bytes is 1. */
#define BYTES_ONE 0x0101010101010101UL
/* Is a byte of the word 0? The answer is exact (Hacker's Delight, 6-1). */
static inline bool bytes_have_zero(uint64_t word)
{
	return ((word - BYTES_ONE) & ~word & BYTES_ONE << 7) != 0;
}

/*
 * The index of a value in a hash table with `count` places, a power of two and at least 2 (Knuth, The Art of Computer
 * Programming 3, 6.4).
 */
static inline size_t hash_index(uint64_t value, size_t count)
{
	return value * 0x9E3779B97F4A7C15ULL >> (64 - __builtin_ctzl(count));
}

/* A thread-local variable that is read without __tls_get_addr(), which locks and allocates (I9). */
#define TLS_INITIAL_EXEC _Thread_local __attribute__((tls_model("initial-exec")))

/* Everything else is hidden; libpatch.map lists the same names. */
#define EXPORT __attribute__((visibility("default")))

/* The bytes of the longest instruction (Intel SDM vol. 2, 2.3.11). */
#define INSN_MAX 15

#endif
