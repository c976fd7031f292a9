/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Look-up by the module's hash table, as the dynamic linker does it. Guarantees:
 *
 * G1 No lock, no allocation, no call.
 * G2 Nothing outside the module's readable segments is read, whatever its tables hold, and no loop is longer than they
 *    are.
 *
 * Sources: System V gABI, "Dynamic Linking"; the binutils' documentation of DT_GNU_HASH; Linux Standard Base 5.0 core,
 * 10.7 "Symbol Versioning".
 */
#include "elf/dynamic_symbols.h"

#include "elf/dynamic.h"
#include "elf/module_span.h"

#define VERSION_HIDDEN 0x8000

struct dynamic_tables {
	const Elf64_Sym *symbols;
	size_t symbol_room; /* how many there may be: they end with their segment */
	const char *names;
	size_t names_size;
	const uint32_t *gnu; /* DT_GNU_HASH */
	size_t gnu_words;
	const uint32_t *hash; /* DT_HASH */
	size_t hash_words;
	const uint16_t *versions;
	size_t version_room;
	uintptr_t definitions; /* of versions */
	size_t definition_count;
};

/* The table at the tag's address, and how many items of it there may be: none, where it is not aligned. */
static const void *dynamic_table(const struct module *module, int64_t tag, size_t item, size_t alignment, size_t *room)
{
	uintptr_t address = dynamic_address(module, tag);

	*room = address % alignment == 0 ? module_room(module, address) / item : 0;
	return (const void *)address;
}

static void dynamic_read(const struct module *module, struct dynamic_tables *out)
{
	out->symbols = dynamic_table(module, DT_SYMTAB, sizeof(Elf64_Sym), _Alignof(Elf64_Sym), &out->symbol_room);
	out->names = dynamic_table(module, DT_STRTAB, 1, 1, &out->names_size);
	out->gnu = dynamic_table(module, DT_GNU_HASH, sizeof(uint32_t), sizeof(uint64_t), &out->gnu_words);
	out->hash = dynamic_table(module, DT_HASH, sizeof(uint32_t), sizeof(uint32_t), &out->hash_words);
	out->versions = dynamic_table(module, DT_VERSYM, sizeof(uint16_t), sizeof(uint16_t), &out->version_room);
	out->definitions = dynamic_address(module, DT_VERDEF);
	out->definition_count = dynamic_value(module, DT_VERDEFNUM);
}

/* NULL: it does not begin, or does not end, where names are. */
static const char *dynamic_name(const struct dynamic_tables *tables, uint64_t offset)
{
	for (uint64_t at = offset; at < tables->names_size; ++at)
		if (tables->names[at] == '\0')
			return tables->names + offset;
	return NULL;
}

static bool dynamic_is_named(const struct dynamic_tables *tables, uint64_t offset, const struct name_part *name)
{
	if (offset >= tables->names_size || name->length >= tables->names_size - offset)
		return false;
	return name_part_is(name, tables->names + offset);
}

/* Is the version with this index called so? */
static bool dynamic_is_version(const struct module *module, const struct dynamic_tables *tables, unsigned int index,
			       const struct name_part *version)
{
	uintptr_t address = tables->definitions;

	for (size_t i = 0; i < tables->definition_count; ++i) {
		const Elf64_Verdef *definition = module_span(module, address, sizeof(*definition), 4);
		const Elf64_Verdaux *name;

		if (definition == NULL)
			return false;
		if (definition->vd_ndx == index) {
			name = module_span(module, address + definition->vd_aux, sizeof(*name), 4);
			return name != NULL && dynamic_is_named(tables, name->vda_name, version);
		}
		if (definition->vd_next == 0)
			return false;
		address += definition->vd_next;
	}
	return false;
}

struct dynamic_search {
	const struct module *module;
	const struct symbol_name *name;
	struct dynamic_tables tables;
	struct symbol_places *places;
};

static void dynamic_consider(const struct dynamic_search *search, size_t index)
{
	const struct dynamic_tables *tables = &search->tables;
	const struct symbol_name *name = search->name;
	const Elf64_Sym *symbol = &tables->symbols[index];
	unsigned int version = index < tables->version_room ? tables->versions[index] : VER_NDX_GLOBAL;
	struct symbol_place place = { .module = search->module->bias };

	if (!symbol_is_defined(symbol) || !dynamic_is_named(tables, symbol->st_name, &name->name))
		return;
	if (name->version.text != NULL &&
	    ((name->only_default && (version & VERSION_HIDDEN)) ||
	     !dynamic_is_version(search->module, tables, version & ~(unsigned int)VERSION_HIDDEN, &name->version))) {
		search->places->other_version = true;
		return;
	}
	place.address = search->module->bias + symbol->st_value;
	place.kind = symbol_kind_of(symbol, module_has_code(search->module, place.address));
	symbol_places_add(search->places, &place, version & VERSION_HIDDEN ? SYMBOL_RANK_LESS : SYMBOL_RANK_FULL);
}

