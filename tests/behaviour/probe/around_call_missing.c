/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_AROUND on every instruction of every target: either patch_make() refuses, or both calls come, as often as the
 * instruction is executed; the program counter of the second lies in the function, and the registers it sees are
 * those of the next step of the trace.
 */
#include "targets.h"

static struct machine machine;

static struct shared_counts {
	unsigned int made, refused, first_without_second;
} *counts;

static void around_site(size_t t, uintptr_t address)
{
	const struct target *target = &targets[t];
	struct text_copy before = text_of_target(target);
	struct recorder recorder;
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, recorder_procedure, &recorder);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;

	CONTEXT("%s+%#zx", target->name, (size_t)(address - target_start(target)));
	recorder_init(&recorder, target, address);
	if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK) {
		struct patch_error error;

		counts->refused++;
		CHECK(patch_last_error(&error) != PATCH_OK);
		CHECK(error.message && error.message[0]);
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&before);
		return;
	}
	counts->made++;
	CHECK_OK(patch_commit());
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		recorder_reset(&recorder, &machine.trace[t][i]);
		machine_run(&machine, t, i);
		recorder_check(&recorder, i);
		if (recorder.posts != recorder.hits)
			FAIL("input %zu: %u calls before, %u after", i, recorder.hits, recorder.posts);
	}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
}

static void around_target(void *argument)
{
	size_t t = *(const size_t *)argument;
	struct instructions list = target_decode(&targets[t]);

	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n++)
		around_site(t, list.address[n]);
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	harness_start();
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(counts != MAP_FAILED);
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++)
		if (target_runs_here(&targets[t]) && (argc <= 1 || !strcmp(argv[1], targets[t].name)))
			harness_isolated(targets[t].name, around_target, &t);
	harness_say("%u made, %u refused\n", counts->made, counts->refused);
	CHECK(counts->made > 0);
	/* Refusing everything is no answer: plain instructions, calls and loads can all be surrounded. */
	if (argc <= 1)
		CHECK(counts->made > 4 * counts->refused);
	return harness_end();
}
