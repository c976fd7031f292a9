/* SPDX-License-Identifier: MIT */
/*
 * Unwind tables in memory, and symbols of files, read without another library: doc/decisions.md says why not by
 * elfutils. functions_name() must not call malloc: it may run in a signal handler's _exit().
 */
#define _GNU_SOURCE
#include "functions.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- unwind tables (LSB core 10.6; encodings: DWARF exception header) -------------------------------------------- */

#define DW_EH_PE_ABSPTR 0x00
#define DW_EH_PE_UDATA4 0x03
#define DW_EH_PE_SDATA4 0x0b
#define DW_EH_PE_UDATA8 0x04
#define DW_EH_PE_SDATA8 0x0c
#define DW_EH_PE_PCREL 0x10
#define DW_EH_PE_DATAREL 0x30
#define DW_EH_PE_FORMAT 0x0f
#define DW_EH_PE_APPLICATION 0x70

struct eh_frame_hdr {
	uint8_t version;
	uint8_t eh_frame_ptr_enc;
	uint8_t fde_count_enc;
	uint8_t table_enc;
	int32_t eh_frame_ptr; /* pcrel sdata4 */
	uint32_t fde_count;   /* udata4 */
	struct {
		int32_t function; /* both relative to the header */
		int32_t fde;
	} table[];
};

/* Nothing is read outside the module's readable segments, whatever its tables say. */
struct cursor {
	const uint8_t *at;
	const uint8_t *end; /* of the segment */
};

static bool cursor_at(const struct dl_phdr_info *info, uintptr_t address, struct cursor *cursor)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t lower = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && segment->p_flags & PF_R && address >= lower &&
		    address - lower < segment->p_filesz) {
			*cursor = (struct cursor){(const uint8_t *)address, (const uint8_t *)lower + segment->p_filesz};
			return true;
		}
	}
	return false;
}

static bool skip(struct cursor *cursor, size_t size)
{
	if (size > (size_t)(cursor->end - cursor->at))
		return false;
	cursor->at += size;
	return true;
}

static bool take(struct cursor *cursor, void *value, size_t size)
{
	const uint8_t *from = cursor->at;

	if (!skip(cursor, size))
		return false;
	memcpy(value, from, size);
	return true;
}

static bool skip_leb128(struct cursor *cursor)
{
	uint8_t byte;

	do {
		if (!take(cursor, &byte, 1))
			return false;
	} while (byte & 0x80);
	return true;
}

/* Size of a value in an encoding, 0 for those that no linker uses here. */
static size_t encoded_size(uint8_t encoding)
{
	switch (encoding & DW_EH_PE_FORMAT) {
	case DW_EH_PE_UDATA4:
	case DW_EH_PE_SDATA4:
		return 4;
	case DW_EH_PE_ABSPTR:
	case DW_EH_PE_UDATA8:
	case DW_EH_PE_SDATA8:
		return 8;
	default:
		return 0;
	}
}

/* Encoding of pc_begin and pc_range, from the CIE's augmentation. */
static bool cie_encoding(const struct dl_phdr_info *info, uintptr_t cie, uint8_t *encoding)
{
	const char *augmentation;
	struct cursor cursor;
	uint8_t head[9]; /* length, id, version */
	uint8_t personality;

	if (!cursor_at(info, cie, &cursor) || !take(&cursor, head, sizeof(head)))
		return false;
	augmentation = (const char *)cursor.at;
	if (!memchr(cursor.at, 0, (size_t)(cursor.end - cursor.at)))
		return false;
	cursor.at += strlen(augmentation) + 1;
	*encoding = DW_EH_PE_ABSPTR;
	if (augmentation[0] != 'z')
		return augmentation[0] == '\0';
	/* Code and data alignment, return address register, augmentation length. */
	if (!skip_leb128(&cursor) || !skip_leb128(&cursor) ||
	    !(head[8] == 1 ? skip(&cursor, 1) : skip_leb128(&cursor)) || !skip_leb128(&cursor))
		return false;
	for (const char *letter = augmentation + 1; *letter; letter++) {
		switch (*letter) {
		case 'R':
			return take(&cursor, encoding, 1);
		case 'L':
			if (!skip(&cursor, 1))
				return false;
			break;
		case 'P':
			if (!take(&cursor, &personality, 1) || !encoded_size(personality) ||
			    !skip(&cursor, encoded_size(personality)))
				return false;
			break;
		case 'S':
		case 'B':
			break;
		default:
			return false;
		}
	}
	return true;
}

