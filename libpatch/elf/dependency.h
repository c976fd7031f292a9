/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The functions that libpatch calls of a library are those of that library (base/dependency.h).
 */
#ifndef LIBPATCH_ELF_DEPENDENCY_H
#define LIBPATCH_ELF_DEPENDENCY_H

#include "base/dependency.h"

/*
 * Have the pointers lead into the library. Where a name is bound to a function of another module, a copy of the library
 * is loaded for libpatch alone. False when that cannot be done: the pointers are as they were. Calls the dynamic
 * linker: in patch_init(), without the library lock.
 */
bool dependency_bind(const struct dependency *dependency);

/*
 * A function of a library that the program may have loaded; NULL: it has not, or the library has no such function. The
 * library then stays for good. Calls the dynamic linker, too.
 */
void *dependency_find_loaded(const char *library, const char *function);

#endif
