/* SPDX-License-Identifier: MIT */
/*
 * Where a preloaded tool writes: a descriptor of its own, out of the way of the program it is in.
 */
#ifndef EXAMPLES_OUTPUT_H
#define EXAMPLES_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

/* Open `file`, or standard error when it is "". False when that cannot be written. */
bool output_open(const char *file);
/* The same again if the program has closed the descriptor, or has it for a file of its own now. */
bool output_reopen(const char *file);

/* One line or a part of one, at once. Does not use malloc. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* 1234567 -> "1,234,567", valid until the end of the full expression. */
struct digits {
	char text[32];
};
struct digits grouped(uint64_t value);
#define GROUPED(value) (grouped(value).text)

#endif
