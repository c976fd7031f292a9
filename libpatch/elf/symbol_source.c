/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the files with a module's symbols. A path proves nothing: files are replaced while they are mapped, and files
 * of debug information are of another version than installed. So each is compared with the module in memory before it
 * is believed. Nothing of the library's state is known here.
 */
#include "elf/symbol_source.h"

#include "base/format.h"
#include "base/syscall.h"
#include "sys/own_proc.h"

#include <limits.h>
#include <string.h>

#ifdef LIBPATCH_INJECT
const char *symbol_source_debug_root = "/usr/lib/debug";
#else
static const char *const symbol_source_debug_root = "/usr/lib/debug";
#endif

/* A path that is put together; one that is too long stays cut off, and names no file. */
struct source_path {
	char text[PATH_MAX];
	size_t length;
};

static void source_append(struct source_path *path, const char *text, size_t length)
{
	if (length >= sizeof(path->text) - path->length)
		length = path->length = 0;
	memcpy(path->text + path->length, text, length);
	path->length += length;
	path->text[path->length] = '\0';
}

static void source_append_text(struct source_path *path, const char *text)
{
	source_append(path, text, name_length(text));
}

static void source_append_number(struct source_path *path, uint64_t value)
{
	char digits[16];

	source_append(path, digits, (size_t)(format_number(digits, value, 16) - digits));
}

/* Once, because to ask takes longer than to find a symbol. What is read is zero up to here. */
static char program_path[PATH_MAX];

__attribute__((constructor(101))) static void source_read_program_path(void)
{
	raw_syscall(SYS_readlink, "/proc/self/exe", program_path, sizeof(program_path) - 1);
}

const char *symbol_source_program_path(void)
{
	return program_path;
}

/* Open the file that is mapped, by a link of the kernel's: it may have no name any more. Takes a capability. */
static bool source_open_mapped(struct elf_file *file, const struct mapped_file *mapped, struct source_path *path)
{
	for (size_t i = 0; i < MAPPED_SEGMENTS && mapped->segments[i].upper != 0; ++i) {
		path->length = 0;
		source_append_text(path, "/proc/self/map_files/");
		source_append_number(path, mapped->segments[i].lower);
		source_append_text(path, "-");
		source_append_number(path, mapped->segments[i].upper);
		if (elf_file_open(file, path->text) == 0)
			return true;
	}
	return false;
}

static bool source_is_mapped(const struct elf_file *file, const struct mapped_file *mapped)
{
	struct identity identity;

	identity_of_file(file, &identity);
	/* The kernel's link to the program's file leads nowhere else, and a file that is executed is not written. */
	return identity_is_same(&identity, &mapped->identity) || (mapped->is_program && mapped->identity.size == 0);
}

/* SOURCE_READ: it is open. */
static enum symbol_source source_open(struct elf_file *file, const struct mapped_file *mapped, struct source_path *path)
{
	enum symbol_source reason = SOURCE_UNREADABLE;
	char program[OWN_PROC_PATH];
	const char *name = mapped->is_program ? own_proc_path(program, "exe") : mapped->path;

	/* What the kernel maps has a name, and no file. */
	if (strchr(name, '/') == NULL)
		return SOURCE_STRIPPED;
	if (elf_file_open(file, name) == 0) {
		if (source_is_mapped(file, mapped))
			return SOURCE_READ;
		elf_file_close(file);
		reason = SOURCE_REPLACED;
	}
	if (source_open_mapped(file, mapped, path)) {
		if (source_is_mapped(file, mapped))
			return SOURCE_READ;
		elf_file_close(file);
	}
	return reason;
}

/* zlib's CRC-32, four bits at a time (System V ABI: none; GDB manual, "Separate Debug Files"). */
static bool source_sum(const struct elf_file *file, uint32_t *out)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c
	};
	uint8_t bytes[PAGE_SIZE / 4];
	uint32_t sum = ~0u;

	for (uint64_t at = 0, piece; at < file->size; at += piece) {
		piece = MIN(file->size - at, sizeof(bytes));
		if (!elf_file_read(file, at, bytes, piece))
			return false;
		for (uint64_t i = 0; i < piece; ++i) {
			sum = sum >> 4 ^ table[(sum ^ bytes[i]) & 15];
			sum = sum >> 4 ^ table[(sum ^ bytes[i] >> 4) & 15];
		}
	}
	*out = ~sum;
	return true;
}

