/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was read of the loaded modules' files, until modules are loaded or unloaded. One thread at a time has it; who
 * finds it taken reads for itself. No lock is held meanwhile: a handler or another thread is in nobody's way.
 */
#ifndef LIBPATCH_ELF_MODULE_FILES_H
#define LIBPATCH_ELF_MODULE_FILES_H

#include "elf/loaded.h"
#include "elf/symbol_places.h"
#include "elf/symbol_source.h"

struct module_file {
	struct mapped_file mapped;
	uintptr_t bias;
	bool is_other; /* of another namespace */
	/* The extent of its executable segments. */
	uintptr_t code_lower;
	uintptr_t code_upper;
	enum symbol_source source;
	struct symbol_table table;
};

struct module_files {
	size_t size; /* of the mapping */
	uint64_t changes;
	size_t count;
	char *paths;
	struct module_file files[];
};

/* NULL: out of memory. Takes the loader's lock, and no longer has it afterwards. */
struct module_files *module_files_take(void);
void module_files_give(struct module_files *files);
/* Free what nobody has taken. */
void module_files_forget(void);

/* Read the file, unless it was read. */
void module_file_read(struct module_file *file);
/* Add the places of the name to those that were found. */
void module_file_find(const struct module_file *file, const struct symbol_name *name, struct symbol_places *places);

#endif
