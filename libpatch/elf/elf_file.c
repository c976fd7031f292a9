/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading a file's section headers and sections, with every offset and size compared with the size of the file. Mapping
 * the file would be less work, and a signal when somebody shortens it. Nothing here knows what is loaded.
 */
#include "elf/elf_file.h"

#include "base/syscall.h"
#include "elf/segments.h"

#include <string.h>
#include <sys/stat.h>

bool elf_file_read(const struct elf_file *file, uint64_t offset, void *buffer, size_t size)
{
	uint8_t *at = buffer;

	if (offset > file->size || size > file->size - offset)
		return false;
	while (size > 0) {
		long got = raw_syscall(SYS_pread64, file->fd, at, size, offset);

		if (got <= 0)
			return false;
		at += got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return true;
}

static bool elf_file_read_header(struct elf_file *file)
{
	const Elf64_Ehdr *header = &file->header;
	Elf64_Shdr first;

	if (!elf_file_read(file, 0, &file->header, sizeof(file->header)) ||
	    !segments_are_of(header))
		return false;
	if (header->e_shoff == 0 || header->e_shentsize != sizeof(first))
		return true;
	file->section_count = 1;
	if (!elf_file_section(file, 0, &first)) {
		file->section_count = 0;
		return true;
	}
	/* A count that e_shnum has no room for is in the first section's header (System V ABI, chapter 4). */
	file->section_count = header->e_shnum != 0 ? header->e_shnum : first.sh_size;
	file->section_count = MIN(file->section_count, (file->size - header->e_shoff) / sizeof(first));
	return true;
}

long elf_file_adopt(struct elf_file *file, long fd)
{
	struct stat status;
	long error = raw_syscall(SYS_fstat, fd, &status);

	*file = (struct elf_file){ .fd = fd };
	if (error == 0 && !S_ISREG(status.st_mode))
		error = -ENOEXEC;
	if (error == 0) {
		file->size = (uint64_t)status.st_size;
		error = elf_file_read_header(file) ? 0 : -ENOEXEC;
	}
	if (error != 0)
		elf_file_close(file);
	return error;
}

long elf_file_open(struct elf_file *file, const char *path)
{
	/* Nobody waits for the other end of a pipe that lies there. */
	long fd = raw_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? fd : elf_file_adopt(file, fd);
}

void elf_file_close(const struct elf_file *file)
{
	raw_syscall(SYS_close, file->fd);
}

bool elf_file_section(const struct elf_file *file, size_t index, Elf64_Shdr *out)
{
	return index < file->section_count && file->header.e_shoff <= file->size &&
	       elf_file_read(file, file->header.e_shoff + index * sizeof(*out), out, sizeof(*out));
}

static bool elf_file_has(const struct elf_file *file, const Elf64_Shdr *section)
{
	return section->sh_type != SHT_NOBITS && section->sh_offset <= file->size &&
	       section->sh_size <= file->size - section->sh_offset;
}

bool elf_file_find_type(const struct elf_file *file, uint32_t type, size_t *index, Elf64_Shdr *out)
{
	for (; elf_file_section(file, *index, out); ++*index)
		if (out->sh_type == type && elf_file_has(file, out))
			return true;
	return false;
}

bool elf_file_find_name(const struct elf_file *file, const char *name, Elf64_Shdr *out)
{
	size_t index = file->header.e_shstrndx;
	char found[32];
	Elf64_Shdr names;
	size_t size = 0;

	while (name[size++] != '\0')
		;
	if (index == SHN_XINDEX)
		index = elf_file_section(file, 0, out) ? out->sh_link : 0;
	if (size > sizeof(found) || !elf_file_section(file, index, &names) || !elf_file_has(file, &names))
		return false;
	for (size_t i = 1; elf_file_section(file, i, out); ++i)
		if (out->sh_name < names.sh_size && size <= names.sh_size - out->sh_name &&
		    elf_file_read(file, names.sh_offset + out->sh_name, found, size) &&
		    memcmp(found, name, size) == 0 && elf_file_has(file, out))
			return true;
	return false;
}
