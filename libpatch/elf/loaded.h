/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All modules that are loaded, with the loader's lock: none goes meanwhile. It is taken before the library lock where
 * both are: who unmaps a module has it, and waits for the library lock. And it is waited for with another lock of the
 * loader's: while it is held, dlsym() and the like must not be called. Not for signal handlers.
 */
#ifndef LIBPATCH_ELF_LOADED_H
#define LIBPATCH_ELF_LOADED_H

#include "elf/module.h"
#include "elf/others.h"

struct loaded {
	struct module module; /* without `identity` and unwind table */
	const char *path;     /* of the program "" */
	bool is_program;
};

/* What visits a module. False: no more. */
typedef bool loaded_visit_fn(const struct loaded *loaded, void *data);

/*
 * Visit the modules of libpatch's own namespace in the order in which the dynamic linker has them, or those of all
 * other namespaces.
 */
void loaded_visit(bool others, loaded_visit_fn *visit, void *data);

/*
 * Call `function` while no module is loaded or unloaded. `others` is for loaded_visit_others(), which does what
 * loaded_visit() does for other namespaces; NULL: they are not known.
 */
typedef void loaded_held_fn(const struct others *others, void *data);
void loaded_hold(loaded_held_fn *function, void *data);
void loaded_visit_others(const struct others *others, loaded_visit_fn *visit, void *data);

/* How often modules were loaded or unloaded: the same number twice means the same modules. */
uint64_t loaded_changes(void);

#endif
