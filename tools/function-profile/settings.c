/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "settings.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MILLISECOND 1000000ull

static void set_file(struct settings *settings, const char *value)
{
	size_t at = 0;

	for (; *value && at + 16 < sizeof(settings->file); value++) {
		if (value[0] == '%' && value[1] == 'p') {
			at += (size_t)snprintf(settings->file + at, sizeof(settings->file) - at, "%d", (int)getpid());
			value++;
		} else {
			settings->file[at++] = *value;
		}
	}
	settings->file[at] = '\0';
}

/* Shells have a getenv() and a setenv() of their own, for their variables: the environment is read without. */
static char **find_variable(const char *name)
{
	size_t length = strlen(name);

	for (char **at = environ; at && *at; at++)
		if (!strncmp(*at, name, length) && (*at)[length] == '=')
			return at;
	return NULL;
}

static char *variable(const char *name)
{
	char **at = find_variable(name);

	return at ? *at + strlen(name) + 1 : NULL;
}

static bool is_set(const char *name)
{
	const char *value = variable(name);

	return value && strcmp(value, "0");
}

static void remove_variable(const char *name)
{
	char **at;

	while ((at = find_variable(name)))
		do
			at[0] = at[1];
		while (*at++);
}

/* A number that `stop` ends: where the next one begins, or the end of the text. NULL: there is none, *number stays. */
static const char *read_number(const char *text, char stop, uint64_t *number)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || (*end && *end != stop))
		return NULL;
	*number = value;
	return *end ? end + 1 : end;
}

static void read_toggle(struct settings *settings, const char *value)
{
	uint64_t after = 0, back;
	const char *rest = read_number(value, ',', &after);

	back = after;
	if (!rest || (rest[-1] == ',' && !read_number(rest, '\0', &back))) {
		settings->wrong = "LIBPATCH_TRACE_TOGGLE is one or two numbers of milliseconds, as in 500,100";
		return;
	}
	settings->remove_after = after * MILLISECOND;
	settings->put_back_after = back * MILLISECOND;
}

static void read_variables(struct settings *settings)
{
	const char *value;
	uint64_t top = 20;

	value = variable("LIBPATCH_TRACE_TOP");
	if (value && !read_number(value, '\0', &top))
		settings->wrong = "LIBPATCH_TRACE_TOP is a number of lines";
	settings->top = top;
	value = variable("LIBPATCH_TRACE_SORT");
	settings->by_time = value && !strcmp(value, "time");
	if (value && !settings->by_time && strcmp(value, "calls"))
		settings->wrong = "LIBPATCH_TRACE_SORT is time or calls";
	settings->progress = is_set("LIBPATCH_TRACE_PROGRESS");
	value = variable("LIBPATCH_TRACE_TOGGLE");
	if (value)
		read_toggle(settings, value);
	value = variable("LIBPATCH_TRACE_OUTPUT");
	if (value)
		set_file(settings, value);
}

/* Leave what the program executes an environment as if the tool were not there. */
static void clean_environment(void)
{
	static const char *const ours[] = {
		"LIBPATCH_TRACE",	   "LIBPATCH_TRACE_OUTPUT", "LIBPATCH_TRACE_TOP",    "LIBPATCH_TRACE_SORT",
		"LIBPATCH_TRACE_PROGRESS", "LIBPATCH_TRACE_TOGGLE", "LIBPATCH_TRACE_FOLLOW",
	};
	char *preload = variable("LD_PRELOAD"), *to = preload;
	const char *name;
	Dl_info self;

	if (preload && dladdr((void *)clean_environment, &self)) {
		name = strrchr(self.dli_fname, '/');
		name = name ? name + 1 : self.dli_fname;
		for (const char *at = preload; *at;) {
			size_t length = strcspn(at, ": "), skip = length + (at[length] != '\0');
			const char *base = memrchr(at, '/', length);

			base = base ? base + 1 : at;
			if ((size_t)(at + length - base) != strlen(name) || memcmp(base, name, strlen(name))) {
				memmove(to, at, skip);
				to += skip;
			}
			at += skip;
		}
		*to = '\0';
		if (!*preload)
			remove_variable("LD_PRELOAD");
	}
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		remove_variable(ours[i]);
}

/*
 * Names of the modules to trace; NULL when this is not a process to trace. The first process is one, whatever it
 * executes; its children are not, unless they are wanted. The environment is all that survives an exec: the first
 * process leaves its number there, as LIBPATCH_TRACE=@1234:MODULES.
 */
static const char *modules_to_trace(void)
{
	static char marked[4096];
	char **slot = find_variable("LIBPATCH_TRACE");
	char *names = variable("LIBPATCH_TRACE");
	bool follow = is_set("LIBPATCH_TRACE_FOLLOW");
	long process = getpid();

	if (names && names[0] == '@') {
		process = strtol(names + 1, &names, 10);
		names += *names == ':';
	} else if (names && !follow && strlen(names) < sizeof(marked) - 64) {
		snprintf(marked, sizeof(marked), "LIBPATCH_TRACE=@%ld:%s", process, names);
		*slot = marked;
	}
	if (!follow && (!names || process != getpid()))
		clean_environment();
	if (!follow && process != getpid())
		return NULL;
	return names ? names : "main";
}

const char *settings_read(struct settings *settings)
{
	read_variables(settings);
	return modules_to_trace();
}
