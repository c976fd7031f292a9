/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /tmp/perf-PID.map: a line for each block, with the instruction that it stands for. JIT compilers write the same file:
 * lines are added to what is there.
 */
#include "code/perf_files.h"

#include "base/format.h"
#include "elf/module.h"
#include "elf/symbol_name.h"
#include "elf/symbol_source.h"
#include "sys/output_file.h"

#include <string.h>

#define LINE_NAME 128UL /* of a module, at most */
#define LINE_MAX (LINE_NAME + 96)

static struct output_file perf_map_file;
static char lines[4096];
static size_t used;

long perf_map_begin(const char **path)
{
	*path = perf_map_file.path;
	used = 0;
	return output_file_create(&perf_map_file, "perf", "map", true);
}

void perf_map_flush(void)
{
	const struct iovec part = { lines, used };

	if (used > 0)
		(void)output_file_append(&perf_map_file, &part, 1);
	used = 0;
}

/* Returns where the name is to be written. */
static char *perf_map_begin_line(uintptr_t lower, size_t size)
{
	char *at;

	if (used > sizeof(lines) - LINE_MAX)
		perf_map_flush();
	at = format_number(lines + used, lower, 16);
	*at++ = ' ';
	at = format_number(at, size, 16);
	*at++ = ' ';
	return at;
}

static void perf_map_end_line(char *end)
{
	*end++ = '\n';
	used = (size_t)(end - lines);
}

void perf_map_add_range(uintptr_t lower, size_t size, const char *name)
{
	perf_map_end_line(format_string(perf_map_begin_line(lower, size), name));
}

static char *perf_map_module(char *at, const struct module *module) REQUIRES(library_lock)
{
	const char *path = module_path(module);
	const char *name = symbol_name_of_file(*path != '\0' ? path : symbol_source_program_path());

	for (size_t i = 0; i < LINE_NAME && name[i] != '\0'; ++i)
		*at++ = (unsigned char)name[i] <= ' ' ? '_' : name[i];
	return at;
}

void perf_map_add(uintptr_t block, size_t size)
{
	char *at = format_string(perf_map_begin_line(block, size), "libpatch:");
	struct module module = { .bias = 0 };
	uint64_t region;

	memcpy(&region, (const void *)block, sizeof(region));
	if (module_find_current(region, &module)) {
		at = perf_map_module(at, &module);
		*at++ = '+';
	}
	at = format_string(at, "0x");
	perf_map_end_line(format_number(at, region - module.bias, 16));
}
