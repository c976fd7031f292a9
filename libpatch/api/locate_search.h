/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A search for a symbol, between the files that make it and that tell why it failed.
 */
#ifndef LIBPATCH_API_LOCATE_SEARCH_H
#define LIBPATCH_API_LOCATE_SEARCH_H

#include "elf/dynamic_symbols.h"
#include "elf/module_files.h"

#include <libpatch/patch.h>

struct locate_search {
	const char *text; /* as the user wrote it */
	struct symbol_name name;
	uint32_t hash;
	/* MODULE is a path, and the modules are compared with the file that is there. */
	bool by_file;
	uint64_t device;
	uint64_t inode;
	bool others;    /* the namespaces that are searched */
	size_t modules; /* how many there are that MODULE names */
	bool from_files;
	struct symbol_places places;
};

/* Is the module one of those that MODULE names? */
bool locate_fits(const struct locate_search *search, const char *path, bool is_program);
/* Visit the modules that fit. Counts them. */
void locate_visit(struct locate_search *search, loaded_visit_fn *visit, void *data);

/* Why there is no address: raise the errors. */
patch_status locate_raise_no_module(const struct locate_search *search);
patch_status locate_raise_missing(const struct locate_search *search, struct module_files *files);
patch_status locate_raise_ambiguous(const struct locate_search *search);

#endif
