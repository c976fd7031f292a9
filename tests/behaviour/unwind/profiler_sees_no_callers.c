/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * perf names generated code where PATCH_OPT_PERF_MAP is set, and sees through it where PATCH_OPT_PERF_DUMP is: each
 * sample that was taken in what a patch calls, or in generated code, shows the callers of the probed function; of code
 * from several commits, and of what the child of a fork has inherited and makes.
 */
#include "targets.h"
#include "tool_output.h"

#include <glob.h>
#include <limits.h>

#define TEXT_SIZE (64 << 20)
#define ROLE "LIBPATCH_TEST_UNDER_PERF"
#define DATA "recorded"
#define INJECTED "injected"
#define SAMPLES 20 /* at least, of each process */

/* ---- the program under perf -------------------------------------------------------------------------------------- */

static NOINLINE void burn(void)
{
	for (volatile unsigned int i = 0; i < 400; i = i + 1)
		;
}

/* Else what is executed is generated code, most of all. */
static bool burns;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	if (burns)
		burn();
	__asm__ volatile("");
}

static NOINLINE uint64_t calls_target(uint64_t a, uint64_t b)
{
	uint64_t value = t_push_push(a, b);

	__asm__ volatile("" : "+r"(value));
	return value;
}

static void run(void)
{
	for (unsigned int i = 0; i < (burns ? 200000 : 2000000); i++)
		if (calls_target(5, 7) != 19)
			exit(1);
}

/* Other code in between, so that there is more than one piece of it. */
static void patch_others(const char *name)
{
	struct instructions list = target_decode(target_named(name));
	patch_t patch;

	for (unsigned int i = 0; i < list.count; i++)
		if (make_probe(list.address[i], procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch) !=
			    PATCH_OK ||
		    patch_commit() != PATCH_OK)
			exit(1);
}

static int program(const char *role)
{
	const struct patch_option options[] = {
		{ .type = PATCH_OPT_PERF_MAP, .perf_map = strstr(role, "map") != NULL },
		{ .type = PATCH_OPT_PERF_DUMP, .perf_dump = strstr(role, "dump") != NULL },
	};
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_RETURN, procedure, NULL);
	struct patch_location location = location_at((uintptr_t)t_push_push);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;
	int status = 0;
	pid_t child;

	burns = strstr(role, "burn") != NULL;
	if (patch_init(options, 2) != PATCH_OK)
		return 1;
	patch_others("t_call_twice");
	if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK || patch_commit() != PATCH_OK)
		return 1;
	patch_others("t_recurse");
	run();
	child = fork();
	if (child == 0) {
		patch_others("t_call_indirect");
		if (patch_unmake(patch) != PATCH_OK ||
		    make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			       &patch) != PATCH_OK ||
		    patch_commit() != PATCH_OK)
			_exit(1);
		run();
		_exit(patch_fini() == PATCH_OK ? 0 : 1);
	}
	printf("%d %d\n", (int)getpid(), (int)child);
	return child > 0 && waitpid(child, &status, 0) == child && status == 0 && patch_fini() == PATCH_OK ? 0 : 1;
}

/* ---- perf -------------------------------------------------------------------------------------------------------- */

static char *text;
static char self[PATH_MAX];

/* What it writes to its standard output is in `text`. */
static int perf(const char *const *arguments)
{
	return tool_output(arguments, false, text, TEXT_SIZE);
}

/* The processes that there were. */
static int pids[2];

static bool record(const char *role, const char *how)
{
	setenv(ROLE, role, 1);
	return perf((const char *const[]){ "perf", "record", "-q", "-k", "mono", "-e", "cpu-clock:u", "-c", "500000",
					   "--call-graph", how, "-o", DATA, self, NULL }) == 0 &&
	       sscanf(text, "%d %d", &pids[0], &pids[1]) == 2;
}

static void script(const char *data)
{
	REQUIRE(perf((const char *const[]){ "perf", "script", "-i", data, "-F", "pid,ip,sym", NULL }) == 0);
}

static void inject(void)
{
	REQUIRE(perf((const char *const[]){ "perf", "inject", "--jit", "-i", DATA, "-o", INJECTED, NULL }) == 0);
}

struct samples {
	unsigned int named, called, cut; /* with the name; of what the patch calls; of both, without callers */
};

/* What script() has left in `text`, of one process. */
static struct samples samples_of(int pid, const char *name, char *first_cut, size_t size)
{
	struct samples samples = { 0, 0, 0 };
	char *copy = strdup(text), *rest = copy, *sample;

