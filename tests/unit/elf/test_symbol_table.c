/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Symbols of a file that is made here; and of what becomes of it when bytes of it change. */
#include "elf/identity.h"
#include "elf/symbol_table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NOTHING, SYMBOLS, NAMES, NOTE, SECTIONS };

/* A file with nothing else in it. */
static struct image {
	Elf64_Ehdr header;
	Elf64_Shdr sections[SECTIONS];
	Elf64_Sym symbols[8];
	char names[64];
	struct {
		Elf64_Nhdr head;
		char name[4];
		uint8_t id[20];
	} note;
} image;

static void set_symbol(size_t index, uint32_t name, uint64_t value, uint16_t section)
{
	image.symbols[index] = (Elf64_Sym){ .st_name = name,
					    .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
					    .st_shndx = section,
					    .st_value = value };
}

static void make_image(void)
{
	memset(&image, 0, sizeof(image));
	memcpy(image.header.e_ident, ELFMAG, SELFMAG);
	image.header.e_ident[EI_CLASS] = ELFCLASS64;
	image.header.e_machine = EM_X86_64;
	image.header.e_type = ET_DYN;
	image.header.e_shoff = offsetof(struct image, sections);
	image.header.e_shentsize = sizeof(Elf64_Shdr);
	image.header.e_shnum = SECTIONS;
	image.sections[SYMBOLS] = (Elf64_Shdr){ .sh_type = SHT_SYMTAB,
						.sh_offset = offsetof(struct image, symbols),
						.sh_size = sizeof(image.symbols),
						.sh_link = NAMES,
						.sh_entsize = sizeof(Elf64_Sym) };
	image.sections[NAMES] = (Elf64_Shdr){ .sh_type = SHT_STRTAB,
					      .sh_offset = offsetof(struct image, names),
					      .sh_size = sizeof(image.names) };
	image.sections[NOTE] = (Elf64_Shdr){ .sh_type = SHT_NOTE,
					     .sh_offset = offsetof(struct image, note),
					     .sh_size = sizeof(image.note),
					     .sh_addralign = 4 };
	image.note.head = (Elf64_Nhdr){ .n_namesz = 4, .n_descsz = sizeof(image.note.id), .n_type = NT_GNU_BUILD_ID };
	memcpy(image.note.name, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU));
	memset(image.note.id, 7, sizeof(image.note.id));
	/* The last name goes up to the end of the table. */
	memset(image.names, 'x', sizeof(image.names));
	memcpy(image.names, "\0first\0second@@V_2\0second@V_1\0first", 36);
	set_symbol(1, 1, 0x1000, 1);
	set_symbol(2, 7, 0x2000, 1);
	set_symbol(3, 19, 0x3000, 1);
	set_symbol(4, 30, 0x4000, 1);
	set_symbol(5, 1, 0x5000, SHN_UNDEF);
	set_symbol(6, sizeof(image.names), 0x6000, 1);
	set_symbol(7, 60, 0x7000, 1);
}

static int image_fd = -1;

static long read_image(struct symbol_table *table)
{
	struct elf_file file;
	long error;

	if (image_fd < 0)
		image_fd = memfd_create("image", MFD_CLOEXEC);
	cr_assert_eq(pwrite(image_fd, &image, sizeof(image), 0), (ssize_t)sizeof(image));
	*table = (struct symbol_table){ .count = 0 };
	error = elf_file_adopt(&file, dup(image_fd));
	if (error != 0)
		return error;
	error = symbol_table_read(table, &file);
	elf_file_close(&file);
	return error;
}

/* The sum of the values of all symbols of this name. */
static uint64_t values(const struct symbol_table *table, const char *text)
{
	struct name_part name = { text, strlen(text) };
	uint64_t sum = 0;

	for (const Elf64_Sym *symbol = symbol_table_find(table, &name, NULL); symbol != NULL;
	     symbol = symbol_table_find(table, &name, symbol))
		sum += symbol->st_value;
	return sum;
}

