/* SPDX-License-Identifier: MIT */
/*
 * The part of coverage (see coverage.c) that is loaded beside the code it examines.
 *
 * A patch leaves its window behind even when it is unmade, for threads that might still come there; the next one at a
 * neighbouring instruction would join it. Each site is to be planned as if it were alone: so sites are dealt into passes,
 * DISTANCE bytes apart, and every pass is made in processes that are forked before libpatch is initialised.
 */
#define _GNU_SOURCE
#include "coverage.h"
#include "output.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <Zydis/Zydis.h>
#include <libpatch/patch.h>

/* Farther than any window reaches from its site, either way: 4 + 19 bytes forwards. */
#define DISTANCE 48
#define PASSES_MAX 64
/* Sites of one process: what it plans stays in memory until it ends. */
#define CHUNK 100000
/* Sites between two looks at the clock. */
#define BATCH 256

static struct coverage coverage;

static void complain(const char *what, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "coverage: %s: %s\n", what, why);
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* ---- sites -------------------------------------------------------------------------------------------------------- */

static int compare_extents(const void *a, const void *b)
{
	const struct extent *left = a, *right = b;

	return left->lower < right->lower ? -1 : left->lower > right->lower;
}

/* The extents of the module alone, ascending, without those that begin twice. */
static void select_extents(void)
{
	struct functions *functions = &coverage.functions;
	size_t kept = 0;

	qsort(functions->extents, functions->extent_count, sizeof(*functions->extents), compare_extents);
	for (size_t i = 0; i < functions->extent_count; i++) {
		const struct extent extent = functions->extents[i];

		if (&functions->modules[extent.module] != coverage.module ||
		    (kept && functions->extents[kept - 1].lower == extent.lower))
			continue;
		functions->extents[kept++] = extent;
	}
	functions->extent_count = kept;
	coverage.function_count = kept;
}

static bool add_site(uintptr_t address, size_t extent, bool is_entry, bool is_sampled)
{
	static uintptr_t ends[PASSES_MAX];
	static size_t capacity;
	uint8_t pass = 0;

	if (coverage.site_count == capacity) {
		void *larger;

		capacity = capacity ? capacity * 2 : 4096;
		larger = reallocarray(coverage.sites, capacity, sizeof(*coverage.sites));
		if (!larger)
			return false;
		coverage.sites = larger;
	}
	while (pass < PASSES_MAX - 1 && address < ends[pass])
		pass++;
	ends[pass] = address + DISTANCE;
	coverage.sites[coverage.site_count++] = (struct site){address, (uint32_t)extent, pass, is_entry, is_sampled};
	return true;
}

static bool collect_sites(void)
{
	const struct functions *functions = &coverage.functions;
	uintptr_t last = 0;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (size_t i = 0; i < functions->extent_count; i++) {
		const struct extent *extent = &functions->extents[i];

		/* Extents may overlap: what was seen is not counted again, but the entry is one. */
		for (uintptr_t at = extent->lower; at < extent->upper;) {
			ZydisDecodedInstruction instruction;
			ZydisDecoderContext context;
			bool is_entry = at == extent->lower, is_sampled = false;

			if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, (const void *)at,
									extent->upper - at, &instruction))) {
				coverage.undecoded_bytes++;
				instruction.length = 1;
			} else if (at >= last) {
				is_sampled = coverage.every && coverage.instruction_count % coverage.every == 0;
				coverage.instruction_count++;
			}
			if ((is_entry || is_sampled) && !add_site(at, i, is_entry, is_sampled))
				return false;
			at += instruction.length;
			last = at > last ? at : last;
		}
	}
	return true;
}