	REQUIRE(copy != NULL);
	while ((sample = rest) != NULL && *sample != '\0') {
		rest = strstr(sample, "\n\n");
		if (rest != NULL) {
			*rest = '\0';
			rest += 2;
		}
		/* fork() is called from generated code, too. */
		if (atoi(sample) != pid || (strstr(sample, name) == NULL && strstr(sample, " burn") == NULL) ||
		    strstr(sample, "_fork") != NULL)
			continue;
		samples.named += strstr(sample, name) != NULL;
		samples.called += strstr(sample, " burn") != NULL;
		if (strstr(sample, " t_push_push") != NULL && strstr(sample, " calls_target") != NULL &&
		    strstr(sample, " main") != NULL)
			continue;
		if (samples.cut++ == 0)
			snprintf(first_cut, size, "%s", sample);
	}
	free(copy);
	return samples;
}

/*
 * Recorded without unwind tables: by them, perf 7 shows nothing of code that has none, as this has none without a dump.
 * Of the parent: where a child's code lies in memory that it has inherited, perf looks in its parent's map.
 */
static void check_named(const char *name)
{
	char sample[4096];
	struct samples samples = samples_of(pids[0], name, sample, sizeof(sample));

	CHECK_MSG(samples.named >= SAMPLES, "%u samples have %s", samples.named, name);
}

static void check_callers(void)
{
	char sample[4096] = "";

	for (int i = 0; i < 2; i++) {
		struct samples samples = samples_of(pids[i], "libpatch:generated code", sample, sizeof(sample));

		CHECK_MSG(samples.called >= SAMPLES && samples.named >= samples.called,
			  "process %d: %u samples are of what the patch calls, %u of generated code", i, samples.called,
			  samples.named);
		CHECK_MSG(samples.cut == 0, "process %d: %u of %u end there, as this one:\n%s", i, samples.cut,
			  samples.named, sample);
	}
}

/* perf makes a file of each piece of code beside the dump. */
static void remove_files(void)
{
	static const char *const patterns[] = { "/tmp/perf-%d.map", "/tmp/jit-%d.dump", "/tmp/jitted-%d-*.so" };

	for (unsigned int i = 0; i < 2 * sizeof(patterns) / sizeof(patterns[0]); i++) {
		char pattern[64];
		glob_t found;

		snprintf(pattern, sizeof(pattern), patterns[i / 2], pids[i % 2]);
		if (glob(pattern, 0, NULL, &found) != 0)
			continue;
		for (size_t n = 0; n < found.gl_pathc; n++)
			unlink(found.gl_pathv[n]);
		globfree(&found);
	}
}

static bool exists(const char *pattern, int pid)
{
	char path[64];

	snprintf(path, sizeof(path), pattern, pid);
	return access(path, F_OK) == 0;
}

static void without_option(void *argument)
{
	(void)argument;
	REQUIRE(record("none", "dwarf"));
	for (int i = 0; i < 2; i++)
		CHECK(!exists("/tmp/perf-%d.map", pids[i]) && !exists("/tmp/jit-%d.dump", pids[i]));
}

static void by_map(void *argument)
{
	(void)argument;
	REQUIRE(record("map", "fp"));
	script(DATA);
	check_named("libpatch:profiler_sees_no_callers+0x");
	CHECK(!exists("/tmp/jit-%d.dump", pids[0]));
	remove_files();
}

static void by_dump(void *argument)
{
	(void)argument;
	REQUIRE(record("dump burn", "dwarf"));
	inject();
	script(INJECTED);
	check_callers();
	CHECK(!exists("/tmp/perf-%d.map", pids[0]));
	remove_files();
}

static void by_both(void *argument)
{
	(void)argument;
	REQUIRE(record("map dump", "fp"));
	script(DATA);
	check_named("libpatch:profiler_sees_no_callers+0x");
	remove_files();
	REQUIRE(record("map dump burn", "dwarf"));
	inject();
	script(INJECTED);
	check_callers();
	remove_files();
}

/* perf has a cache in the home directory. */
static void remove_home(const char *home)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf %s", home);
	CHECK_EQ(system(command), 0);
}

int main(void)
{
	char home[] = "/tmp/libpatch-profiler-XXXXXX";
	const char *role = getenv(ROLE);

	if (role != NULL)
		return program(role);
	harness_start();
	self[readlink("/proc/self/exe", self, sizeof(self) - 1)] = '\0';
	text = malloc(TEXT_SIZE);
	REQUIRE(text != NULL && mkdtemp(home) != NULL && setenv("HOME", home, 1) == 0 && chdir(home) == 0);
	if (!record("none", "dwarf")) {
		remove_home(home);
		SKIP("perf is not there, or may not record");
	}
	harness_isolated("without", without_option, NULL);
	harness_isolated("map", by_map, NULL);
	harness_isolated("dump", by_dump, NULL);
	harness_isolated("both", by_both, NULL);
	remove_home(home);
	return harness_end();
}