Test(symbol_table, finds)
{
	struct symbol_table table;
	struct name_part second = { "second", 6 };
	size_t versions = 0;

	make_image();
	cr_assert_eq(read_image(&table), 0);
	cr_expect_eq(values(&table, "first"), 0x5000);
	cr_expect_eq(values(&table, "second"), 0x5000);
	cr_expect_eq(values(&table, "xxxx"), 0x7000);
	cr_expect_eq(values(&table, ""), 0);
	cr_expect_eq(values(&table, "firs"), 0);
	cr_expect_eq(values(&table, "first1"), 0);
	for (const Elf64_Sym *symbol = symbol_table_find(&table, &second, NULL); symbol != NULL;
	     symbol = symbol_table_find(&table, &second, symbol), versions++)
		cr_expect_str_eq(symbol_table_version(&table, symbol), symbol->st_value == 0x2000 ? "@@V_2" : "@V_1");
	cr_expect_eq(versions, 2);
	cr_expect_gt(symbol_tables_mapped(), 0);
	symbol_table_free(&table);
	cr_expect_eq(symbol_tables_mapped(), 0);
}

static void refused(long error)
{
	struct symbol_table table;

	cr_expect_eq(read_image(&table), error);
	cr_expect_eq(table.count, 0);
	cr_expect_eq(values(&table, "first"), 0);
	symbol_table_free(&table);
	make_image();
}

Test(symbol_table, refuses)
{
	make_image();
	image.header.e_ident[0] = 0;
	refused(-ENOEXEC);
	image.header.e_machine = EM_AARCH64;
	refused(-ENOEXEC);
	image.header.e_shoff = sizeof(image) - 1;
	refused(-ENOENT);
	image.header.e_shoff = UINT64_MAX - 8;
	refused(-ENOENT);
	image.sections[SYMBOLS].sh_offset = UINT64_MAX;
	refused(-ENOENT);
	image.sections[SYMBOLS].sh_size = UINT64_MAX;
	refused(-ENOENT);
	image.sections[SYMBOLS].sh_entsize = 16;
	refused(-ENOEXEC);
	image.sections[SYMBOLS].sh_link = NOTHING;
	refused(-ENOEXEC);
	image.sections[SYMBOLS].sh_link = UINT32_MAX;
	refused(-ENOEXEC);
	image.sections[NAMES].sh_offset = sizeof(image) - 8;
	refused(-ENOEXEC);
	image.sections[NAMES].sh_flags = SHF_COMPRESSED;
	refused(-ENOEXEC);
}

/* Every byte gets other values, and many files several of them: nothing but the copy is read, and every loop ends. */
Test(symbol_table, survives_damage)
{
	unsigned int found = 0, refusals = 0;
	struct symbol_table table;
	struct identity identity;
	struct elf_file file;

	srandom(1);
	for (unsigned int round = 0; round < 20000; round++) {
		make_image();
		if (round < 4 * sizeof(image))
			((uint8_t *)&image)[round / 4] ^= (uint8_t[]){ 1, 0x80, 0xff, 0x10 }[round % 4];
		else
			for (unsigned int i = 0; i < 8; i++)
				((uint8_t *)&image)[random() % sizeof(image)] = (uint8_t)random();
		if (read_image(&table) == 0)
			found += values(&table, "first") == 0x5000 && values(&table, "xxxx") == 0x7000;
		else
			refusals++;
		for (size_t i = 0; i < table.count; i++)
			cr_assert_leq(strlen(symbol_table_name(&table, &table.symbols[i])), sizeof(image.names));
		symbol_table_free(&table);
		if (elf_file_adopt(&file, dup(image_fd)) == 0) {
			identity_of_file(&file, &identity);
			elf_file_find_name(&file, ".gnu_debuglink", &(Elf64_Shdr){ 0 });
			elf_file_close(&file);
		}
	}
	cr_expect_gt(found, 100);
	cr_expect_gt(refusals, 100);
	cr_expect_eq(symbol_tables_mapped(), 0);
}

Test(symbol_table, build_id)
{
	struct identity identity;
	struct elf_file file;
	struct symbol_table table;

	make_image();
	cr_assert_eq(read_image(&table), 0);
	symbol_table_free(&table);
	cr_assert_eq(elf_file_adopt(&file, dup(image_fd)), 0);
	identity_build_id(&file, &identity);
	cr_expect_eq(identity.size, sizeof(image.note.id));
	cr_expect_arr_eq(identity.bytes, image.note.id, sizeof(image.note.id));
	cr_expect(identity_is_same(&identity, &identity));
	image.note.head.n_descsz = sizeof(image.note.id) + 1;
	cr_assert_eq(pwrite(image_fd, &image, sizeof(image), 0), (ssize_t)sizeof(image));
	identity_build_id(&file, &identity);
	cr_expect_eq(identity.size, 0);
	cr_expect_not(identity_is_same(&identity, &identity));
	elf_file_close(&file);
}
