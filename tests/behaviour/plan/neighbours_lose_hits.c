/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every instruction of a target patched at once, in ascending, descending and random order, in one batch or one by
 * one: each probe is called at its own step of the single-stepped trace, none is lost, none comes out of order.
 * Taking them out one by one, those that remain go on.
 */
#include "targets.h"

static struct machine machine;

enum order { ASCENDING, DESCENDING, RANDOM, ORDERS };

struct job {
	size_t target;
	int policy;
	enum order order;
	bool one_by_one;
};

static struct recorder recorders[TARGET_MAX_INSTRUCTIONS];
static bool present[TARGET_MAX_INSTRUCTIONS];
static patch_t patches[TARGET_MAX_INSTRUCTIONS];

/* Shared with the children, in which the probes are made. */
static struct {
	unsigned int refused; /* all of them under FORBID */
	unsigned int made[PATCH_TRAP_POLICY_FORCE + 1];
} *counts;

/* The steps as the procedures saw them, over all probes of the target. */
static struct {
	unsigned int count;
	uintptr_t address[MACHINE_MAX_STEPS + 64];
} seen;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	recorder_procedure(context, post);
	if (seen.count < MACHINE_MAX_STEPS + 64)
		seen.address[seen.count++] = context->program_counter;
}

static void run_all(const struct instructions *list, size_t t)
{
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		const struct machine_trace *trace = &machine.trace[t][i];
		unsigned int at = 0;

		for (unsigned int n = 0; n < list->count; n++)
			recorder_reset(&recorders[n], trace);
		seen.count = 0;
		machine_run(&machine, t, i);
		for (unsigned int n = 0; n < list->count; n++) {
			if (present[n])
				recorder_check(&recorders[n], i);
			else if (recorders[n].hits)
				FAIL("%u hits at a probe that was taken out", recorders[n].hits);
		}
		/* the same order as the steps; a probe at endbr64 comes right before the one behind it */
		for (unsigned int s = 0; s < trace->count; s++)
			for (unsigned int n = 0; n < list->count; n++) {
				if (!present[n] || recorders[n].leaves || recorders[n].hook != trace->step[s].rip)
					continue;
				while (at < seen.count && target_has_endbr(list->address[0]) &&
				       seen.address[at] == list->address[0] && list->address[n] != list->address[0])
					at++;
				if (at >= seen.count || seen.address[at] != recorders[n].address) {
					FAIL("input %zu, step %u: %#llx was called, wanted %#llx", i, s,
					     at < seen.count ? (unsigned long long)seen.address[at] : 0,
					     (unsigned long long)recorders[n].address);
					return;
				}
				at++;
			}
	}
}

static void make_one(const struct instructions *list, unsigned int n, const struct job *job)
{
	patch_status status = make_probe(list->address[n], procedure, &recorders[n], job->policy, PATCH_ENABLED,
					 &patches[n]);

	if (status != PATCH_OK) {
		if (job->policy != PATCH_TRAP_POLICY_FORBID)
			FAIL("+%#zx: patch_make: %s; %s", (size_t)(list->address[n] - list->address[0]),
			     patch_status_string(status), harness_last_error());
		counts->refused++;
		return;
	}
	counts->made[job->policy]++;
	present[n] = true;
}

static void probe_target(void *argument)
{
	const struct job *job = argument;
	const struct target *target = &targets[job->target];
	struct instructions list = target_decode(target);
	struct text_copy before = text_of_target(target);
	unsigned int order[TARGET_MAX_INSTRUCTIONS];
	unsigned int seed = 12345 + (unsigned int)job->target;

	for (unsigned int n = 0; n < list.count; n++)
		order[n] = job->order == DESCENDING ? list.count - 1 - n : n;
	for (unsigned int n = list.count; job->order == RANDOM && n > 1; n--) {
		unsigned int other = (unsigned int)rand_r(&seed) % n, kept = order[n - 1];

		order[n - 1] = order[other];
		order[other] = kept;
	}
	for (unsigned int n = 0; n < list.count; n++)
		recorder_init(&recorders[n], target, list.address[n]);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n++) {
		make_one(&list, order[n], job);
		if (job->one_by_one) {
			CHECK_OK(patch_commit());
			run_all(&list, job->target);
		}
	}
	CHECK_OK(patch_commit());
	run_all(&list, job->target);
	/* out again, in the order they came */
	for (unsigned int n = 0; n < list.count; n++) {
		if (!present[order[n]])
			continue;
		present[order[n]] = false;
		CHECK_OK(n % 2 ? patch_unmake(patches[order[n]]) : patch_disable(patches[order[n]]));
		if (job->one_by_one) {
			CHECK_OK(patch_commit());
			run_all(&list, job->target);
		}
	}
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	run_all(&list, job->target);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

int main(int argc, char **argv)
{
	static const char *const order_name[] = { "ascending", "descending", "random" };

	harness_start();
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(counts != MAP_FAILED);
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		if (!target_runs_here(&targets[t]) || (argc > 1 && strcmp(argv[1], targets[t].name)))
			continue;
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
			for (int order = ASCENDING; order < ORDERS; order++)
				for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
					struct job job = { t, policy, (enum order)order, one_by_one };
					char what[128];

					snprintf(what, sizeof(what), "%s, %s, %s%s", targets[t].name,
						 policy_name(policy), order_name[order],
						 one_by_one ? ", one by one" : "");
					harness_isolated(what, probe_target, &job);
				}
	}
	CONTEXT("all of them");
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
		CHECK(counts->made[policy] > 0);
	/*
	 * Where every instruction of a target is to have a jump, some have to do without; but the first can have one.
	 */
	harness_say("FORBID: %u made, %u refused\n", counts->made[PATCH_TRAP_POLICY_FORBID], counts->refused);
	return harness_end();
}