/* ---- planning, in a process of its own ---------------------------------------------------------------------------- */

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* Reasons are told apart by their words. The processes share one table. */
static uint8_t reason_index(void)
{
	struct shared *shared = coverage.shared;
	char text[sizeof(shared->reasons[0].text)] = "unknown";
	struct patch_error error;
	uint32_t i;

	if (patch_last_error(&error) != PATCH_OK)
		snprintf(text, sizeof(text), "%s: %s", patch_status_string(error.code), error.message);
	while (__atomic_exchange_n(&shared->lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
	for (i = 0; i < shared->reason_count; i++)
		if (!strcmp(shared->reasons[i].text, text))
			break;
	if (i == REASONS_MAX)
		i--;
	else if (i == shared->reason_count)
		memcpy(shared->reasons[shared->reason_count++].text, text, sizeof(text));
	__atomic_store_n(&shared->lock, 0, __ATOMIC_RELEASE);
	return (uint8_t)i;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct planner {
	struct patch_exec_model model;
	patch_attr attr;
};

static void planner_init(struct planner *planner, enum policy policy)
{
	if (patch_init(NULL, 0) != PATCH_OK) {
		struct patch_error error;

		patch_last_error(&error);
		complain("patch_init()", error.message);
		_exit(1);
	}
	patch_attr_init(&planner->attr, sizeof(planner->attr));
	patch_attr_set_trap_policy(&planner->attr,
				   policy == ALLOW ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORBID);
	planner->model = (struct patch_exec_model){.type = PATCH_EXEC_MODEL_PROBE};
	planner->model.probe.procedure = procedure;
}

static bool make(const struct planner *planner, uintptr_t address, patch_t *patch, struct result *result)
{
	const struct patch_location location = {
		.type = PATCH_LOCATION_ADDRESS,
		.direction = PATCH_LOCATION_FORWARD,
		.algorithm = PATCH_LOCATION_FIRST,
		.address = address,
	};

	if (patch_make(&location, &planner->model, &planner->attr, patch, NULL) == PATCH_OK)
		return true;
	*patch = NULL;
	*result = (struct result){REFUSED, 0, reason_index()};
	return false;
}

static struct result look_at(patch_t patch)
{
	static const uint8_t outcomes[] = {
		[PATCH_STRATEGY_JUMP] = JUMP,
		[PATCH_STRATEGY_CONSTRAINED_JUMP] = CONSTRAINED_JUMP,
		[PATCH_STRATEGY_TRAP] = TRAP,
		[PATCH_STRATEGY_PUNNED_JUMP] = CONSTRAINED_JUMP,
	};
	struct result result = {UNKNOWN, 0, 0};
	struct patch_info info;

	if (patch_info(patch, &info) == PATCH_OK && (size_t)info.strategy < sizeof(outcomes)) {
		result.outcome = outcomes[info.strategy];
		result.length = (uint8_t)(info.upper - info.lower);
	}
	return result;
}

struct task {
	enum policy policy;
	bool at_once;
	uint8_t pass;
	size_t first; /* index of a site */
	size_t end;
};

static void plan_batch(const struct planner *planner, enum policy policy, const size_t *indices, size_t count)
{
	struct result *results = coverage.results[policy];
	patch_t patches[BATCH];
	uint64_t start = now_ns();

	for (size_t i = 0; i < count; i++)
		make(planner, coverage.sites[indices[i]].address, &patches[i], &results[indices[i]]);
	__atomic_fetch_add(&coverage.shared->ns[policy], now_ns() - start, __ATOMIC_RELAXED);
	__atomic_fetch_add(&coverage.shared->made[policy], count, __ATOMIC_RELAXED);
	for (size_t i = 0; i < count; i++) {
		if (!patches[i])
			continue;
		results[indices[i]] = look_at(patches[i]);
		patch_unmake(patches[i]);
	}
}

static void plan_alone(const struct task *task)
{
	struct planner planner;
	size_t indices[BATCH], count = 0;

	planner_init(&planner, task->policy);
	for (size_t i = task->first; i < task->end; i++) {
		if (coverage.sites[i].pass != task->pass)
			continue;
		indices[count++] = i;
		if (count == BATCH) {
			plan_batch(&planner, task->policy, indices, count);
			count = 0;
		}
	}
	plan_batch(&planner, task->policy, indices, count);
}

static uint64_t count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t lines = 0;
	int letter;

	if (!maps)
		return 0;
	while ((letter = getc(maps)) != EOF)
		lines += letter == '\n';
	fclose(maps);
	return lines;
}

static void plan_at_once(enum policy policy)
{
	struct shared *shared = coverage.shared;
	patch_t *patches = calloc(coverage.function_count + 1, sizeof(*patches));
	uint64_t mappings = count_mappings(), start;
	struct patch_statistics before, after;
	struct planner planner;
	struct result result;
	size_t made = 0;

	if (!patches)
		_exit(1);
	planner_init(&planner, policy);
	patch_statistics(&before);
	start = now_ns();
	for (size_t i = 0; i < coverage.function_count; i++)
		if (make(&planner, coverage.functions.extents[i].lower, &patches[made], &result))
			made++;
		else
			shared->at_once[policy].outcomes[REFUSED]++;
	shared->at_once[policy].ns = now_ns() - start;
	patch_statistics(&after);
	for (size_t i = 0; i < made; i++)
		shared->at_once[policy].outcomes[look_at(patches[i]).outcome]++;
	shared->at_once[policy].arenas = after.arenas - before.arenas;
	shared->at_once[policy].code_bytes = after.code_bytes - before.code_bytes;
	shared->at_once[policy].mappings = count_mappings() - mappings;
	shared->at_once[policy].complete = true;
}

/* ---- processes ---------------------------------------------------------------------------------------------------- */

static void reap(size_t *running)
{
	int status;

	if (wait(&status) < 0) {
		*running = 0;
		return;
	}
	(*running)--;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	coverage.deaths++;
	if (WIFSIGNALED(status))
		complain("a process that planned died", strsignal(WTERMSIG(status)));
}

static void start(const struct task *task, size_t jobs, size_t *running)
{
	pid_t child;

	while (*running >= jobs)
		reap(running);
	child = fork();
	if (child == 0) {
		if (task->at_once)
			plan_at_once(task->policy);
		else
			plan_alone(task);
		_exit(0);
	}
	if (child > 0) {
		(*running)++;
		return;
	}
	coverage.deaths++;
	complain("fork()", strerror(errno));
}

/* The sites of each pass, in chunks. */
static void start_passes(enum policy policy, size_t jobs, size_t *running)
{
	for (uint8_t pass = 0; pass < PASSES_MAX; pass++) {
		struct task task = {.policy = policy, .pass = pass};
		size_t count = 0;

		for (size_t i = 0; i < coverage.site_count; i++) {
			count += coverage.sites[i].pass == pass;
			if (count < CHUNK)
				continue;
			task.end = i + 1;
			start(&task, jobs, running);
			task.first = task.end;
			count = 0;
		}
		task.end = coverage.site_count;
		if (count)
			start(&task, jobs, running);
	}
}

static void plan_all(size_t jobs)
{
	size_t running = 0;

	fflush(stdout);
	for (enum policy policy = 0; policy < POLICIES; policy++) {
		start(&(struct task){.policy = policy, .at_once = true}, jobs, &running);
		start_passes(policy, jobs, &running);
	}
	while (running)
		reap(&running);
}

/* ---- which module ------------------------------------------------------------------------------------------------- */

/* Load `file` and collect the functions of that module alone; of the program, if file is empty. */
static bool choose_module(const char *file)
{
	struct functions *functions = &coverage.functions;
	struct link_map *map = NULL;
	void *handle = dlopen(file[0] ? file : NULL, RTLD_LAZY | RTLD_LOCAL);

	if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map)) {
		complain(file, dlerror());
		return false;
	}
	coverage.is_program = !file[0];
	if (!functions_collect(coverage.is_program ? "main" : "*", functions)) {
		complain(file, "out of memory");
		return false;
	}
	for (size_t i = 0; i < functions->module_count; i++)
		if (functions->modules[i].base == map->l_addr)
			coverage.module = &functions->modules[i];
	if (!coverage.module)
		complain(file, "the dynamic linker does not list it");
	return coverage.module != NULL;
}

static unsigned long number(const char *name)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 10) : 0;
}

static bool prepare(void)
{
	coverage.every = number(COVERAGE_EVERY);
	coverage.table = number(COVERAGE_TABLE) != 0;
	select_extents();
	coverage.shared = shared_memory(sizeof(*coverage.shared));
	if (!collect_sites() || !coverage.shared)
		return false;
	for (int policy = 0; policy < POLICIES; policy++) {
		coverage.results[policy] = shared_memory(coverage.site_count * sizeof(struct result));
		if (!coverage.results[policy])
			return false;
	}
	return true;
}

static __attribute__((constructor)) void run(void)
{
	const char *file = getenv(COVERAGE_FILE);
	size_t jobs = number(COVERAGE_JOBS);

	if (!file)
		return;
	if (!choose_module(file))
		_exit(COVERAGE_FAILED);
	if (!prepare()) {
		complain(coverage.module->path, "out of memory");
		_exit(COVERAGE_FAILED);
	}
	plan_all(jobs ? jobs : 1);
	coverage_report(&coverage);
	fflush(stdout);
	_exit(coverage.deaths ? COVERAGE_INCOMPLETE : COVERAGE_DONE);
}
