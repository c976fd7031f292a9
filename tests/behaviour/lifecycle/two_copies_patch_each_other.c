/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two copies of the library in one process: the first that is initialised has it, the other one is refused with a
 * reason, and everything goes on. The program has the shared library; a tool with the static one is preloaded, or
 * loaded later, or the shared library is loaded once more, from another file or in another namespace. The two names of
 * the shared library are one copy.
 */
#include "harness.h"

#include <dlfcn.h>
#include <limits.h>
#include <sys/wait.h>

#define PRELOADED "preloaded"

static char tool[PATH_MAX], library[PATH_MAX];

/* What another copy's patch_init() said: it names the file of the copy that has the process. */
static void check_told(const struct patch_error *error, const char *file)
{
	size_t length = strlen(error->irritant), end = strlen(file);

	CHECK_MSG(strstr(error->message, "another copy") != NULL, "%s", error->message);
	CHECK_MSG(length > end && strcmp(error->irritant + length - end, file) == 0, "%s", error->irritant);
}

static void expect_refusal(void)
{
	struct patch_error error;

	CHECK_STATUS(patch_init(NULL, 0), PATCH_EEXIST);
	CHECK_STATUS(patch_last_error(&error), PATCH_EEXIST);
	check_told(&error, "/static-tool.so");
	/* Nothing has begun. */
	CHECK_STATUS(patch_commit(), PATCH_EINIT);
}

/* What goes through the system calls that a copy patches. */
static void live_on(void)
{
	sigset_t set, old;

	sigfillset(&set);
	CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
	CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
	for (int i = 0; i < 1000; i++)
		free(malloc((size_t)i));
	CHECK(system("exit 3") == 3 << 8);
}

static void *load(const char *path)
{
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!module)
		FAIL("%s", dlerror());
	return module;
}

static void check_tool_works(void *module)
{
	volatile long *hits = (volatile long *)dlsym(module, "tool_hits");
	const int *status = (const int *)dlsym(module, "tool_status");
	long before;

	REQUIRE(hits && status);
	CHECK_EQ(*status, PATCH_OK);
	before = *hits;
	getppid();
	getppid();
	CHECK_EQ(*hits - before, 2);
}

static void tool_first(void *unused)
{
	void *module = load(tool);

	(void)unused;
	REQUIRE(module);
	expect_refusal();
	live_on();
	check_tool_works(module);
	expect_refusal();
}

static void tool_second(void *unused)
{
	struct patch_statistics statistics;
	void *module;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	module = load(tool);
	REQUIRE(module);
	CHECK_EQ(*(const int *)dlsym(module, "tool_status"), PATCH_EEXIST);
	live_on();
	getppid();
	CHECK_EQ(*(volatile long *)dlsym(module, "tool_hits"), 0);
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_OK(patch_fini());
	live_on();
}

/* `module` is the library once more; ours has the process first. */
static void refuse_other(void *module)
{
	patch_status (*init)(const struct patch_option *, size_t), (*last_error)(struct patch_error *);
	struct patch_error error;

	init = (patch_status (*)(const struct patch_option *, size_t))dlsym(module, "patch_init");
	last_error = (patch_status (*)(struct patch_error *))dlsym(module, "patch_last_error");
	REQUIRE(init && init != patch_init && last_error);
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_EQ(init(NULL, 0), PATCH_EEXIST);
	CHECK_EQ(last_error(&error), PATCH_EEXIST);
	check_told(&error, "/libpatch.so.2");
	live_on();
	CHECK_OK(patch_fini());
}

static void file_copied(void *unused)
{
	char path[] = "/tmp/libpatch-copy-XXXXXX", command[2 * PATH_MAX];
	int fd = mkstemp(path);
	void *module;

	(void)unused;
	REQUIRE(fd >= 0);
	snprintf(command, sizeof(command), "cp '%s' '%s'", library, path);
	REQUIRE(system(command) == 0);
	module = load(path);
	unlink(path);
	REQUIRE(module);
	refuse_other(module);
}

/* There, the copy that has the process is in another namespace. */
static void namespace_of_its_own(void *unused)
{
	void *module = dlmopen(LM_ID_NEWLM, library, RTLD_NOW | RTLD_LOCAL);

	(void)unused;
	if (!module)
		SKIP("%s", dlerror());
	refuse_other(module);
}

/* A child of fork() has the claim of its parent. */
static void forked(void *unused)
{
	void *module = load(tool);

	(void)unused;
	REQUIRE(module);
	harness_isolated("child", (void (*)(void *))expect_refusal, NULL);
	check_tool_works(module);
}

static void two_names(void *unused)
{
	char path[PATH_MAX + 4];
	void *module;

	(void)unused;
	module = load(library);
	REQUIRE(module);
	CHECK(dlsym(module, "patch_init") == (void *)(uintptr_t)&patch_init);
	snprintf(path, sizeof(path), "%s.2", library);
	module = load(path);
	REQUIRE(module);
	CHECK(dlsym(module, "patch_init") == (void *)(uintptr_t)&patch_init);
}

static int preloaded(void)
{
	expect_refusal();
	live_on();
	check_tool_works(RTLD_DEFAULT);
	return harness_end();
}

static void preload(void *program)
{
	setenv("LD_PRELOAD", tool, 1);
	execl(program, program, PRELOADED, (char *)NULL);
	FAIL("%s: %s", (char *)program, strerror(errno));
}

int main(int argc, char **argv)
{
	const char *build = getenv("LIBPATCH_BUILD_DIR");

	harness_start();
	snprintf(tool, sizeof(tool), "%s/tests/support/static-tool.so", build ? build : ".");
	snprintf(library, sizeof(library), "%s/.libs/libpatch.so", build ? build : ".");
	if (argc > 1 && strcmp(argv[1], PRELOADED) == 0)
		return preloaded();
	harness_isolated("tool first", tool_first, NULL);
	harness_isolated("tool second", tool_second, NULL);
	harness_isolated("file copied", file_copied, NULL);
	harness_isolated("another namespace", namespace_of_its_own, NULL);
	harness_isolated("forked", forked, NULL);
	harness_isolated("two names", two_names, NULL);
	harness_isolated("preloaded", preload, (void *)"/proc/self/exe");
	return harness_end();
}
