/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "layout.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* What lies lower is not for libpatch either, and mostly not to be had (vm.mmap_min_addr). */
#define FLOOR (1UL << 16)
#define CEILING 0x7ffffffff000UL
/* Room that libpatch leaves for the program break (libpatch/space.c). */
#define BREAK_ROOM (1UL << 30)

struct line {
	uintptr_t lower;
	uintptr_t upper;
	uint64_t offset;
	uint64_t inode;
	int protection;
	bool is_file; /* the one that is looked for */
	bool is_stack;
};

struct layout {
	uintptr_t program_break;
	uintptr_t stack_room;
	struct line *lines;
	size_t count;
};

/* "lower-upper rwxp offset device inode   path" (proc(5)) */
static bool parse(const char *text, const char *file, struct line *line)
{
	char protection[5];
	int end = 0;
	size_t length = strlen(file);

	if (sscanf(text, "%lx-%lx %4s %lx %*s %lu %n", &line->lower, &line->upper, protection, &line->offset,
		   &line->inode, &end) != 5)
		return false;
	line->protection = (protection[0] == 'r' ? PROT_READ : 0) | (protection[1] == 'w' ? PROT_WRITE : 0) |
			   (protection[2] == 'x' ? PROT_EXEC : 0);
	line->is_file = !strncmp(text + end, file, length) && (text[end + length] == '\n' || !text[end + length]);
	line->is_stack = !strncmp(text + end, "[stack]", 7);
	return true;
}

static bool layout_read(const char *name, const char *file, struct layout *layout)
{
	FILE *stream = fopen(name, "re");
	char *text = NULL;
	size_t size = 0, capacity = 0;
	bool good = stream && fscanf(stream, "break %lx stack %lx\n", &layout->program_break, &layout->stack_room) == 2;

	layout->lines = NULL;
	layout->count = 0;
	while (good && getline(&text, &size, stream) > 0) {
		if (layout->count == capacity) {
			capacity = capacity ? capacity * 2 : 256;
			layout->lines = reallocarray(layout->lines, capacity, sizeof(*layout->lines));
		}
		good = layout->lines && parse(text, file, &layout->lines[layout->count]);
		/* [vsyscall] */
		layout->count += good && layout->lines[layout->count].lower < CEILING;
	}
	free(text);
	if (stream)
		fclose(stream);
	return good && layout->count;
}

/* ---- occupying --------------------------------------------------------------------------------------------------- */

static bool occupy(uintptr_t lower, uintptr_t upper)
{
	void *got;

	lower = lower < FLOOR ? FLOOR : lower;
	if (lower >= upper)
		return true;
	got = mmap((void *)lower, upper - lower, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	return got == (void *)lower;
}

/* The mappings themselves, and where the program break and the main stack may grow. */
static bool occupy_all(const struct layout *layout)
{
	uintptr_t last = 0;

	for (size_t i = 0; i <= layout->count; i++) {
		uintptr_t lower = i < layout->count ? layout->lines[i].lower : CEILING;
		uintptr_t upper = i < layout->count ? layout->lines[i].upper : CEILING;
		uintptr_t at = layout->program_break;

		if (i < layout->count && layout->lines[i].is_stack) {
			uintptr_t room = lower - last < layout->stack_room ? lower - last : layout->stack_room;

			if (!occupy(lower - room, lower))
				return false;
			lower -= room;
		}
		if (at && at >= last && at < lower &&
		    !occupy(at & -4096UL, lower - at < BREAK_ROOM ? lower : at + BREAK_ROOM))
			return false;
		if (i < layout->count && !occupy(layout->lines[i].lower, upper))
			return false;
		last = upper;
	}
	return true;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int open_file(const struct layout *layout, const char *root, const char *file, const char **why)
{
	char path[8300];
	struct stat status;
	int fd;

	snprintf(path, sizeof(path), "%.4000s%.4200s", root, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status)) {
		*why = strerror(errno);
		return fd;
	}
	for (size_t i = 0; i < layout->count; i++) {
		if (!layout->lines[i].is_file || layout->lines[i].inode == status.st_ino)
			continue;
		*why = "the file is another one now than the one that was mapped";
		close(fd);
		return -1;
	}
	return fd;
}

static bool map_file(const struct layout *layout, int fd)
{
	for (size_t i = 0; i < layout->count; i++) {
		const struct line *line = &layout->lines[i];

		if (line->is_file && mmap((void *)line->lower, line->upper - line->lower, line->protection,
					  MAP_PRIVATE | MAP_FIXED, fd, (off_t)line->offset) == MAP_FAILED)
			return false;
	}
	return true;
}

/* The mapping with the ELF header that belongs to the code: it may be mapped elsewhere, too, to be read. */
static const struct line *find_head(const struct layout *layout)
{
	const struct line *head = NULL;

	for (size_t i = 0; i < layout->count; i++) {
		const struct line *line = &layout->lines[i];

		if (!line->is_file)
			continue;
		if (line->offset == 0 && line->protection & PROT_READ)
			head = line;
		if (line->protection & PROT_EXEC)
			return head;
	}
	return NULL;
}

static bool describe(const struct line *head, const char *file, struct dl_phdr_info *info)
{
	const Elf64_Ehdr *elf = (const void *)head->lower;
	const Elf64_Phdr *headers = (const void *)(head->lower + elf->e_phoff);
	size_t size = head->upper - head->lower;

	if (memcmp(elf->e_ident, ELFMAG, SELFMAG) || elf->e_ident[EI_CLASS] != ELFCLASS64 ||
	    elf->e_machine != EM_X86_64 || elf->e_phentsize != sizeof(*headers) || elf->e_phoff > size ||
	    (size - elf->e_phoff) / sizeof(*headers) < elf->e_phnum)
		return false;
	memset(info, 0, sizeof(*info));
	info->dlpi_name = file;
	info->dlpi_phdr = headers;
	info->dlpi_phnum = elf->e_phnum;
	for (size_t i = 0; i < elf->e_phnum; i++)
		if (headers[i].p_type == PT_LOAD) {
			info->dlpi_addr = head->lower - (headers[i].p_vaddr & -4096UL);
			return true;
		}
	return false;
}

enum layout_result layout_enact(const char *name, const char *root, const char *file, struct dl_phdr_info *info,
				const char **why)
{
	enum layout_result result = LAYOUT_FAILED;
	const struct line *head;
	struct layout layout;
	int fd;

	*why = "its layout cannot be read";
	if (!layout_read(name, file, &layout))
		goto out;
	*why = "the ELF header is not mapped before the code";
	head = find_head(&layout);
	if (!head)
		goto out;
	fd = open_file(&layout, root, file, why);
	if (fd < 0)
		goto out;
	result = LAYOUT_COLLIDED;
	*why = "this process has something where that one has something";
	if (occupy_all(&layout)) {
		result = LAYOUT_FAILED;
		*why = "it cannot be mapped";
		if (map_file(&layout, fd)) {
			*why = "no ELF file for x86-64";
			result = describe(head, file, info) ? LAYOUT_DONE : LAYOUT_FAILED;
		}
	}
	close(fd);
out:
	free(layout.lines);
	return result;
}