/* The extent that an FDE describes; *lower is 0 when it is in an encoding that no linker uses here. */
static bool fde_read(const struct dl_phdr_info *info, uintptr_t fde, uintptr_t *lower, uint64_t *size)
{
	struct cursor cursor;
	uint32_t head[2]; /* length, distance of the CIE */
	uint64_t start = 0;
	uint8_t encoding;

	*size = 0;
	if (!cursor_at(info, fde, &cursor) || !take(&cursor, head, sizeof(head)) || head[0] == 0 ||
	    head[0] == 0xffffffff || head[1] == 0 || !cie_encoding(info, fde + 4 - head[1], &encoding) ||
	    !take(&cursor, &start, encoded_size(encoding)) || !take(&cursor, size, encoded_size(encoding)))
		return false;
	*lower = 0;
	if (encoding == (DW_EH_PE_PCREL | DW_EH_PE_SDATA4))
		*lower = fde + 8 + (uintptr_t)(intptr_t)(int32_t)start;
	else if (encoding == DW_EH_PE_ABSPTR)
		*lower = start;
	return true;
}

/*
 * Linkers describe a whole table of import stubs as one "function" (.plt, .plt.got, .plt.sec). Such a table is an array
 * of stubs of 8 or 16 bytes that jump through the GOT; a function that consists of such a jump is not padded like that.
 */
static bool is_stub_table(const uint8_t *code, uint64_t size)
{
	static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};

	if (size < 8 || size % 8)
		return false;
	if (code[0] == 0xff && code[1] == 0x35) /* push link_map; jmp *resolver */
		return size >= 16;
	if (size >= 16 && !memcmp(code, endbr64, sizeof(endbr64)))
		code += sizeof(endbr64);
	if (code[0] == 0xf2)
		code++;
	return code[0] == 0xff && code[1] == 0x25;
}

/* ---- modules ----------------------------------------------------------------------------------------------------- */

struct collection {
	const char *names;
	struct functions *out;
	size_t module_capacity;
	size_t extent_capacity;
	bool mapped; /* not by the dynamic linker: look into the file where there is no .eh_frame_hdr */
	bool failed;
};

/* Room for one more of `count` elements. */
static void *grow(void *array, size_t count, size_t *capacity, size_t size)
{
	void *larger;

	if (count < *capacity)
		return array;
	*capacity = *capacity ? *capacity * 2 : 64;
	larger = reallocarray(array, *capacity, size);
	return larger;
}

static bool selected(const char *names, const char *name, bool executable)
{
	char pattern[256];

	while (*names) {
		size_t length = strcspn(names, ",");

		if (length && length < sizeof(pattern)) {
			memcpy(pattern, names, length);
			pattern[length] = '\0';
			if ((executable && !strcmp(pattern, "main")) || !fnmatch(pattern, name, 0))
				return true;
		}
		names += length;
		names += *names == ',';
	}
	return false;
}

static bool is_executable(const struct dl_phdr_info *info, uintptr_t address, uint64_t size)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t lower = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && segment->p_flags & PF_X && address >= lower &&
		    address - lower < segment->p_memsz && size <= segment->p_memsz - (address - lower))
			return true;
	}
	return false;
}

static bool collect_extent(struct collection *collection, const struct dl_phdr_info *info, size_t module,
			   uintptr_t lower, uint64_t size)
{
	struct functions *out = collection->out;
	void *extents;

	if (!size || !is_executable(info, lower, size) || is_stub_table((const uint8_t *)lower, size))
		return true;
	extents = grow(out->extents, out->extent_count, &collection->extent_capacity, sizeof(*out->extents));
	if (!extents)
		return false;
	out->extents = extents;
	out->extents[out->extent_count++] = (struct extent){lower, lower + size, module};
	return true;
}

