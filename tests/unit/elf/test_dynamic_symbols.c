/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dynamic symbols of a module that was made here, in memory that ends where the module does: as they are, and with
 * bytes of it changed.
 */
#include "elf/dynamic_symbols.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Two symbols, of which the second is there in two versions. */
struct image {
	Elf64_Phdr headers[2];
	Elf64_Dyn dynamic[8];
	uint32_t hash[2 + 1 + 4]; /* one bucket, four symbols */
	uint32_t pad;
	struct {
		uint32_t head[4];
		uint64_t filter;
		uint32_t bucket;
		uint32_t chain[3];
	} gnu;
	Elf64_Sym symbols[4];
	struct {
		Elf64_Verdef definition;
		Elf64_Verdaux name;
	} versions[2];
	uint16_t version_of[4];
	char names[32];
} __attribute__((aligned(16)));

static struct image *image;
static struct module module;

static void set_dynamic(size_t index, int64_t tag, uint64_t value)
{
	image->dynamic[index] = (Elf64_Dyn){ .d_tag = tag, .d_un.d_val = value };
}

static void make_image(bool gnu)
{
	static const char names[] = "\0first\0second\0V_1\0V_2";
	static const uint32_t at[] = { 0, 1, 7, 7 };
	uintptr_t base;

	if (image == NULL) {
		uint8_t *memory = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		cr_assert_neq(memory, MAP_FAILED);
		cr_assert_eq(mprotect(memory + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
		image = (struct image *)(memory + PAGE_SIZE - sizeof(*image));
	}
	memset(image, 0, sizeof(*image));
	base = (uintptr_t)image;
	image->headers[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_memsz = sizeof(*image) };
	image->headers[1] = (Elf64_Phdr){ .p_type = PT_DYNAMIC,
					  .p_vaddr = offsetof(struct image, dynamic),
					  .p_memsz = sizeof(image->dynamic) };
	module = (struct module){ .lower = base,
				  .upper = base + sizeof(*image),
				  .headers = image->headers,
				  .header_count = 2,
				  .bias = base };
	set_dynamic(0, DT_SYMTAB, offsetof(struct image, symbols));
	set_dynamic(1, DT_STRTAB, base + offsetof(struct image, names));
	set_dynamic(2, DT_VERSYM, offsetof(struct image, version_of));
	set_dynamic(3, DT_VERDEF, offsetof(struct image, versions));
	set_dynamic(4, DT_VERDEFNUM, 2);
	if (gnu)
		set_dynamic(5, DT_GNU_HASH, offsetof(struct image, gnu));
	else
		set_dynamic(5, DT_HASH, offsetof(struct image, hash));
	memcpy(image->names, names, sizeof(names));
	for (size_t i = 1; i < 4; i++) {
		struct name_part name = { names + at[i], strlen(names + at[i]) };
		uint32_t hash = dynamic_symbols_hash(&name);

		image->symbols[i] = (Elf64_Sym){ .st_name = at[i],
						 .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
						 .st_shndx = 1,
						 .st_value = i };
		image->gnu.filter |= 1UL << hash % 64 | 1UL << (hash >> 5) % 64;
		image->gnu.chain[i - 1] = (hash & ~1u) | (i == 3);
	}
	memcpy(image->gnu.head, (uint32_t[]){ 1, 1, 1, 5 }, sizeof(image->gnu.head));
	image->gnu.bucket = 1;
	memcpy(image->hash, (uint32_t[]){ 1, 4, 1, 0, 2, 3, 0 }, sizeof(image->hash));
	image->versions[0].definition = (Elf64_Verdef){ .vd_ndx = 2, .vd_aux = sizeof(Elf64_Verdef),
							.vd_next = sizeof(image->versions[0]) };
	image->versions[0].name.vda_name = 14;
	image->versions[1].definition = (Elf64_Verdef){ .vd_ndx = 3, .vd_aux = sizeof(Elf64_Verdef) };
	image->versions[1].name.vda_name = 18;
	memcpy(image->version_of, (uint16_t[]){ 0, 1, 0x8002, 3 }, sizeof(image->version_of));
}

/* The number of the symbol; 0: none; 9: another version. */
static uintptr_t find(const char *text)
{
	struct symbol_places places = { .count = 0 };
	struct symbol_name name;

	cr_assert(symbol_name_parse(text, &name));
	dynamic_symbols_find(&module, &name, dynamic_symbols_hash(&name.name), &places);
	if (places.count == 0)
		return places.other_version ? 9 : 0;
	return places.at[0].address - module.bias;
}

static bool count_name(const char *name, void *data)
{
	cr_assert_leq(strlen(name), sizeof(image->names));
	++*(size_t *)data;
	return true;
}

Test(dynamic_symbols, finds)
{
	for (int gnu = 0; gnu < 2; gnu++) {
		size_t count = 0;

		make_image(gnu);
		cr_expect_eq(find("first"), 1);
		cr_expect_eq(find("second"), 3);
		cr_expect_eq(find("second@V_1"), 2);
		cr_expect_eq(find("second@V_2"), 3);
		cr_expect_eq(find("second@@V_2"), 3);
		cr_expect_eq(find("second@@V_1"), 9);
		cr_expect_eq(find("second@V_3"), 9);
		cr_expect_eq(find("third"), 0);
		dynamic_symbols_visit(&module, count_name, &count);
		cr_expect_eq(count, 3);
		image->symbols[1].st_shndx = SHN_UNDEF;
		cr_expect_eq(find("first"), 0);
	}
}

/* The program headers are the dynamic linker's. All else may hold anything. */
Test(dynamic_symbols, survives_damage)
{
	unsigned int found = 0;
	size_t names = 0;

	srandom(1);
	for (unsigned int round = 0; round < 200000; round++) {
		uint8_t *bytes;

		make_image(round & 1);
		bytes = (uint8_t *)image->dynamic;
		for (unsigned int i = 0; i < 1 + round % 8; i++)
			bytes[(size_t)random() % (sizeof(*image) - sizeof(image->headers))] = (uint8_t)random();
		found += find("first") == 1;
		found += find("second@V_1") == 2;
		dynamic_symbols_visit(&module, count_name, &names);
	}
	cr_expect_gt(found, 1000);
	cr_expect_gt(names, 1000);
}
