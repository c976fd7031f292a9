/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All modules that are loaded, with the loader's lock: none goes meanwhile. Others wait for that lock with the library
 * lock, so it is never taken under the library lock. Not for signal handlers.
 */
#ifndef LIBPATCH_ELF_LOADED_H
#define LIBPATCH_ELF_LOADED_H

#include "elf/module.h"

struct loaded {
	struct module module; /* without `identity` and unwind table */
	const char *path;     /* of the program "" */
	bool is_program;
};

/*
 * Visit the modules of libpatch's own namespace in the order in which the dynamic linker has them, or those of all
 * other namespaces, until `visit` returns false. `visit` must not ask the dynamic linker for anything.
 */
typedef bool loaded_visit_fn(const struct loaded *loaded, void *data);
void loaded_visit(bool others, loaded_visit_fn *visit, void *data);

/* How often modules were loaded or unloaded: the same number twice means the same modules. */
uint64_t loaded_changes(void);

#endif
