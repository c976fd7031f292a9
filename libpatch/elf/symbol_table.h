/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The symbols of a file's .symtab, by name. The table is a copy in memory of its own, so that the file may go. It takes
 * no lock and no memory of the heap: files are read without the library lock.
 */
#ifndef LIBPATCH_ELF_SYMBOL_TABLE_H
#define LIBPATCH_ELF_SYMBOL_TABLE_H

#include "elf/elf_file.h"
#include "elf/symbol_name.h"

struct symbol_table {
	Elf64_Sym *symbols; /* whose names are inside `names` */
	char *names;        /* ends with a zero byte */
	uint32_t *buckets;  /* a symbol's index plus 1; 0: none */
	uint32_t *chain;    /* the next symbol with the same bucket, likewise */
	size_t count;
	size_t bucket_count;
	size_t size; /* of the mapping that begins with the symbols */
};

/* Returns 0; -ENOENT: the file has no symbols; -ENOMEM; -ENOEXEC: what it says of them cannot be. */
long symbol_table_read(struct symbol_table *table, const struct elf_file *file);
void symbol_table_free(struct symbol_table *table);

/* The next symbol with this name, in whatever version, behind `after` (NULL: the first one); NULL: no more. */
const Elf64_Sym *symbol_table_find(const struct symbol_table *table, const struct name_part *name,
				   const Elf64_Sym *after);
/* The version at the end of the symbol's name, "@V" or "@@V"; "" when there is none. */
const char *symbol_table_version(const struct symbol_table *table, const Elf64_Sym *symbol);
const char *symbol_table_name(const struct symbol_table *table, const Elf64_Sym *symbol);

/* Bytes that all tables take. */
uint64_t symbol_tables_mapped(void);

#endif
