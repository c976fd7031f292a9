/* SPDX-License-Identifier: MIT */
/*
 * What a process has in memory, by kind, from /proc/self/smaps (proc(5)).
 */
#define _GNU_SOURCE
#include "coverage.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	GENERATED,
	HEAP,
	MODULE,
	OTHER
};

/* "lower-upper rwxp offset device inode   path" */
static enum kind kind_of(const char *line, const char *path)
{
	unsigned long inode;
	char protection[5];
	int end = 0;

	if (sscanf(line, "%*x-%*x %4s %*x %*s %lu %n", protection, &inode, &end) != 2 || protection[3] != 'p')
		return OTHER;
	if (inode)
		return !strncmp(line + end, path, strlen(path)) ? MODULE : OTHER;
	if (line[end] && line[end] != '\n')
		return OTHER;
	return protection[2] == 'x' ? GENERATED : HEAP;
}

static bool is_mapping(const char *line)
{
	return strchr("0123456789abcdef", line[0]) != NULL;
}

void coverage_memory(const struct module *module, struct memory *memory)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	enum kind kind = OTHER;
	char line[4400], path[PATH_MAX];
	uint64_t kilobytes;

	memset(memory, 0, sizeof(*memory));
	/* As the kernel calls it. */
	if (!realpath(module->path, path))
		snprintf(path, sizeof(path), "%s", module->path);
	while (file && fgets(line, sizeof(line), file)) {
		if (is_mapping(line)) {
			kind = kind_of(line, path);
			memory->mappings++;
		} else if (kind == MODULE && sscanf(line, "Anonymous: %ju", &kilobytes) == 1) {
			memory->copied += kilobytes * 1024;
		} else if (kind != OTHER && sscanf(line, "Rss: %ju", &kilobytes) == 1) {
			memory->generated += kind == GENERATED ? kilobytes * 1024 : 0;
			memory->heap += kind == HEAP ? kilobytes * 1024 : 0;
		}
	}
	if (file)
		fclose(file);
}
