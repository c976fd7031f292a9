/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A tool with the static library in it, to be preloaded or loaded: counts calls of getppid(). */
#include <libpatch/patch.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int tool_status = -100;
EXPORT volatile long tool_hits;

static void tool_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	++tool_hits;
}

__attribute__((constructor)) static void tool_start(void)
{
	struct patch_location where = { .type = PATCH_LOCATION_SYMBOL };
	struct patch_exec_model what = { .type = PATCH_EXEC_MODEL_PROBE };
	patch_t patch;

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
