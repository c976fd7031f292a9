/* SPDX-License-Identifier: MIT */
/*
 * What kind of file is it? By its headers, read without another library: the launcher is the process that a library is
 * examined in, and must load nothing beside it.
 */
#define _GNU_SOURCE
#include "file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Every offset in a file is suspect. */
static const Elf64_Phdr *segment(const uint8_t *file, size_t size, uint32_t type)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Phdr *segments = (const void *)(file + header->e_phoff);

	if (header->e_phentsize != sizeof(*segments) || header->e_phoff > size || header->e_phoff % 8 ||
	    (size - header->e_phoff) / sizeof(*segments) < header->e_phnum)
		return NULL;
	for (size_t i = 0; i < header->e_phnum; i++)
		if (segments[i].p_type == type && segments[i].p_offset <= size &&
		    segments[i].p_filesz <= size - segments[i].p_offset)
			return &segments[i];
	return NULL;
}

/* Value of an entry of the dynamic section; false: it has none. */
static bool dynamic(const uint8_t *file, size_t size, int64_t tag, uint64_t *value)
{
	const Elf64_Phdr *where = segment(file, size, PT_DYNAMIC);
	const Elf64_Dyn *entries;

	if (!where || where->p_offset % 8)
		return false;
	entries = (const void *)(file + where->p_offset);
	for (size_t i = 0; i < where->p_filesz / sizeof(*entries) && entries[i].d_tag != DT_NULL; i++)
		if (entries[i].d_tag == tag) {
			*value = entries[i].d_un.d_val;
			return true;
		}
	return false;
}

static enum file_kind classify(const uint8_t *file, size_t size, const char **why)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Phdr *interpreter;
	uint64_t flags = 0, ignored;
	static const char loader[] = "/ld-linux-x86-64.so.2";

	*why = "no ELF file";
	if (size < sizeof(*header) || memcmp(file, ELFMAG, SELFMAG))
		return NEITHER;
	*why = "neither a program nor a shared library for x86-64";
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
	    (header->e_type != ET_EXEC && header->e_type != ET_DYN))
		return NEITHER;
	interpreter = segment(file, size, PT_INTERP);
	dynamic(file, size, DT_FLAGS_1, &flags);
	if (header->e_type == ET_DYN && !(flags & DF_1_PIE) &&
	    (!interpreter || dynamic(file, size, DT_SONAME, &ignored)))
		return LIBRARY;
	*why = "statically linked";
	if (!interpreter)
		return CLOSED;
	/* Another one (musl's) might ignore the agent and run the program. */
	*why = "its dynamic linker is not glibc's";
	if (interpreter->p_filesz < sizeof(loader) || file[interpreter->p_offset + interpreter->p_filesz - 1] ||
	    memcmp(file + interpreter->p_offset + interpreter->p_filesz - sizeof(loader), loader, sizeof(loader)))
		return CLOSED;
	return PROGRAM;
}

enum file_kind file_kind(const char *path, const char **why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum file_kind kind = NEITHER;
	struct stat status;
	void *file;

	*why = strerror(errno);
	if (fd < 0)
		return NEITHER;
	*why = "not a file";
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
		*why = "empty, or cannot be mapped";
		file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (file != MAP_FAILED) {
			kind = classify(file, (size_t)status.st_size, why);
			munmap(file, (size_t)status.st_size);
		}
		if (kind == PROGRAM && (status.st_mode & (S_ISUID | S_ISGID) ||
					fgetxattr(fd, "security.capability", NULL, 0) > 0)) {
			*why = "it has privileges of its own";
			kind = CLOSED;
		}
	}
	close(fd);
	return kind;
}
