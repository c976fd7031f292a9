/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the section headers of a module's file, after its beginning was compared with what is mapped.
 */
#include "elf/sections.h"

#include "base/syscall.h"
#include "elf/segments.h"
#include "sys/mem_read.h"

#include <string.h>

/* ELF header, program headers, and as a rule the build id, by which another build of the same program differs. */
#define HEAD 1024

static bool sections_read(long fd, void *buffer, size_t size, uint64_t offset)
{
	return raw_syscall(SYS_pread64, fd, buffer, size, offset) == (long)size;
}

/* Where the segment with the ELF header is mapped; 0: there is none, or it is shorter than HEAD. */
static uintptr_t sections_head(uintptr_t bias, const ElfW(Phdr) *headers, size_t count)
{
	FOR_EACH_SEGMENT(segment, headers, count, PT_LOAD, 0)
		if (segment->p_offset == 0 && segment->p_filesz >= HEAD)
			return bias + segment->p_vaddr;
	return 0;
}

/* The extent of the sections of code, as the file has it, without the bias. */
static bool sections_measure(long fd, const ElfW(Ehdr) *elf, uintptr_t *lower, uintptr_t *upper)
{
	*lower = UINTPTR_MAX;
	*upper = 0;
	if (elf->e_shentsize != sizeof(ElfW(Shdr)))
		return false;
	for (size_t first = 0, n; first < elf->e_shnum; first += n) {
		ElfW(Shdr) headers[16];

		n = MIN(ARRAY_SIZE(headers), elf->e_shnum - first);
		if (!sections_read(fd, headers, n * sizeof(headers[0]), elf->e_shoff + first * sizeof(headers[0])))
			return false;
		for (size_t i = 0; i < n; ++i) {
			if (!(headers[i].sh_flags & SHF_EXECINSTR))
				continue;
			*lower = MIN(*lower, headers[i].sh_addr);
			*upper = MAX(*upper, headers[i].sh_addr + headers[i].sh_size);
		}
	}
	return *lower < *upper;
}

bool sections_of_code(const char *path, uintptr_t bias, const ElfW(Phdr) *headers, size_t count, uintptr_t *lower,
		      uintptr_t *upper)
{
	uintptr_t head = sections_head(bias, headers, count);
	uint8_t mapped[HEAD], file[HEAD];
	uintptr_t from, to;
	bool known = false;
	ElfW(Ehdr) elf;
	int error;
	long fd;

	if (head == 0 || mem_read(head, mapped, HEAD, &error) != HEAD)
		return false;
	fd = raw_open(path[0] != '\0' ? path : "/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (sections_read(fd, file, HEAD, 0) && memcmp(mapped, file, HEAD) == 0) {
		memcpy(&elf, file, sizeof(elf));
		known = sections_measure(fd, &elf, &from, &to);
	}
	raw_syscall(SYS_close, fd);
	if (known) {
		*lower = bias + from;
		*upper = bias + to;
	}
	return known;
}
