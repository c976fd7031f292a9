/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling unwinders and debuggers of generated code. One description covers a whole range, for as long as the process
 * lives, so that nothing is told for a patch.
 */
#ifndef LIBPATCH_CODE_UNWINDERS_H
#define LIBPATCH_CODE_UNWINDERS_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/code_ranges.h"

/* Which other unwinders has the program loaded? In patch_init(), without the library lock: calls the dynamic linker. */
void unwinders_find(void);

/* Describe a range, to be registered. False when there is no memory. */
bool unwinders_describe(const struct code_range *range) REQUIRES(library_lock);

/* What was described since the last call is registered here: outside the library lock, with signals blocked. */
void unwinders_register(void);
/* Is there any? */
bool unwinders_are_due(void);

#endif
