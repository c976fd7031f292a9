/* SPDX-License-Identifier: MIT */
/*
 * A tool to start from: how often a program that knows nothing of it calls which functions of its libraries.
 *
 *	cc -shared -fPIC -o preload.so preload.c -lpatch
 *	LD_PRELOAD=./preload.so CALLS='malloc free' sort FILE
 *
 * It tells when the program returns from main() or calls exit(), not when _exit() or a signal ends it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpatch/patch.h>

static struct function {
	const char *name;
	patch_t patch;
	atomic_ulong calls;
} functions[64];
static int count, output; /* output: the program may close its standard error before it ends */

/* Any thread, any time the program calls the function: as little as possible, and nothing that is not thread safe. */
static void on_call(struct patch_exec_context *context, uint8_t post)
{
	struct function *function = context->user_data;

	(void)post;
	function->calls++;
}

static void complain(const char *about)
{
	struct patch_error error;

	patch_last_error(&error);
	dprintf(output, "%s: %s %s\n", about, error.message, error.irritant);
}

/* Before main(). */
__attribute__((constructor)) static void begin(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_SYMBOL};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE};
	const char *calls = getenv("CALLS");
	char *rest, *name = strtok_r(strdup(calls ? calls : ""), " ", &rest);
	patch_status status;
	patch_attr attr;

	output = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
	status = patch_init(NULL, 0);
	/* Another tool in the process may use the library, too. */
	if (status && status != PATCH_EEXIST) {
		complain("preload");
		return;
	}
	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	what.probe.procedure = on_call;
	for (; name && count < 64; name = strtok_r(NULL, " ", &rest)) {
		where.symbol.name = functions[count].name = name;
		what.probe.user_data = &functions[count];
		if (patch_make(&where, &what, &attr, &functions[count].patch, NULL))
			complain(name);
		else
			count++;
	}
	if (patch_commit())
		complain("preload");
}

/*
 * After main(), and what the program has given to atexit(). What is called here is not to be counted. patch_fini()
 * would remove the patches of other tools, too.
 */
__attribute__((destructor)) static void end(void)
{
	for (int i = 0; i < count; i++)
		patch_unmake(functions[i].patch);
	patch_commit();
	for (int i = 0; i < count; i++)
		dprintf(output, "%10lu %s\n", (unsigned long)functions[i].calls, functions[i].name);
}