/* The symbols of a file of debug information, if it belongs to the module. `sum` NULL: its build id must say so. */
static enum symbol_source source_read_debug(const struct mapped_file *mapped, const struct source_path *path,
					    const uint32_t *sum, struct symbol_table *table)
{
	enum symbol_source result = SOURCE_STRIPPED;
	struct identity identity;
	struct elf_file file;
	uint32_t found;
	bool belongs;
	long error;

	if (elf_file_open(&file, path->text) != 0)
		return result;
	if (mapped->identity.size > 0 && !mapped->identity.is_sum) {
		identity_build_id(&file, &identity);
		belongs = identity_is_same(&identity, &mapped->identity);
	} else {
		belongs = sum != NULL && source_sum(&file, &found) && found == *sum;
	}
	if (belongs) {
		error = symbol_table_read(table, &file);
		result = error == 0 ? SOURCE_READ : error == -ENOMEM ? SOURCE_NO_MEMORY : SOURCE_STRIPPED;
	}
	elf_file_close(&file);
	return result;
}

/* /usr/lib/debug/.build-id/xx/yyyy.debug */
static enum symbol_source source_read_by_id(const struct mapped_file *mapped, struct source_path *path,
					    struct symbol_table *table)
{
	const struct identity *identity = &mapped->identity;

	if (identity->size < 2 || identity->is_sum)
		return SOURCE_STRIPPED;
	path->length = 0;
	source_append_text(path, symbol_source_debug_root);
	source_append_text(path, "/.build-id/");
	for (size_t i = 0; i < identity->size; ++i) {
		source_append_number(path, identity->bytes[i] >> 4);
		source_append_number(path, identity->bytes[i] & 15);
		if (i == 0)
			source_append_text(path, "/");
	}
	source_append_text(path, ".debug");
	return source_read_debug(mapped, path, NULL, table);
}

/* The name and the sum in .gnu_debuglink: in the module's directory, in .debug there, below /usr/lib/debug. */
static enum symbol_source source_read_by_link(const struct elf_file *file, const struct mapped_file *mapped,
					      struct source_path *path, struct symbol_table *table)
{
	enum symbol_source result = SOURCE_STRIPPED;
	const char *module = mapped->is_program ? symbol_source_program_path() : mapped->path;
	size_t length, directory = (size_t)(symbol_name_of_file(module) - module);
	char link[NAME_MAX + 1 + 2 * sizeof(uint32_t)];
	Elf64_Shdr section;
	uint32_t sum;

	if (!elf_file_find_name(file, ".gnu_debuglink", &section) || section.sh_size > sizeof(link) ||
	    section.sh_size < 2 * sizeof(sum) ||
	    !elf_file_read(file, section.sh_offset, link, section.sh_size))
		return result;
	memcpy(&sum, link + section.sh_size - sizeof(sum), sizeof(sum));
	link[section.sh_size - sizeof(sum)] = '\0';
	length = name_length(link);
	if (length == 0 || memchr(link, '/', length) != NULL)
		return result;
	for (int place = 0; place < 3 && result == SOURCE_STRIPPED; ++place) {
		path->length = 0;
		if (place == 2)
			source_append_text(path, symbol_source_debug_root);
		source_append(path, module, directory);
		if (place == 1)
			source_append_text(path, ".debug/");
		source_append(path, link, length);
		result = source_read_debug(mapped, path, &sum, table);
	}
	return result;
}

enum symbol_source symbol_source_read(const struct mapped_file *mapped, struct symbol_table *table)
{
	struct source_path path = { .length = 0 };
	enum symbol_source reason, debug;
	struct elf_file file;
	bool is_open;
	long error;

	*table = (struct symbol_table){ .count = 0 };
	reason = source_open(&file, mapped, &path);
	is_open = reason == SOURCE_READ;
	if (is_open) {
		error = symbol_table_read(table, &file);
		reason = error == 0	     ? SOURCE_READ
			 : error == -ENOENT ? SOURCE_STRIPPED
			 : error == -ENOMEM ? SOURCE_NO_MEMORY
					    : SOURCE_DAMAGED;
	}
	if (reason != SOURCE_READ && reason != SOURCE_NO_MEMORY) {
		debug = source_read_by_id(mapped, &path, table);
		if (debug == SOURCE_STRIPPED && is_open)
			debug = source_read_by_link(&file, mapped, &path, table);
		if (debug != SOURCE_STRIPPED)
			reason = debug;
	}
	if (is_open)
		elf_file_close(&file);
	return reason;
}
