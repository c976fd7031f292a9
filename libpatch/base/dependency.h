/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions of a library that libpatch calls (Zydis), called through pointers. The dynamic linker binds a
 * name to the first module that defines it, which may be a host with functions of the same names: its own disassembler,
 * or another version of the library, linked statically. elf/dependency.c finds that out in patch_init(), and has the
 * pointers lead into the library that libpatch was built with.
 */
#ifndef LIBPATCH_BASE_DEPENDENCY_H
#define LIBPATCH_BASE_DEPENDENCY_H

#include "base/compiler.h"

struct dependency_function {
	const char *name;
	void **function; /* where the pointer is; at first it has what the linker bound the name to */
};

struct dependency {
	const char *library; /* its DT_SONAME; "" when libpatch was linked with a static one */
	size_t count;
	struct dependency_function functions[8];
};

#define DEPENDENCY_FUNCTION(name) { #name, (void **)&libpatch_##name }

#endif
