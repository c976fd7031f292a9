/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "layout.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* As libpatch does (libpatch/space.c): so much at most, and the gap that the kernel keeps below a stack. */
#define STACK_ROOM_MAX (1UL << 30)
#define STACK_GAP (2UL << 20)

/* Field 47 of /proc/PID/stat; 0: not to be known. The name, field 2, may contain anything. */
static unsigned long start_of_break(pid_t pid)
{
	char name[64], text[4096], *at;
	unsigned long value = 0;
	FILE *file;
	size_t got;

	snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
	file = fopen(name, "re");
	if (!file)
		return 0;
	got = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[got] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field < 47; field++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	if (at)
		value = strtoul(at, NULL, 10);
	return value;
}

static unsigned long stack_room(pid_t pid)
{
	struct rlimit limit = {STACK_ROOM_MAX, STACK_ROOM_MAX};

	prlimit(pid, RLIMIT_STACK, NULL, &limit);
	return (limit.rlim_cur < STACK_ROOM_MAX ? limit.rlim_cur : STACK_ROOM_MAX) + STACK_GAP;
}

int layout_of(pid_t pid)
{
	int fd = memfd_create("coverage-layout", 0); /* for the agent to inherit */
	unsigned long program_break = start_of_break(pid), heap;
	char *line = NULL, *maps = NULL, name[64];
	size_t size = 0, length = 0;
	FILE *file, *copy;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
	file = fopen(name, "re");
	copy = open_memstream(&maps, &length);
	while (file && copy && getline(&line, &size, file) > 0) {
		fputs(line, copy);
		if (strstr(line, "[heap]") && sscanf(line, "%*x-%lx", &heap) == 1)
			program_break = heap;
	}
	free(line);
	if (copy)
		fclose(copy);
	if (fd >= 0 && (!file || !length ||
			dprintf(fd, "break %lx stack %lx\n%s", program_break, stack_room(pid), maps) < 0)) {
		close(fd);
		fd = -1;
	}
	if (file)
		fclose(file);
	free(maps);
	return fd;
}
