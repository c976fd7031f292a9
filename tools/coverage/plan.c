/* SPDX-License-Identifier: MIT */
/*
 * Planning, in processes forked for the purpose before libpatch is initialised: a patch leaves its window behind even
 * when it is unmade, for threads that might still come there, and the next one at a neighbouring instruction would join
 * it.
 */
#define _GNU_SOURCE
#include "coverage.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpatch/patch.h>

/* Sites of one process: what it plans stays in memory until it ends, and makes looking things up slower. */
#define CHUNK (size_t)8000
/* Sites between two looks at the clock. */
#define BATCH (size_t)256

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* Reasons are told apart by their words. The processes share one table. */
static uint8_t reason_index(struct shared *shared)
{
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
	struct coverage *coverage;
	struct patch_exec_model model;
	patch_attr attr;
};

static void planner_init(struct planner *planner, struct coverage *coverage, enum policy policy)
{
	if (patch_init(NULL, 0) != PATCH_OK) {
		struct patch_error error;

		patch_last_error(&error);
		coverage_complain("patch_init()", error.message);
		_exit(1);
	}
	planner->coverage = coverage;
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
	*result = (struct result){REFUSED, 0, reason_index(planner->coverage->shared)};
	return false;
}

static struct result look_at(patch_t patch)
{
	static const uint8_t outcomes[] = {
		[PATCH_STRATEGY_JUMP] = JUMP,
		[PATCH_STRATEGY_CONSTRAINED_JUMP] = CONSTRAINED_JUMP,
		[PATCH_STRATEGY_TRAP] = TRAP,
		[PATCH_STRATEGY_PUNNED_JUMP] = PUNNED_JUMP,
	};
	struct result result = {UNKNOWN, 0, 0};
	struct patch_info info;

	if (patch_info(patch, &info, sizeof(info)) == PATCH_OK && (size_t)info.strategy < sizeof(outcomes)) {
		result.outcome = outcomes[info.strategy];
		result.length = (uint8_t)(info.upper - info.lower);
	}
	return result;
}

/* ---- tasks: what one process plans ------------------------------------------------------------------------------- */

struct task {
	struct coverage *coverage;
	enum policy policy;
	const uint32_t *sites; /* indices */
	size_t count;
	bool at_once;
	enum group group; /* at_once */
};

static void plan_batch(const struct planner *planner, enum policy policy, const uint32_t *indices, size_t count)
{
	struct coverage *coverage = planner->coverage;
	struct result *results = coverage->results[policy];
	const struct site *sites = coverage->sites;
	patch_t patches[BATCH];
	uint64_t start = now_ns();

	for (size_t i = 0; i < count; i++)
		make(planner, sites[indices[i]].address, &patches[i], &results[indices[i]]);
	__atomic_fetch_add(&coverage->shared->ns[policy], now_ns() - start, __ATOMIC_RELAXED);
	__atomic_fetch_add(&coverage->shared->made[policy], count, __ATOMIC_RELAXED);
	for (size_t i = 0; i < count; i++)
		if (patches[i])
			results[indices[i]] = look_at(patches[i]);
}

static void plan_alone(const struct task *task)
{
	struct planner planner;

	planner_init(&planner, task->coverage, task->policy);
	for (size_t done = 0; done < task->count; done += BATCH)
		plan_batch(&planner, task->policy, task->sites + done,
			   task->count - done < BATCH ? task->count - done : BATCH);
}

static struct memory memory_since(const struct module *module, const struct memory *before)
{
	struct memory now;

	coverage_memory(module, &now);
	return (struct memory){now.mappings - before->mappings, now.generated - before->generated,
			       now.heap - before->heap, now.copied - before->copied};
}

static void commit(patch_t *patches, size_t count, struct at_once *out)
{
	uint64_t start = now_ns();

	for (size_t i = 0; i < count; i++)
		patch_enable(patches[i]);
	out->committed = patch_commit() == PATCH_OK;
	out->commit_ns = now_ns() - start;
}

