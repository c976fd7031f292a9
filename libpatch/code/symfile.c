/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ELF object of symfile.h. It is executable, so that debuggers take its addresses as they are, and has no segments.
 * The code is a section without contents: debuggers read it from the process, in which it changes.
 */
#include "code/symfile.h"

#include "arch/unwind.h"
#include "base/format.h"

enum { SECTION_TEXT = 1, SECTION_EH_FRAME, SECTION_SYMBOLS, SECTION_STRINGS };

#define ARENA_NAME "libpatch:generated code"
#define PADS_NAME "libpatch:pads"

/* Returns where in the strings it is. */
static uint32_t symfile_add_string(struct symfile *file, size_t *used, const char *string)
{
	uint32_t at = (uint32_t)*used;
	char *end = format_string(file->strings + at, string);

	*end++ = '\0';
	*used = (size_t)(end - file->strings);
	return at;
}

static Elf64_Ehdr symfile_header(void)
{
	return (Elf64_Ehdr){
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = ARCH_ELF_MACHINE,
		.e_version = EV_CURRENT,
		.e_shoff = offsetof(struct symfile, sections),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = SYMFILE_SECTIONS,
		.e_shstrndx = SECTION_STRINGS,
	};
}

void symfile_make(struct symfile *file, const struct code_range *range, size_t eh_frame_size)
{
	size_t used = 1;

	file->header = symfile_header();
	file->sections[SECTION_TEXT] = (Elf64_Shdr){
		.sh_name = symfile_add_string(file, &used, ".text"),
		.sh_type = SHT_NOBITS,
		.sh_flags = SHF_ALLOC | SHF_EXECINSTR,
		.sh_addr = range->lower,
		.sh_size = range->upper - range->lower,
		.sh_addralign = 16,
	};
	file->sections[SECTION_EH_FRAME] = (Elf64_Shdr){
		.sh_name = symfile_add_string(file, &used, ".eh_frame"),
		.sh_type = SHT_PROGBITS,
		.sh_flags = SHF_ALLOC,
		.sh_addr = (uintptr_t)file->eh_frame,
		.sh_offset = offsetof(struct symfile, eh_frame),
		.sh_size = eh_frame_size,
		.sh_addralign = 8,
	};
	file->sections[SECTION_SYMBOLS] = (Elf64_Shdr){
		.sh_name = symfile_add_string(file, &used, ".symtab"),
		.sh_type = SHT_SYMTAB,
		.sh_offset = offsetof(struct symfile, symbols),
		.sh_size = sizeof(file->symbols),
		.sh_link = SECTION_STRINGS,
		.sh_info = 1,
		.sh_addralign = 8,
		.sh_entsize = sizeof(Elf64_Sym),
	};
	file->sections[SECTION_STRINGS] = (Elf64_Shdr){
		.sh_name = symfile_add_string(file, &used, ".strtab"),
		.sh_type = SHT_STRTAB,
		.sh_offset = offsetof(struct symfile, strings),
		.sh_size = sizeof(file->strings),
		.sh_addralign = 1,
	};
	file->symbols[1] = (Elf64_Sym){
		.st_name = symfile_add_string(file, &used, range->granules != NULL ? ARENA_NAME : PADS_NAME),
		.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
		.st_shndx = SECTION_TEXT,
		.st_value = range->lower,
		.st_size = range->upper - range->lower,
	};
}
