/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic section of a loaded module, value by value. Of a module that the dynamic linker knows, and that stays
 * loaded meanwhile. Lock-free and async-signal-safe; nothing outside the module's readable segments is read.
 */
#ifndef LIBPATCH_ELF_DYNAMIC_H
#define LIBPATCH_ELF_DYNAMIC_H

#include "elf/module.h"

/* The first value with this tag; 0: there is none. */
uint64_t dynamic_value(const struct module *module, int64_t tag);
/* The same for what is an address, which in most modules the dynamic linker has put in place of the offset. */
uintptr_t dynamic_address(const struct module *module, int64_t tag);

#endif
