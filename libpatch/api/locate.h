/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The address of a symbol: dynamic symbols as they are in memory, then those of files. Without the library lock,
 * because the loader's lock is taken, and files are read; then, with the library lock, whether the module is still
 * there.
 */
#ifndef LIBPATCH_API_LOCATE_H
#define LIBPATCH_API_LOCATE_H

#include "base/thread_safety.h"
#include "elf/identity.h"

#include <libpatch/patch.h>

struct located {
	uintptr_t address;
	uintptr_t bias; /* of the module around it */
	struct identity module; /* size 0: unknown */
};

/* Where the symbol is; raises the error when it cannot be said. Not for signal handlers. */
patch_status locate_symbol(const char *text, struct located *out);

/* Is the module around the address still the same one? It stays loaded as long as the library lock is held. */
bool locate_is_current(const struct located *located) REQUIRES(library_lock);

#endif
