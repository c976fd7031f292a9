/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text as the program has it, under whatever the library wrote: for everything that decodes code that may be
 * patched. Called with the library lock held.
 */
#ifndef LIBPATCH_PATCH_ORIGINAL_H
#define LIBPATCH_PATCH_ORIGINAL_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Is the text in [lower, upper), which is not empty, what it was without patches? True is sure; false may be wrong. */
bool original_is_in_place(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/* Copy the original bytes from address on. Returns how many could be read, less than `size` where the mapping ends. */
size_t original_read(uintptr_t address, uint8_t *bytes, size_t size) REQUIRES(library_lock);

/*
 * Point *bytes to the original bytes of the installed region that has an instruction at address. Returns how many there
 * are; 0 when there is no such region, and the text itself is the original.
 */
size_t original_view(uintptr_t address, const uint8_t **bytes) REQUIRES(library_lock);

#endif
