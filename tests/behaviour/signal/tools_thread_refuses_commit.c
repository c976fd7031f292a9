/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tool with the library linked in has a thread of its own that blocks everything, and runs the tool's code, which
 * cannot be told from the library's: it seems to be in the library whenever it is stopped, where what it blocks may be
 * the library's doing. It is adopted all the same.
 */
#include "harness.h"

#include <dlfcn.h>
#include <limits.h>

int main(void)
{
	const char *build = getenv("LIBPATCH_BUILD_DIR");
	volatile long *hits;
	const int *status;
	char tool[PATH_MAX];
	void *module;

	harness_start();
	snprintf(tool, sizeof(tool), "%s/tests/support/static-tool.so", build ? build : ".");
	setenv("STATIC_TOOL_THREAD", "1", 1);
	module = dlopen(tool, RTLD_NOW | RTLD_LOCAL);
	if (module == NULL)
		FAIL("%s", dlerror());
	REQUIRE(module);
	hits = (volatile long *)dlsym(module, "tool_hits");
	status = (const int *)dlsym(module, "tool_status");
	REQUIRE(hits && status);
	CHECK_EQ(*status, PATCH_OK);
	getppid();
	CHECK_EQ(*hits, 1);
	return harness_end();
}
