/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts how often each function of a program is entered and how often it is left, by PROBE_RETURN on all of them.
 *
 *   LD_PRELOAD=count-calls.so COUNT_CALLS_REPORT=/tmp/report program ...
 *
 *   COUNT_CALLS_REPORT=FILE   is written when the program ends: "function ADDRESS ENTRIES RETURNS NAME" of each that
 *                             was entered, by its address in the file; "refused ADDRESS NAME: REASON"; "end FUNCTIONS"
 *   COUNT_CALLS_MODULES=NAMES file names or patterns, comma separated. Default: main
 *
 * Of one thread: counts of several would be lost.
 */
#define _GNU_SOURCE
#include "common/functions.h"

#include <libpatch/patch.h>

#include <stdio.h>
#include <stdlib.h>

struct counts {
	uint64_t entries;
	uint64_t returns;
};

static struct functions functions;
static struct counts *counts; /* of each function */
static FILE *report;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct counts *of_function = context->user_data;

	if (post)
		of_function->returns++;
	else
		of_function->entries++;
}

static uint64_t address_in_file(const struct extent *extent)
{
	return extent->lower - functions.modules[extent->module].base;
}

static void patch_function(const struct extent *extent, struct counts *of_function, const patch_attr *attr)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS, .address = extent->lower };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_PROBE_RETURN };
	struct patch_error error;
	char name[512];
	patch_t patch;

	model.probe.user_data = of_function;
	model.probe.procedure = procedure;
	if (patch_make(&location, &model, attr, &patch, NULL) == PATCH_OK)
		return;
	patch_last_error(&error);
	functions_name(&functions, extent, name, sizeof(name));
	fprintf(report, "refused %#lx %s: %s\n", (unsigned long)address_in_file(extent), name, error.message);
}

__attribute__((constructor)) static void begin(void)
{
	const char *file = getenv("COUNT_CALLS_REPORT"), *names = getenv("COUNT_CALLS_MODULES");
	patch_attr attr;

	report = file != NULL ? fopen(file, "we") : NULL;
	if (report == NULL || patch_init(NULL, 0) != PATCH_OK ||
	    !functions_collect(names != NULL ? names : "main", &functions) ||
	    patch_attr_init(&attr, sizeof(attr)) != PATCH_OK)
		return;
	counts = calloc(functions.extent_count, sizeof(*counts));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	for (size_t i = 0; counts != NULL && i < functions.extent_count; i++)
		patch_function(&functions.extents[i], &counts[i], &attr);
	if (patch_commit() != PATCH_OK)
		fprintf(report, "error: the commit failed\n");
}

/* Behind all of the program's. */
__attribute__((destructor)) static void end(void)
{
	char name[512];

	if (counts == NULL)
		return;
	patch_fini();
	for (size_t i = 0; i < functions.extent_count; i++) {
		if (counts[i].entries == 0 && counts[i].returns == 0)
			continue;
		functions_name(&functions, &functions.extents[i], name, sizeof(name));
		fprintf(report, "function %#lx %lu %lu %s\n", (unsigned long)address_in_file(&functions.extents[i]),
			(unsigned long)counts[i].entries, (unsigned long)counts[i].returns, name);
	}
	fprintf(report, "end %zu\n", functions.extent_count);
	fclose(report);
}
