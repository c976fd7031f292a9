/* SPDX-License-Identifier: MIT */
/*
 * The part of coverage (see coverage.c) that is loaded beside the code it examines: chooses the module, has its sites
 * planned, and reports.
 */
#define _GNU_SOURCE
#include "coverage.h"
#include "layout.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct coverage coverage;

void coverage_complain(const char *what, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "coverage: %s: %s\n", what, why);
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* fork() copies the page tables of private memory, for each of thousands of processes. */
static void *shared_copy(void *memory, size_t size)
{
	void *copy = shared_memory(size);

	if (copy)
		memcpy(copy, memory, size);
	free(memory);
	return copy;
}

#ifndef COVERAGE_STATIC

/* Load `file` and collect the functions of that module alone; of the program, if file is empty. */
static bool choose_module(const char *file)
{
	struct functions *functions = &coverage.functions;
	struct link_map *map = NULL;
	void *handle = dlopen(file[0] ? file : NULL, RTLD_LAZY | RTLD_LOCAL);

	if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map)) {
		coverage_complain(file, dlerror());
		return false;
	}
	coverage.is_program = !file[0];
	if (!functions_collect(coverage.is_program ? "main" : "*", functions)) {
		coverage_complain(file, "out of memory");
		return false;
	}
	for (size_t i = 0; i < functions->module_count; i++)
		if (functions->modules[i].base == map->l_addr)
			coverage.module = &functions->modules[i];
	if (!coverage.module)
		coverage_complain(file, "the dynamic linker does not list it");
	return coverage.module != NULL;
}

/* Map `file` as it lies in a layout. */
static bool choose_mapped(const char *file, const char *layout)
{
	const char *root = getenv(COVERAGE_ROOT), *why;
	struct dl_phdr_info info;
	enum layout_result result = layout_enact(layout, root ? root : "", file, &info, &why);

	if (result == LAYOUT_COLLIDED)
		_exit(COVERAGE_COLLIDED);
	if (result == LAYOUT_FAILED) {
		coverage_complain(file, why);
		return false;
	}
	coverage.label = getenv(COVERAGE_LABEL);
	if (!functions_collect_mapped(&info, &coverage.functions)) {
		coverage_complain(file, "out of memory");
		return false;
	}
	coverage.module = &coverage.functions.modules[0];
	return true;
}

#endif

static unsigned long number(const char *name)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 10) : 0;
}

static void read_settings(void)
{
	coverage.every = number(COVERAGE_EVERY);
	coverage.limit = number(COVERAGE_LIMIT);
	coverage.jobs = number(COVERAGE_JOBS) ? number(COVERAGE_JOBS) : 1;
	coverage.table = number(COVERAGE_TABLE) != 0;
	coverage.summary = number(COVERAGE_SUMMARY) != 0;
	coverage.both = number(COVERAGE_BOTH) != 0;
	coverage.commit = number(COVERAGE_COMMIT) != 0;
}

static bool prepare(void)
{
	coverage_select_extents(&coverage);
	coverage.shared = shared_memory(sizeof(*coverage.shared));
	if (!coverage.shared || !coverage_collect_sites(&coverage))
		return false;
	coverage.sites = shared_copy(coverage.sites, coverage.site_count * sizeof(*coverage.sites));
	coverage.order = shared_copy(coverage.order, coverage.site_count * sizeof(*coverage.order));
	if (!coverage.sites || !coverage.order)
		return false;
	for (int policy = 0; policy < POLICIES; policy++) {
		coverage.results[policy] = shared_memory(coverage.site_count * sizeof(struct result));
		if (!coverage.results[policy])
			return false;
	}
	return true;
}

static int examine(void)
{
	if (!prepare()) {
		coverage_complain(coverage.module->path, "out of memory");
		return COVERAGE_FAILED;
	}
	coverage_plan(&coverage);
	coverage_report(&coverage);
	fflush(stdout);
	return coverage.deaths ? COVERAGE_INCOMPLETE : COVERAGE_DONE;
}

#ifdef COVERAGE_STATIC

/* coverage-static: a program that has all of this, and libpatch, linked into it, and examines itself. */
static int choose_self(struct dl_phdr_info *info, size_t size, void *data)
{
	static char path[4096];
	struct dl_phdr_info self = *info;

	(void)size;
	self.dlpi_name = path;
	if (readlink("/proc/self/exe", path, sizeof(path) - 1) > 0)
		*(bool *)data = functions_collect_mapped(&self, &coverage.functions);
	return 1;
}

int main(void)
{
	bool chosen = false;

	dl_iterate_phdr(choose_self, &chosen);
	if (!chosen)
		return COVERAGE_FAILED;
	coverage.module = &coverage.functions.modules[0];
	coverage.label = "static, from inside";
	read_settings();
	return examine();
}

#else

static __attribute__((constructor)) void run(void)
{
	const char *file = getenv(COVERAGE_FILE), *layout = getenv(COVERAGE_LAYOUT);

	if (!file)
		return;
	if (layout ? !choose_mapped(file, layout) : !choose_module(file))
		_exit(COVERAGE_FAILED);
	read_settings();
	_exit(examine());
}

#endif
