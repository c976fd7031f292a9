/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks of what the library believes about itself: that a list ends where its count says, that a queue has the room
 * that was reserved. A check that fails is a bug of the library. In production it becomes an error, PATCH_BUG, with
 * file and line, and the function returns before it does damage: the library never ends the host (I10). In the build
 * for tests it is fatal.
 */
#ifndef LIBPATCH_BASE_BUG_H
#define LIBPATCH_BASE_BUG_H

#include "base/compiler.h"

/* The name of the source without the directory in which it was built. */
#ifdef __FILE_NAME__
#define BUG_FILE __FILE_NAME__
#else
#define BUG_FILE __FILE__
#endif
#define BUG_TEXT(x) BUG_TEXT_OF(x)
#define BUG_TEXT_OF(x) #x

/* Is the condition, which should never be, true? Then PATCH_BUG is in the thread's chain of errors. */
#define BUG_ON(condition)                                                                                              \
	(__builtin_expect((condition) != 0, 0) && bug_found(BUG_FILE ":" BUG_TEXT(__LINE__), #condition))

/* Return from the function if the condition is true: with a value, unless the function is void. */
#define BUG_ON_RETURN(condition, ...)                                                                                  \
	do {                                                                                                           \
		if (BUG_ON(condition))                                                                                 \
			return __VA_ARGS__;                                                                            \
	} while (0)

/* Raise PATCH_BUG. Always true. Both strings are literals. Async-signal-safe. */
bool bug_found(const char *where, const char *condition) __attribute__((cold, noinline));

#ifdef LIBPATCH_INJECT
/* True at first. A test that provokes a bug sets it to false, and gets what production would get. */
extern bool libpatch_bugs_are_fatal;
#endif

#endif
