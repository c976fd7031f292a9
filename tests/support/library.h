/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where libpatch's own code and data are, for tests that look at what the program may not see. */
#ifndef TESTS_LIBRARY_H
#define TESTS_LIBRARY_H

#include <stdbool.h>
#include <stdint.h>

extern uintptr_t library_lower, library_upper;

/* Set both; not for signal handlers. */
void library_find(void);

/* False before. Async-signal-safe. */
static inline bool library_has(uintptr_t address)
{
	return address >= library_lower && address < library_upper;
}

#endif
