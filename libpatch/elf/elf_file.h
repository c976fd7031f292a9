/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file with sections. It may be cut off, damaged, or made to mislead: what cannot be read is missing, and no more
 * is believed than what the caller checks. Raw system calls only, no memory is taken.
 */
#ifndef LIBPATCH_ELF_ELF_FILE_H
#define LIBPATCH_ELF_ELF_FILE_H

#include "base/compiler.h"

#include <elf.h>

struct elf_file {
	long fd;
	uint64_t size;
	Elf64_Ehdr header;
	size_t section_count;
};

/* Open a regular file for x86-64. Returns 0, or -errno; -ENOEXEC: it is no such file. */
long elf_file_open(struct elf_file *file, const char *path);
/* The same for a descriptor, which elf_file_close() closes; here, too, on failure. */
long elf_file_adopt(struct elf_file *file, long fd);
void elf_file_close(const struct elf_file *file);

/* False when not all of it is there. */
bool elf_file_read(const struct elf_file *file, uint64_t offset, void *buffer, size_t size);

/* The section at `index`. False: there is none. */
bool elf_file_section(const struct elf_file *file, size_t index, Elf64_Shdr *out);
/* The first section of this type from `index` on, that lies in the file. */
bool elf_file_find_type(const struct elf_file *file, uint32_t type, size_t *index, Elf64_Shdr *out);
/* The section of this name, of which the file has the contents. */
bool elf_file_find_name(const struct elf_file *file, const char *name, Elf64_Shdr *out);

#endif