uint32_t dynamic_symbols_hash(const struct name_part *name)
{
	uint32_t hash = 5381;

	for (size_t i = 0; i < name->length; ++i)
		hash = hash * 33 + (uint8_t)name->text[i];
	return hash;
}

/* Where the parts of the table are; false: not all of them lie in the module. */
struct gnu_hash {
	uint32_t first; /* symbol in the table */
	uint32_t filter_words;
	uint32_t shift;
	uint32_t bucket_count;
	const uint64_t *filter;
	const uint32_t *buckets;
	const uint32_t *chain;
	size_t chain_room;
};

static bool dynamic_read_gnu(const struct dynamic_tables *tables, struct gnu_hash *out)
{
	const uint32_t *words = tables->gnu;
	uint64_t fixed;

	if (tables->gnu_words < 4)
		return false;
	*out = (struct gnu_hash){
		.bucket_count = words[0], .first = words[1], .filter_words = words[2], .shift = words[3] % 32
	};
	fixed = 4 + 2 * (uint64_t)out->filter_words + out->bucket_count;
	if (out->bucket_count == 0 || out->filter_words == 0 || fixed > tables->gnu_words)
		return false;
	out->filter = (const uint64_t *)(words + 4);
	out->buckets = words + 4 + 2 * (size_t)out->filter_words;
	out->chain = words + fixed;
	out->chain_room = tables->gnu_words - fixed;
	return true;
}

static void dynamic_find_gnu(const struct dynamic_search *search, uint32_t hash)
{
	struct gnu_hash table;
	uint64_t word;

	if (!dynamic_read_gnu(&search->tables, &table))
		return;
	word = table.filter[hash / 64 % table.filter_words];
	if (!(word >> hash % 64 & word >> (hash >> table.shift) % 64 & 1))
		return;
	for (size_t i = table.buckets[hash % table.bucket_count];
	     i >= table.first && i < search->tables.symbol_room && i - table.first < table.chain_room; ++i) {
		uint32_t entry = table.chain[i - table.first];

		if ((entry | 1) == (hash | 1))
			dynamic_consider(search, i);
		if (entry & 1)
			return;
	}
}

static uint32_t dynamic_old_hash(const struct name_part *name)
{
	uint32_t hash = 0;

	for (size_t i = 0; i < name->length; ++i) {
		hash = (hash << 4) + (uint8_t)name->text[i];
		hash = (hash ^ (hash & 0xf0000000) >> 24) & 0x0fffffff;
	}
	return hash;
}

static void dynamic_find_old(const struct dynamic_search *search)
{
	const struct dynamic_tables *tables = &search->tables;
	uint64_t buckets, symbols;

	if (tables->hash_words < 2)
		return;
	buckets = tables->hash[0];
	symbols = tables->hash[1];
	if (buckets == 0 || 2 + buckets + symbols > tables->hash_words || symbols > tables->symbol_room)
		return;
	/* A chain that goes in a circle is left after as many steps as there are symbols. */
	for (uint64_t i = tables->hash[2 + dynamic_old_hash(&search->name->name) % buckets], steps = 0;
	     i != 0 && i < symbols && steps < symbols; i = tables->hash[2 + buckets + i], ++steps)
		dynamic_consider(search, i);
}

void dynamic_symbols_find(const struct module *module, const struct symbol_name *name, uint32_t hash,
			  struct symbol_places *places)
{
	struct dynamic_search search = { .module = module, .name = name, .places = places };

	dynamic_read(module, &search.tables);
	if (search.tables.symbols == NULL || search.tables.names == NULL)
		return;
	if (search.tables.gnu != NULL)
		dynamic_find_gnu(&search, hash);
	else if (search.tables.hash != NULL)
		dynamic_find_old(&search);
}

static bool dynamic_visit_one(const struct dynamic_tables *tables, size_t index, dynamic_name_fn *visit, void *data)
{
	const char *name = symbol_is_defined(&tables->symbols[index]) ?
				   dynamic_name(tables, tables->symbols[index].st_name) :
				   NULL;

	return name == NULL || name[0] == '\0' || visit(name, data);
}

void dynamic_symbols_visit(const struct module *module, dynamic_name_fn *visit, void *data)
{
	struct dynamic_tables tables;
	struct gnu_hash table;
	size_t i = 1, end = 0;

	dynamic_read(module, &tables);
	if (tables.symbols == NULL || tables.names == NULL)
		return;
	if (tables.gnu != NULL && dynamic_read_gnu(&tables, &table)) {
		/* The chain has a word for each symbol, and ends behind the last word of the last bucket. */
		i = table.first;
		for (size_t bucket = 0; bucket < table.bucket_count; ++bucket)
			end = MAX(end, (size_t)table.buckets[bucket]);
		while (end >= i && end - i < table.chain_room && !(table.chain[end - i] & 1))
			++end;
		++end;
	} else if (tables.gnu == NULL && tables.hash_words >= 2) {
		end = tables.hash[1];
	}
	for (end = MIN(end, tables.symbol_room); i < end; ++i)
		if (!dynamic_visit_one(&tables, i, visit, data))
			return;
}