static void plan_at_once(const struct task *task)
{
	struct coverage *coverage = task->coverage;
	struct at_once *out = &coverage->shared->at_once[task->group][task->policy];
	struct patch_statistics statistics;
	struct planner planner;
	struct memory before;
	struct result result;
	size_t made = 0;
	uint64_t start;
	patch_t *patches = calloc(coverage->site_count + 1, sizeof(*patches));

	if (!patches)
		_exit(1);
	/* Its pages are not to be counted. */
	memset(patches, 0xff, (coverage->site_count + 1) * sizeof(*patches));
	planner_init(&planner, coverage, task->policy);
	coverage_memory(coverage->module, &before);
	start = now_ns();
	for (size_t i = 0; i < coverage->site_count; i++) {
		const struct site *site = &coverage->sites[i];

		if (task->group == ENTRIES ? !site->is_entry : !site->is_sampled)
			continue;
		if (make(&planner, site->address, &patches[made], &result))
			made++;
		else
			out->outcomes[REFUSED]++;
	}
	out->ns = now_ns() - start;
	patch_statistics(&statistics, sizeof(statistics));
	for (size_t i = 0; i < made; i++)
		out->outcomes[look_at(patches[i]).outcome]++;
	out->arenas = statistics.arenas;
	out->code_bytes = statistics.code_bytes;
	out->planned = memory_since(coverage->module, &before);
	if (coverage->commit) {
		commit(patches, made, out);
		out->patched = memory_since(coverage->module, &before);
	}
	out->complete = true;
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

static size_t running;

static void reap(struct coverage *coverage)
{
	int status;

	if (wait(&status) < 0) {
		running = 0;
		return;
	}
	running--;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	coverage->deaths++;
	if (WIFSIGNALED(status))
		coverage_complain("a process that planned died", strsignal(WTERMSIG(status)));
}

static void start(const struct task *task)
{
	pid_t child;

	while (running >= task->coverage->jobs)
		reap(task->coverage);
	child = fork();
	if (child == 0) {
		if (task->at_once)
			plan_at_once(task);
		else
			plan_alone(task);
		_exit(0);
	}
	if (child > 0) {
		running++;
		return;
	}
	task->coverage->deaths++;
	coverage_complain("fork()", strerror(errno));
}

static void wait_for_all(struct coverage *coverage)
{
	while (running)
		reap(coverage);
}

/* The sites of each pass, in chunks. `passes`: where each begins in order[]. */
static void start_passes(struct coverage *coverage, enum policy policy, const uint32_t *order, const size_t *passes)
{
	for (size_t pass = 0; pass < PASSES_MAX; pass++)
		for (size_t first = passes[pass]; first < passes[pass + 1]; first += CHUNK) {
			size_t left = passes[pass + 1] - first;

			start(&(struct task){.coverage = coverage,
					     .policy = policy,
					     .sites = order + first,
					     .count = left < CHUNK ? left : CHUNK});
		}
}

/*
 * FORBID takes the same jump as ALLOW where there is one: it only looks further where there is none. Those need not be
 * tried again.
 */
static bool is_settled(struct coverage *coverage, size_t site)
{
	const struct result *allowed = &coverage->results[ALLOW][site];

	if (coverage->both || !is_jump(allowed->outcome))
		return false;
	coverage->results[FORBID][site] = *allowed;
	return true;
}

/* In place: nobody needs the order after this. */
static void drop_settled(struct coverage *coverage)
{
	uint32_t *order = coverage->order;
	size_t kept = 0, first = 0;

	for (size_t pass = 0; pass < PASSES_MAX; pass++) {
		size_t end = coverage->passes[pass + 1];

		coverage->passes[pass] = kept;
		for (; first < end; first++)
			if (!is_settled(coverage, order[first]))
				order[kept++] = order[first];
	}
	coverage->passes[PASSES_MAX] = kept;
}

bool coverage_at_once(const struct coverage *coverage, enum group group)
{
	if (group == ENTRIES)
		return true;
	return coverage->every == 1 && coverage->instruction_count <= coverage->limit;
}

void coverage_plan(struct coverage *coverage)
{
	fflush(stdout);
	for (enum group group = 0; group < GROUPS; group++)
		for (enum policy policy = 0; policy < POLICIES; policy++)
			if (coverage_at_once(coverage, group))
				start(&(struct task){
					.coverage = coverage, .policy = policy, .at_once = true, .group = group});
	start_passes(coverage, ALLOW, coverage->order, coverage->passes);
	wait_for_all(coverage);
	drop_settled(coverage);
	start_passes(coverage, FORBID, coverage->order, coverage->passes);
	wait_for_all(coverage);
}
