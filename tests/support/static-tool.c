/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tool with the static library in it, to be preloaded or loaded: counts calls of getppid(). With STATIC_TOOL_THREAD
 * in the environment it has a thread of its own from before patch_init(), which blocks everything, and runs.
 */
#include <libpatch/patch.h>

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int tool_status = -100;
EXPORT volatile long tool_hits;

static void tool_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	++tool_hits;
}

static void *tool_run(void *blocks)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	__atomic_store_n((bool *)blocks, true, __ATOMIC_RELEASE);
	for (;;)
		__asm__ volatile("pause");
	return NULL;
}

static void tool_start_thread(void)
{
	static bool blocks;
	pthread_t thread;

	if (pthread_create(&thread, NULL, tool_run, &blocks) != 0)
		abort();
	while (!__atomic_load_n(&blocks, __ATOMIC_ACQUIRE))
		__asm__ volatile("pause");
}

__attribute__((constructor)) static void tool_start(void)
{
	struct patch_location where = { .type = PATCH_LOCATION_SYMBOL };
	struct patch_exec_model what = { .type = PATCH_EXEC_MODEL_PROBE };
	patch_t patch;

	if (getenv("STATIC_TOOL_THREAD"))
		tool_start_thread();
	where.symbol.name = "getppid";
	what.probe.procedure = tool_hit;
	what.probe.clobber_registers = PATCH_REGS_ALL;
	tool_status = patch_init(NULL, 0);
	if (tool_status == PATCH_OK)
		tool_status = patch_make(&where, &what, NULL, &patch, NULL);
	if (tool_status == PATCH_OK)
		tool_status = patch_enable(patch);
	if (tool_status == PATCH_OK)
		tool_status = patch_commit();
}