static bool collect_extents(struct collection *collection, const struct dl_phdr_info *info, size_t module,
			    const struct eh_frame_hdr *header)
{
	struct functions *out = collection->out;
	struct cursor cursor;

	if (!cursor_at(info, (uintptr_t)header, &cursor) || !skip(&cursor, sizeof(*header)))
		return true;
	if (header->version != 1 || header->fde_count_enc != DW_EH_PE_UDATA4 ||
	    encoded_size(header->eh_frame_ptr_enc) != 4 || header->table_enc != (DW_EH_PE_DATAREL | DW_EH_PE_SDATA4) ||
	    header->fde_count > (size_t)(cursor.end - cursor.at) / sizeof(header->table[0]))
		return true;
	out->modules[module].described = true;
	for (uint32_t i = 0; i < header->fde_count; i++) {
		uintptr_t lower = (uintptr_t)header + (uintptr_t)(intptr_t)header->table[i].function;
		uintptr_t ignored;
		uint64_t size;

		if (fde_read(info, (uintptr_t)header + (uintptr_t)(intptr_t)header->table[i].fde, &ignored, &size) &&
		    !collect_extent(collection, info, module, lower, size))
			return false;
	}
	return true;
}

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- modules whose unwind table only the file leads to ----------------------------------------------------------- */

/* Address, as in the file, and size of .eh_frame, the section, of a mapped ELF file. Every offset in it is suspect. */
static bool find_eh_frame(const uint8_t *file, size_t size, uint64_t *address, uint64_t *length)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Shdr *sections, *names;

	if (size < sizeof(*header) || memcmp(file, ELFMAG, SELFMAG) || header->e_shentsize != sizeof(*sections) ||
	    header->e_shoff > size || (size - header->e_shoff) / sizeof(*sections) < header->e_shnum ||
	    header->e_shstrndx >= header->e_shnum)
		return false;
	sections = (const void *)(file + header->e_shoff);
	names = &sections[header->e_shstrndx];
	if (names->sh_offset > size || names->sh_size > size - names->sh_offset || !names->sh_size ||
	    file[names->sh_offset + names->sh_size - 1])
		return false;
	for (size_t i = 0; i < header->e_shnum; i++)
		if (sections[i].sh_name < names->sh_size && sections[i].sh_flags & SHF_ALLOC &&
		    !strcmp((const char *)file + names->sh_offset + sections[i].sh_name, ".eh_frame")) {
			*address = sections[i].sh_addr;
			*length = sections[i].sh_size;
			return true;
		}
	return false;
}

static bool loaded_at(const struct dl_phdr_info *info, uintptr_t address, size_t length)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t lower = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && segment->p_flags & PF_R && address >= lower &&
		    address - lower <= segment->p_filesz && length <= segment->p_filesz - (address - lower))
			return true;
	}
	return false;
}

static bool collect_section(struct collection *collection, const struct dl_phdr_info *info, size_t module,
			    const uint8_t *at, const uint8_t *end)
{
	struct cursor cursor = {at, end};
	uint32_t length;

	while (at = cursor.at, take(&cursor, &length, sizeof(length)) && length && skip(&cursor, length)) {
		uintptr_t lower;
		uint64_t size;

		/* A CIE is none. */
		if (fde_read(info, (uintptr_t)at, &lower, &size) && lower &&
		    !collect_extent(collection, info, module, lower, size))
			return false;
	}
	return true;
}

