/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hash table over a copy of .symtab and its names. Guarantees:
 *
 * G1 Whatever the file holds, nothing outside the copy is read: names that do not begin inside their table are left
 *    out, and a zero byte is behind the last one.
 * G2 Reading takes time in proportion to the section, finding a name a constant time on average.
 * G3 Raw system calls only; no lock, no heap, no state but a count.
 *
 * Where symbols are, and what they are, is for the caller to judge.
 */
#include "elf/symbol_table.h"

#include "base/syscall.h"

#include <stdatomic.h>
#include <sys/mman.h>

/* Names are at 32-bit offsets, and indices are 32-bit words. */
#define SYMBOLS_MAX (1UL << 30)

static _Atomic uint64_t symbol_bytes;

uint64_t symbol_tables_mapped(void)
{
	return atomic_load_explicit(&symbol_bytes, memory_order_relaxed);
}

/* The letters in front of the version, each one. */
static bool table_letter(const char *at, size_t left)
{
	return left > 0 && *at != '\0' && *at != '@';
}

static size_t table_bucket(const struct symbol_table *table, const char *name, size_t length)
{
	uint64_t hash = 0;

	for (; table_letter(name, length); ++name, --length)
		hash = hash * 31 + (uint8_t)*name;
	return hash_index(hash, table->bucket_count);
}

const char *symbol_table_name(const struct symbol_table *table, const Elf64_Sym *symbol)
{
	return table->names + symbol->st_name;
}

static bool table_is_named(const struct symbol_table *table, const Elf64_Sym *symbol, const struct name_part *name)
{
	const char *rest = name_part_rest(name, symbol_table_name(table, symbol));

	return rest != NULL && (*rest == '\0' || *rest == '@');
}

const Elf64_Sym *symbol_table_find(const struct symbol_table *table, const struct name_part *name,
				   const Elf64_Sym *after)
{
	uint32_t at;

	if (table->count == 0)
		return NULL;
	at = after != NULL ? table->chain[after - table->symbols] :
			     table->buckets[table_bucket(table, name->text, name->length)];
	for (; at != 0; at = table->chain[at - 1])
		if (table_is_named(table, &table->symbols[at - 1], name))
			return &table->symbols[at - 1];
	return NULL;
}

const char *symbol_table_version(const struct symbol_table *table, const Elf64_Sym *symbol)
{
	const char *at = symbol_table_name(table, symbol);

	while (*at != '\0' && *at != '@')
		++at;
	return at;
}

/* In the order of the file, what can be asked for. */
static void table_index(struct symbol_table *table, size_t names_size)
{
	size_t kept = 0;

	for (size_t i = 0; i < table->count; ++i) {
		const Elf64_Sym symbol = table->symbols[i];
		const char *name;
		uint32_t *bucket;

		if (symbol.st_name == 0 || symbol.st_name >= names_size || symbol.st_shndx == SHN_UNDEF)
			continue;
		name = table->names + symbol.st_name;
		bucket = &table->buckets[table_bucket(table, name, names_size - symbol.st_name)];
		table->symbols[kept] = symbol;
		table->chain[kept] = *bucket;
		*bucket = (uint32_t)++kept;
	}
	table->count = kept;
}

static bool table_map(struct symbol_table *table, size_t symbols_size, size_t names_size)
{
	size_t names_room = ALIGN_UP(names_size + 1, sizeof(uint64_t));
	uint8_t *memory;
	long result;

	table->bucket_count = 2;
	while (table->bucket_count < table->count)
		table->bucket_count *= 2;
	table->size = symbols_size + names_room + (table->bucket_count + table->count) * sizeof(uint32_t);
	table->size = ALIGN_UP(table->size, PAGE_SIZE);
	result = raw_syscall(SYS_mmap, NULL, table->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (result < 0)
		return false;
	atomic_fetch_add_explicit(&symbol_bytes, table->size, memory_order_relaxed);
	memory = (uint8_t *)result;
	table->symbols = (Elf64_Sym *)memory;
	table->names = (char *)memory + symbols_size;
	table->buckets = (uint32_t *)(memory + symbols_size + names_room);
	table->chain = table->buckets + table->bucket_count;
	return true;
}

long symbol_table_read(struct symbol_table *table, const struct elf_file *file)
{
	Elf64_Shdr symbols, names;
	size_t index = 0;

	*table = (struct symbol_table){ .count = 0 };
	if (!elf_file_find_type(file, SHT_SYMTAB, &index, &symbols))
		return -ENOENT;
	index = symbols.sh_link;
	table->count = symbols.sh_size / sizeof(Elf64_Sym);
	if (symbols.sh_entsize != sizeof(Elf64_Sym) || table->count > SYMBOLS_MAX ||
	    !elf_file_find_type(file, SHT_STRTAB, &index, &names) || index != symbols.sh_link ||
	    names.sh_size > UINT32_MAX || ((symbols.sh_flags | names.sh_flags) & SHF_COMPRESSED)) {
		table->count = 0;
		return -ENOEXEC;
	}
	if (!table_map(table, table->count * sizeof(Elf64_Sym), names.sh_size)) {
		*table = (struct symbol_table){ .count = 0 };
		return -ENOMEM;
	}
	if (!elf_file_read(file, symbols.sh_offset, table->symbols, table->count * sizeof(Elf64_Sym)) ||
	    !elf_file_read(file, names.sh_offset, table->names, names.sh_size)) {
		symbol_table_free(table);
		return -ENOEXEC;
	}
	table_index(table, names.sh_size);
	return 0;
}

void symbol_table_free(struct symbol_table *table)
{
	if (table->size > 0) {
		raw_syscall(SYS_munmap, table->symbols, table->size);
		atomic_fetch_sub_explicit(&symbol_bytes, table->size, memory_order_relaxed);
	}
	*table = (struct symbol_table){ .count = 0 };
}
