/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several probes at one address: all are called, once each; each can be toggled and released alone. */
#include "targets.h"

#define PROBES 5

static struct machine machine;
static struct recorder recorders[PROBES];

static void run_all(size_t t, const bool *enabled)
{
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		for (unsigned int p = 0; p < PROBES; p++)
			recorder_reset(&recorders[p], &machine.trace[t][i]);
		machine_run(&machine, t, i);
		for (unsigned int p = 0; p < PROBES; p++) {
			if (enabled[p])
				recorder_check(&recorders[p], i);
			else
				CHECK_EQ(recorders[p].hits, 0);
		}
	}
}

static void share_site(size_t t, uintptr_t address)
{
	const struct target *target = &targets[t];
	struct text_copy before = text_of_target(target);
	bool enabled[PROBES] = { false };
	patch_t patches[PROBES];

	CONTEXT("%s+%#zx", target->name, (size_t)(address - target_start(target)));
	for (unsigned int p = 0; p < PROBES; p++) {
		recorder_init(&recorders[p], target, address);
		if (make_probe(address, recorder_procedure, &recorders[p], PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
			       &patches[p]) != PATCH_OK) {
			FAIL("probe %u: %s", p, harness_last_error());
			return;
		}
		for (unsigned int q = 0; q < p; q++)
			CHECK(patches[p] != patches[q]);
	}
	/* every subset, one commit for each change */
	for (unsigned int subset = 1; subset < 1u << PROBES; subset += subset < 4 ? 1 : 3) {
		for (unsigned int p = 0; p < PROBES; p++) {
			if (enabled[p] == (subset >> p & 1))
				continue;
			enabled[p] = subset >> p & 1;
			CHECK_OK(enabled[p] ? patch_enable(patches[p]) : patch_disable(patches[p]));
		}
		CHECK_OK(patch_commit());
		run_all(t, enabled);
	}
	for (unsigned int p = 0; p < PROBES; p++) {
		CHECK_OK(patch_enable(patches[p]));
		enabled[p] = true;
	}
	CHECK_OK(patch_commit());
	run_all(t, enabled);
	for (unsigned int p = 0; p < PROBES; p++) {
		CHECK_OK(patch_unmake(patches[p]));
		CHECK_OK(patch_commit());
		enabled[p] = false;
		run_all(t, enabled);
	}
	CHECK_TEXT_SAME(&before);
}

static void share_target(void *argument)
{
	size_t t = *(const size_t *)argument;
	struct instructions list = target_decode(&targets[t]);

	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n += 2)
		share_site(t, list.address[n]);
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	unsigned int ran = 0;

	harness_start();
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++)
		if (target_runs_here(&targets[t]) && (argc <= 1 || !strcmp(argv[1], targets[t].name))) {
			harness_isolated(targets[t].name, share_target, &t);
			ran++;
		}
	CHECK(ran > 0);
	return harness_end();
}
