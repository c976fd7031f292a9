/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a tool says: gdb, perf. */
#ifndef TESTS_TOOL_OUTPUT_H
#define TESTS_TOOL_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Run the program in PATH that arguments[0] names. What it writes to its standard output, and to its standard error if
 * that is asked for, is in text[size], as far as there is room. Returns its status, as waitpid(2) has it.
 */
int tool_output(const char *const *arguments, bool errors, char *text, size_t size);

#endif
