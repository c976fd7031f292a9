/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files for perf: none is made unless an option asks for it; what others have put in their place is never written
 * to, now or later; a limit to the size of files, which the kernel enforces by a signal, harms nobody; a child has
 * files of its own.
 */
#include "targets.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MAP "/tmp/perf-%d.map"
#define DUMP "/tmp/jit-%d.dump"
#define PRECIOUS "file_of_others_written.precious"

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static const char *path_of(const char *pattern)
{
	static char paths[2][64];
	static unsigned int n;

	n = (n + 1) % 2;
	snprintf(paths[n], sizeof(paths[n]), pattern, (int)getpid());
	return paths[n];
}

static long size_of(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 ? (long)status.st_size : -1;
}

static patch_status start(bool map, bool dump)
{
	const struct patch_option options[] = { { .type = PATCH_OPT_PERF_MAP, .perf_map = map },
						{ .type = PATCH_OPT_PERF_DUMP, .perf_dump = dump } };

	return patch_init(options, 2);
}

static void patch_one(const char *name)
{
	uintptr_t address = target_start(target_named(name));
	patch_t patch;

	REQUIRE_OK(make_probe(address, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
}

static void call_one(void)
{
	hits = 0;
	CHECK_EQ(t_push_push(5, 7), 19);
	CHECK_EQ(hits, 1);
}

static void end(void)
{
	unlink(path_of(MAP));
	unlink(path_of(DUMP));
	unlink(PRECIOUS);
}

static void make_precious(void)
{
	int fd = open(PRECIOUS, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	REQUIRE(fd >= 0 && write(fd, "precious", 8) == 8 && close(fd) == 0);
}

static const char *precious_path(void)
{
	static char path[4096];

	REQUIRE(realpath(PRECIOUS, path) != NULL);
	return path;
}

static void none_without_option(void *argument)
{
	(void)argument;
	REQUIRE_OK(start(false, false));
	patch_one("t_push_push");
	call_one();
	CHECK_EQ(size_of(path_of(MAP)), -1);
	CHECK_EQ(size_of(path_of(DUMP)), -1);
	CHECK_OK(patch_fini());
}

static void both(void *argument)
{
	long map, dump;

	(void)argument;
	REQUIRE_OK(start(true, true));
	patch_one("t_push_push");
	call_one();
	map = size_of(path_of(MAP));
	dump = size_of(path_of(DUMP));
	CHECK(map > 0 && dump > 0);
	patch_one("t_recurse");
	CHECK(size_of(path_of(MAP)) > map && size_of(path_of(DUMP)) > dump);
	CHECK_OK(patch_fini());
	CHECK(size_of(path_of(MAP)) > map);
	end();
}

/* Nothing is patched, and it may be asked for without the option. */
static void check_refused(bool map, bool dump)
{
	CHECK_STATUS(start(map, dump), PATCH_ESYS);
	REQUIRE_OK(start(false, false));
	patch_one("t_push_push");
	call_one();
	CHECK_OK(patch_fini());
}

static void links(void *argument)
{
	const char *pattern = argument;

	make_precious();
	REQUIRE(symlink(precious_path(), path_of(pattern)) == 0);
	check_refused(strcmp(pattern, MAP) == 0, strcmp(pattern, DUMP) == 0);
	CHECK_EQ(size_of(PRECIOUS), 8);
	end();
}

static void hard_links(void *argument)
{
	const char *pattern = argument, *here = path_of("/tmp/libpatch-precious-%d");
	int fd = open(here, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	REQUIRE(fd >= 0 && write(fd, "precious", 8) == 8 && close(fd) == 0);
	REQUIRE(link(here, path_of(pattern)) == 0);
	check_refused(strcmp(pattern, MAP) == 0, strcmp(pattern, DUMP) == 0);
	CHECK_EQ(size_of(path_of(pattern)), 8);
	unlink(path_of("/tmp/libpatch-precious-%d"));
	end();
}

/* A compiler in the program may have a map already. */
static void map_of_compiler(void *argument)
{
	char text[8];
	int fd = open(path_of(MAP), O_RDWR | O_CREAT | O_TRUNC, 0600);

	(void)argument;
	REQUIRE(fd >= 0 && write(fd, "1 2 jit\n", 8) == 8);
	REQUIRE_OK(start(true, false));
	patch_one("t_push_push");
	CHECK(size_of(path_of(MAP)) > 8);
	CHECK(pread(fd, text, 8, 0) == 8 && memcmp(text, "1 2 jit\n", 8) == 0);
	end();
}

static void replaced_later(void *argument)
{
	long size;

	(void)argument;
	REQUIRE_OK(start(true, true));
	make_precious();
	end();
	make_precious();
	REQUIRE(symlink(precious_path(), path_of(MAP)) == 0);
	size = open(path_of(DUMP), O_WRONLY | O_CREAT | O_EXCL, 0600);
	REQUIRE(size >= 0);
	patch_one("t_push_push");
	call_one();
	CHECK_EQ(size_of(PRECIOUS), 8);
	CHECK_EQ(size_of(path_of(DUMP)), 0);
	CHECK_OK(patch_fini());
	end();
}

/* Of `argument` bytes. */
static void limited(void *argument)
{
	const struct rlimit limit = { *(const rlim_t *)argument, RLIM_INFINITY };

	REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	if (limit.rlim_cur < 100)
		CHECK_STATUS(start(true, true), PATCH_ESYS);
	if (limit.rlim_cur < 100)
		REQUIRE_OK(start(false, false));
	else
		REQUIRE_OK(start(true, true));
	patch_one("t_push_push");
	call_one();
	CHECK(size_of(path_of(DUMP)) <= (long)limit.rlim_cur && size_of(path_of(MAP)) <= (long)limit.rlim_cur);
	CHECK_OK(patch_fini());
	end();
}

static void child_has_its_own(void *argument)
{
	long map, dump;
	int status;
	pid_t child;

	(void)argument;
	REQUIRE_OK(start(true, true));
	patch_one("t_push_push");
	map = size_of(path_of(MAP));
	dump = size_of(path_of(DUMP));
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		call_one();
		CHECK_EQ(size_of(path_of(MAP)), -1);
		CHECK_EQ(size_of(path_of(DUMP)), -1);
		patch_one("t_recurse");
		call_one();
		/* What it has inherited, and its own. */
		CHECK(size_of(path_of(MAP)) > map);
		CHECK(size_of(path_of(DUMP)) > 0);
		CHECK_OK(patch_fini());
		end();
		_exit(harness_failures != 0);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK_EQ(size_of(path_of(MAP)), map);
	CHECK_EQ(size_of(path_of(DUMP)), dump);
	patch_one("t_recurse");
	CHECK(size_of(path_of(MAP)) > map && size_of(path_of(DUMP)) > dump);
	CHECK_OK(patch_fini());
	end();
}

int main(void)
{
	static const rlim_t limits[] = { 0, 10, 1000, 20000 };

	harness_start();
	harness_isolated("none", none_without_option, NULL);
	harness_isolated("both", both, NULL);
	harness_isolated("map is a link", links, MAP);
	harness_isolated("dump is a link", links, DUMP);
	harness_isolated("map has another name", hard_links, MAP);
	harness_isolated("dump has another name", hard_links, DUMP);
	harness_isolated("map of a compiler", map_of_compiler, NULL);
	harness_isolated("replaced", replaced_later, NULL);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		harness_isolated("limit", limited, (void *)&limits[i]);
	harness_isolated("child", child_has_its_own, NULL);
	return harness_end();
}
