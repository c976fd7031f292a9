/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of machine code: byte strings and rows compared, and both shown when they differ.
 */
#ifndef LIBPATCH_TESTS_UNIT_BYTES_H
#define LIBPATCH_TESTS_UNIT_BYTES_H

#include "arch/emit.h"

#include <stddef.h>
#include <stdint.h>

/* Two initialisers: the bytes and how many they are. */
#define BYTES(...) { __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ })

/* Criterion notes a failure of `what` unless got is as expected. */
void bytes_expect(const char *what, const uint8_t *got, size_t got_size, const uint8_t *expected, size_t expected_size);
void rows_expect(const struct arch_code *code, const struct arch_row *expected, size_t count);

#endif
