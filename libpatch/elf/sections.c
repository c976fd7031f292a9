/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the section headers of a module's file, after its beginning was compared with what is mapped.
 */
#include "elf/sections.h"

#include "elf/elf_file.h"
#include "elf/segments.h"
#include "sys/mem_read.h"

#include <string.h>

/* ELF header, program headers, and as a rule the build id, by which another build of the same program differs. */
#define HEAD 1024

/* Where the segment with the ELF header is mapped; 0: there is none, or it is shorter than HEAD. */
static uintptr_t sections_head(uintptr_t bias, const ElfW(Phdr) *headers, size_t count)
{
	FOR_EACH_SEGMENT(segment, headers, count, PT_LOAD, 0)
		if (segment->p_offset == 0 && segment->p_filesz >= HEAD)
			return bias + segment->p_vaddr;
	return 0;
}

/* The extent of the sections of code, as the file has it, without the bias. */
static bool sections_measure(const struct elf_file *file, uintptr_t *lower, uintptr_t *upper)
{
	Elf64_Shdr section;

	*lower = UINTPTR_MAX;
	*upper = 0;
	for (size_t i = 0; elf_file_section(file, i, &section); ++i) {
		if (!(section.sh_flags & SHF_EXECINSTR))
			continue;
		*lower = MIN(*lower, section.sh_addr);
		*upper = MAX(*upper, section.sh_addr + section.sh_size);
	}
	return *lower < *upper;
}

bool sections_of_code(const char *path, uintptr_t bias, const ElfW(Phdr) *headers, size_t count, uintptr_t *lower,
		      uintptr_t *upper)
{
	uintptr_t head = sections_head(bias, headers, count);
	uint8_t mapped[HEAD], bytes[HEAD];
	struct elf_file file;
	uintptr_t from, to;
	bool known;
	int error;

	if (head == 0 || mem_read(head, mapped, HEAD, &error) != HEAD)
		return false;
	if (elf_file_open(&file, path[0] != '\0' ? path : "/proc/self/exe") != 0)
		return false;
	known = elf_file_read(&file, 0, bytes, HEAD) && memcmp(mapped, bytes, HEAD) == 0 &&
		sections_measure(&file, &from, &to);
	elf_file_close(&file);
	if (known) {
		*lower = bias + from;
		*upper = bias + to;
	}
	return known;
}
