/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the symbols of a loaded module are: in the file that is mapped, or in a file of debug information that belongs
 * to it. Files are opened and read, which can take long: never under a lock.
 */
#ifndef LIBPATCH_ELF_SYMBOL_SOURCE_H
#define LIBPATCH_ELF_SYMBOL_SOURCE_H

#include "elf/identity.h"
#include "elf/symbol_table.h"

#define MAPPED_SEGMENTS 4

/* What is known of the file that a module was loaded from. */
struct mapped_file {
	const char *path; /* the dynamic linker's; of the program "" */
	bool is_program;
	struct identity identity;
	/* Whole pages of its first segments, as /proc/self/map_files names them; upper 0: there is none. */
	struct {
		uintptr_t lower;
		uintptr_t upper;
	} segments[MAPPED_SEGMENTS];
};

enum symbol_source {
	SOURCE_UNREAD,
	SOURCE_READ,
	SOURCE_STRIPPED,   /* there are no symbols but the dynamic ones */
	SOURCE_REPLACED,   /* the file at the path is another one */
	SOURCE_UNREADABLE, /* it cannot be opened */
	SOURCE_DAMAGED,    /* its tables are not those of a file that can be read */
	SOURCE_NO_MEMORY
};

/* Read the symbols. Other results than SOURCE_READ leave an empty table. */
enum symbol_source symbol_source_read(const struct mapped_file *mapped, struct symbol_table *table);

/* Where the program's file was when the library was loaded; "" when that cannot be known. */
const char *symbol_source_program_path(void);

#ifdef LIBPATCH_INJECT
/* Tests have a directory of their own. */
extern const char *symbol_source_debug_root;
#endif

#endif
