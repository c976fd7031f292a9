/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a name was found: different addresses, of the best rank alone. Pure.
 */
#ifndef LIBPATCH_ELF_SYMBOL_PLACES_H
#define LIBPATCH_ELF_SYMBOL_PLACES_H

#include "base/compiler.h"

#include <elf.h>

enum symbol_kind {
	SYMBOL_CODE,
	SYMBOL_INDIRECT, /* code that returns where the function is (STT_GNU_IFUNC) */
	SYMBOL_DATA
};

/* What is of a higher rank hides what is of a lower one. */
enum symbol_rank {
	SYMBOL_RANK_DATA,
	SYMBOL_RANK_LESS, /* local, or not the version that others are linked with */
	SYMBOL_RANK_FULL
};

#define SYMBOL_PLACES 3

struct symbol_place {
	uintptr_t address;
	uintptr_t module; /* its bias */
	enum symbol_kind kind;
};

struct symbol_places {
	struct symbol_place at[SYMBOL_PLACES];
	size_t count; /* may be more than there is room for */
	enum symbol_rank rank;
	bool other_version; /* the name is there, but not in the version that is asked for */
};

static inline void symbol_places_add(struct symbol_places *places, const struct symbol_place *place,
				     enum symbol_rank rank)
{
	if (place->kind == SYMBOL_DATA)
		rank = SYMBOL_RANK_DATA;
	if (places->count > 0 && rank < places->rank)
		return;
	if (rank > places->rank)
		places->count = 0;
	places->rank = rank;
	for (size_t i = 0; i < MIN(places->count, (size_t)SYMBOL_PLACES); ++i)
		if (places->at[i].address == place->address)
			return;
	if (places->count < SYMBOL_PLACES)
		places->at[places->count] = *place;
	++places->count;
}

/* Is the symbol one that can be asked for: defined, at an address, named for what is there? */
static inline bool symbol_is_defined(const Elf64_Sym *symbol)
{
	unsigned int type = ELF64_ST_TYPE(symbol->st_info);

	return symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS && type != STT_SECTION && type != STT_FILE;
}

/* What it is, where `is_code` says whether its address is among code. */
static inline enum symbol_kind symbol_kind_of(const Elf64_Sym *symbol, bool is_code)
{
	unsigned int type = ELF64_ST_TYPE(symbol->st_info);

	if (!is_code || (type != STT_FUNC && type != STT_NOTYPE && type != STT_GNU_IFUNC))
		return SYMBOL_DATA;
	return type == STT_GNU_IFUNC ? SYMBOL_INDIRECT : SYMBOL_CODE;
}

#endif
