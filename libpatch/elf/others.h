/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules of other namespaces of the dynamic linker (dlmopen(), LD_AUDIT). No list of them is public before glibc 2.35,
 * so they are found in the kernel's list of mappings, and the dynamic linker is asked whose each is, which it answers
 * for all namespaces.
 *
 * Before glibc 2.35 it is asked with a lock of its own that must not be waited for under the one that keeps modules
 * from going (elf/loaded.h). So a list is made without locks. What it says is good when loaded_changes() has not
 * changed since.
 */
#ifndef LIBPATCH_ELF_OTHERS_H
#define LIBPATCH_ELF_OTHERS_H

#include "base/compiler.h"

struct link_map;

struct other {
	uintptr_t code; /* an address of its code */
	const void *start;
	const struct link_map *map;
};

struct others {
	size_t size; /* of the mapping */
	size_t room; /* for modules */
	size_t count;
	struct other *modules;
	char buffer[];
};

/* Neither under the library lock nor under the loader's. NULL: out of memory, or /proc cannot be read. */
struct others *others_make(void);
void others_free(struct others *others);

#endif