static bool collect_by_sections(struct collection *collection, const struct dl_phdr_info *info, size_t index)
{
	struct module *module = &collection->out->modules[index];
	int fd = open(module->path, O_RDONLY | O_CLOEXEC);
	uint64_t address = 0, length = 0;
	const uint8_t *section;
	struct stat status;
	void *file;

	if (fd < 0)
		return true;
	file = fstat(fd, &status) || !status.st_size ?
		       MAP_FAILED :
		       mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return true;
	module->unindexed = find_eh_frame(file, (size_t)status.st_size, &address, &length) &&
			    loaded_at(info, info->dlpi_addr + address, length);
	module->described = module->unindexed;
	munmap(file, (size_t)status.st_size);
	section = (const uint8_t *)info->dlpi_addr + address;
	return !module->unindexed || collect_section(collection, info, index, section, section + length);
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

static int collect_module(struct dl_phdr_info *info, size_t size, void *data)
{
	struct collection *collection = data;
	struct functions *out = collection->out;
	const struct eh_frame_hdr *header = NULL;
	bool executable = !info->dlpi_name[0];
	struct module *module;
	void *modules;

	(void)size;
	if (!collection->mapped && is_executable(info, (uintptr_t)collect_module, 1))
		return 0;
	modules = grow(out->modules, out->module_count, &collection->module_capacity, sizeof(*out->modules));
	if (!modules) {
		collection->failed = true;
		return 1;
	}
	out->modules = modules;
	module = &out->modules[out->module_count];
	memset(module, 0, sizeof(*module));
	module->base = info->dlpi_addr;
	if (executable) {
		ssize_t length = readlink("/proc/self/exe", module->path, sizeof(module->path) - 1);

		snprintf(module->name, sizeof(module->name), "%.255s",
			 length > 0 ? file_name(module->path) : program_invocation_short_name);
	} else {
		snprintf(module->path, sizeof(module->path), "%s", info->dlpi_name);
		snprintf(module->name, sizeof(module->name), "%.255s", file_name(info->dlpi_name));
	}
	if (!selected(collection->names, module->name, executable))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
			header = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	out->module_count++;
	if (header && !collect_extents(collection, info, out->module_count - 1, header))
		collection->failed = true;
	if (!header && collection->mapped && !collect_by_sections(collection, info, out->module_count - 1))
		collection->failed = true;
	return collection->failed;
}

bool functions_collect(const char *names, struct functions *out)
{
	struct collection collection = {.names = names, .out = out};

	memset(out, 0, sizeof(*out));
	dl_iterate_phdr(collect_module, &collection);
	return !collection.failed;
}

bool functions_collect_mapped(struct dl_phdr_info *info, struct functions *out)
{
	struct collection collection = {.names = "*", .out = out, .mapped = true};

	memset(out, 0, sizeof(*out));
	collect_module(info, sizeof(*info), &collection);
	return !collection.failed && out->module_count == 1;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Look `address` (as in the file) up in a mapped ELF file's symbol tables. Every offset in a file is suspect. */
static bool symtab_name(const uint8_t *file, size_t size, uint64_t address, char *name, size_t name_size)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Shdr *sections;

	if (size < sizeof(*header) || memcmp(file, ELFMAG, SELFMAG) || header->e_shentsize != sizeof(*sections) ||
	    header->e_shoff > size || (size - header->e_shoff) / sizeof(*sections) < header->e_shnum)
		return false;
	sections = (const void *)(file + header->e_shoff);
	for (size_t i = 0; i < header->e_shnum; i++) {
		const Elf64_Shdr *table = &sections[i], *strings;
		const Elf64_Sym *symbols;

		if ((table->sh_type != SHT_SYMTAB && table->sh_type != SHT_DYNSYM) ||
		    table->sh_link >= header->e_shnum || table->sh_offset > size ||
		    table->sh_size > size - table->sh_offset)
			continue;
		strings = &sections[table->sh_link];
		if (strings->sh_offset > size || strings->sh_size > size - strings->sh_offset || !strings->sh_size ||
		    file[strings->sh_offset + strings->sh_size - 1])
			continue;
		symbols = (const void *)(file + table->sh_offset);
		for (size_t k = 0; k < table->sh_size / sizeof(*symbols); k++)
			if (ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC && symbols[k].st_value == address &&
			    symbols[k].st_name < strings->sh_size) {
				snprintf(name, name_size, "%s",
					 (const char *)file + strings->sh_offset + symbols[k].st_name);
				return true;
			}
	}
	return false;
}

static bool file_symbol(const struct module *module, uintptr_t address, char *name, size_t size)
{
	int fd = open(module->path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	bool found = false;
	void *file;

	if (fd < 0)
		return false;
	if (fstat(fd, &status) == 0 && status.st_size > 0) {
		file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (file != MAP_FAILED) {
			found = symtab_name(file, status.st_size, address - module->base, name, size);
			munmap(file, status.st_size);
		}
	}
	close(fd);
	return found;
}

void functions_name(const struct functions *functions, const struct extent *extent, char *name, size_t size)
{
	const struct module *module = &functions->modules[extent->module];
	Dl_info info;

	if (dladdr((void *)extent->lower, &info) && info.dli_sname && info.dli_saddr == (void *)extent->lower)
		snprintf(name, size, "%s", info.dli_sname);
	else if (!file_symbol(module, extent->lower, name, size))
		snprintf(name, size, "%s+0x%jx", module->name, (uintmax_t)(extent->lower - module->base));
}
