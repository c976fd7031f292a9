/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading /proc/self/maps. Mappings may change at any time, by other threads: whatever is read here is a hint.
 */
#include "sys/maps.h"

#include "base/parse.h"
#include "base/syscall.h"
#include "sys/own_proc.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* One line of the file. */
struct line {
	struct maps_mapping mapping;
	const char *path; /* in the reader's buffer; NULL: no file */
};

/* Under the library lock. */
static char own_buffer[MAPS_BUFFER_SIZE];

struct reader {
	char *buffer; /* MAPS_BUFFER_SIZE bytes */
	long fd;
	long error; /* -errno, when reading ended before the file's end; else 0 */
	size_t length; /* of what is in it */
	size_t at;     /* where its next line begins */
};

static bool reader_open_into(struct reader *reader, char *buffer)
{
	reader->buffer = buffer;
	reader->fd = own_proc_open("maps", O_RDONLY | O_CLOEXEC);
	reader->error = reader->fd < 0 ? reader->fd : 0;
	reader->length = 0;
	reader->at = 0;
	return reader->fd >= 0;
}

static bool reader_open(struct reader *reader)
{
	return reader_open_into(reader, own_buffer);
}

/* The next whole line, without its newline, inside the buffer; NULL at the end. */
static char *reader_line(struct reader *reader)
{
	char *const buffer = reader->buffer;

	for (;;) {
		char *start = buffer + reader->at;
		char *end = memchr(start, '\n', reader->length - reader->at);
		long got;

		if (end != NULL) {
			*end = '\0';
			reader->at = end + 1 - buffer;
			return start;
		}
		memmove(buffer, start, reader->length - reader->at);
		reader->length -= reader->at;
		reader->at = 0;
		if (reader->length == MAPS_BUFFER_SIZE) {
			reader->error = -EOVERFLOW;
			return NULL;
		}
		got = raw_syscall(SYS_read, reader->fd, buffer + reader->length, MAPS_BUFFER_SIZE - reader->length);
		if (got <= 0) {
			reader->error = got;
			return NULL;
		}
		reader->length += got;
	}
}

static bool maps_is_stack(const char *name)
{
	return parse_prefix(name, "[stack]") != NULL;
}

static bool maps_is_special(const char *name)
{
	return parse_prefix(name, "[v") != NULL || parse_prefix(name, "[uprobes") != NULL;
}

/* "lower-upper rwxp offset device inode   name" (proc(5)) */
static void maps_parse_line(const char *at, struct line *line)
{
	uint64_t major, minor;
	const char *name;

	at = parse_hexadecimal(at, &line->mapping.lower) + 1;
	at = parse_hexadecimal(at, &line->mapping.upper) + 1;
	line->mapping.protection = (at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) |
				   (at[2] == 'x' ? PROT_EXEC : 0);
	line->mapping.shared = at[3] == 's';
	at = parse_hexadecimal(at + 5, &line->mapping.offset) + 1;
	at = parse_hexadecimal(at, &major) + 1;
	at = parse_hexadecimal(at, &minor) + 1;
	line->mapping.device = major << 32 | minor;
	at = parse_decimal(at, &line->mapping.inode);
	name = strchr(at, '[');
	line->path = line->mapping.inode != 0 ? strchr(at, '/') : NULL;
	line->mapping.stack = name != NULL && maps_is_stack(name);
	line->mapping.special = name != NULL && maps_is_special(name);
}

static bool reader_next(struct reader *reader, struct line *line)
{
	char *text = reader_line(reader);

	if (text == NULL)
		return false;
	maps_parse_line(text, line);
	return true;
}

/* include/uapi/linux/fs.h, Linux 6.11: what is mapped at one address, without reading about all others. */
struct procmap_query {
	uint64_t size;
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start;
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size;
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};
#define PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)
#define PROCMAP_READABLE 1
#define PROCMAP_WRITABLE 2
#define PROCMAP_EXECUTABLE 4
#define PROCMAP_SHARED 8

/* Returns 0; -ENOENT when nothing is mapped at the address; another -errno when the kernel cannot be asked this way. */
static long maps_query(long fd, uintptr_t address, struct maps_mapping *out)
{
	static char name[4096];
	struct procmap_query query = {
		.size = sizeof(query),
		.query_addr = address,
		.vma_name_size = sizeof(name),
		.vma_name_addr = (uintptr_t)name,
	};
	long result = raw_syscall(SYS_ioctl, fd, PROCMAP_QUERY, &query);

	if (result < 0)
		return result;
	*out = (struct maps_mapping){
		.lower = query.vma_start,
		.upper = query.vma_end,
		.protection = (query.vma_flags & PROCMAP_READABLE ? PROT_READ : 0) |
			      (query.vma_flags & PROCMAP_WRITABLE ? PROT_WRITE : 0) |
			      (query.vma_flags & PROCMAP_EXECUTABLE ? PROT_EXEC : 0),
		.shared = query.vma_flags & PROCMAP_SHARED,
		.stack = query.vma_name_size > 0 && maps_is_stack(name),
		.special = query.vma_name_size > 0 && maps_is_special(name),
		.offset = query.vma_offset,
		.device = (uint64_t)query.dev_major << 32 | query.dev_minor,
		.inode = query.inode,
	};
	return 0;
}

bool maps_mapping(uintptr_t address, struct maps_mapping *out, bool *readable)
{
	struct reader reader;
	struct line line;
	bool found = false;
	long error;

	*readable = reader_open(&reader);
	if (!*readable)
		return false;
	error = maps_query(reader.fd, address, out);
	if (error == 0 || error == -ENOENT) {
		raw_syscall(SYS_close, reader.fd);
		return error == 0;
	}
	while (!found && reader_next(&reader, &line)) {
		if (line.mapping.lower > address)
			break;
		found = address < line.mapping.upper;
	}
	raw_syscall(SYS_close, reader.fd);
	*readable = found || reader.error == 0;
	if (found)
		*out = line.mapping;
	return found;
}

bool maps_file_byte(uintptr_t address, uint8_t *byte)
{
	struct stat status = { 0 };
	struct reader reader;
	struct line line;
	bool found = false;
	long file = -ENOENT;

	if (!reader_open(&reader))
		return false;
	while (!found && reader_next(&reader, &line))
		found = address >= line.mapping.lower && address < line.mapping.upper;
	if (found && line.path != NULL)
		file = raw_open(line.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	raw_syscall(SYS_close, reader.fd);
	if (file < 0)
		return false;
	/* By its inode only: layered file systems tell another device here than in the list of mappings. */
	found = raw_syscall(SYS_fstat, file, &status) == 0 && status.st_ino == line.mapping.inode &&
		raw_syscall(SYS_pread64, file, byte, 1, line.mapping.offset + (address - line.mapping.lower)) == 1;
	raw_syscall(SYS_close, file);
	return found;
}

long maps_refusal(void)
{
	struct reader reader;

	if (!reader_open(&reader))
		return reader.error;
	if (reader_line(&reader) == NULL && reader.error == 0)
		reader.error = -EIO;
	raw_syscall(SYS_close, reader.fd);
	return reader.error;
}

bool maps_mappings_into(char buffer[MAPS_BUFFER_SIZE], maps_mapping_fn *visit, void *data)
{
	struct reader reader;
	struct line line;

	if (!reader_open_into(&reader, buffer))
		return false;
	while (reader_next(&reader, &line) && visit(&line.mapping, data))
		;
	raw_syscall(SYS_close, reader.fd);
	return reader.error == 0;
}

bool maps_mappings(maps_mapping_fn *visit, void *data)
{
	return maps_mappings_into(own_buffer, visit, data);
}
