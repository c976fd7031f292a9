/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic symbols of a loaded module, as they are in memory. The module must stay loaded during the call.
 */
#ifndef LIBPATCH_ELF_DYNAMIC_SYMBOLS_H
#define LIBPATCH_ELF_DYNAMIC_SYMBOLS_H

#include "elf/module.h"
#include "elf/symbol_name.h"
#include "elf/symbol_places.h"

/* The hash of a name in a DT_GNU_HASH table: once for all modules. */
uint32_t dynamic_symbols_hash(const struct name_part *name);
void dynamic_symbols_find(const struct module *module, const struct symbol_name *name, uint32_t hash,
			  struct symbol_places *places);

/* Visit the name of each symbol that is defined and found by its name, until `visit` returns false. */
typedef bool dynamic_name_fn(const char *name, void *data);
void dynamic_symbols_visit(const struct module *module, dynamic_name_fn *visit, void *data);

#endif
