/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One probe alone, at each instruction of each target, under each trap policy. The call has to return what the model
 * says with every register as single-stepped; the probe has to be called as often as the instruction was stepped,
 * with the registers, flags, stack pointer and program counter of that step. Removed, every byte is back.
 */
#include "targets.h"

static struct machine machine;

struct counts {
	unsigned int sites, forbid_refused, forbid_made;
};

static struct counts *counts;

static void run_inputs(struct recorder *recorder, size_t t, bool enabled)
{
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		recorder_reset(recorder, &machine.trace[t][i]);
		machine_run(&machine, t, i);
		if (enabled)
			recorder_check(recorder, i);
		else
			CHECK_EQ(recorder->hits, 0);
	}
}

static void probe_site(size_t t, uintptr_t address, int policy, uint64_t clobber)
{
	const struct target *target = &targets[t];
	struct text_copy before = text_of_target(target);
	struct recorder recorder;
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, recorder_procedure, &recorder);
	patch_attr attr = attr_of(policy, PATCH_DISABLED);
	struct patch_info info;
	patch_t patch = NULL;
	patch_status status;
	bool jump_only = false;
	uint8_t first;

	CONTEXT("%s+%#zx, %s, clobber %#llx", target->name, (size_t)(address - target_start(target)),
		policy_name(policy), (unsigned long long)clobber);
	recorder_init(&recorder, target, address);
	model.probe.clobber_registers = clobber;
	status = patch_make(&location, &model, &attr, &patch, NULL);
	CHECK_OK(patch_attr_fini(&attr));
	if (policy == PATCH_TRAP_POLICY_FORBID && status != PATCH_OK) {
		counts->forbid_refused++;
		if (status != PATCH_ENOJUMP && status != PATCH_ENOMEM && status != PATCH_ERELOCATE &&
		    status != PATCH_ENOTSUP)
			FAIL("refused with %d: %s", (int)status, patch_status_string(status));
		CHECK_TEXT_SAME(&before);
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&before);
		/* A refusal leaves nothing behind: the same site under another policy. */
		attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED);
		status = patch_make(&location, &model, &attr, &patch, NULL);
	} else if (policy == PATCH_TRAP_POLICY_FORBID) {
		counts->forbid_made++;
		jump_only = true;
	}
	if (status != PATCH_OK) {
		FAIL("patch_make: %s; %s", patch_status_string(status), harness_last_error());
		return;
	}
	CHECK_TEXT_SAME(&before);
	run_inputs(&recorder, t, false);
	for (int round = 0; round < 2; round++) {
		CHECK_OK(patch_enable(patch));
		CHECK_TEXT_SAME(&before);
		CHECK_OK(patch_commit());
		CHECK(!text_is_same(&before));
		memset(&info, 0xee, sizeof(info));
		CHECK_OK(patch_info(patch, &info, sizeof(info)));
		first = *(const uint8_t *)info.lower;
		if (policy == PATCH_TRAP_POLICY_FORCE)
			CHECK_EQ(first, 0xcc);
		else if (jump_only)
			CHECK_EQ(first, 0xe9);
		else
			CHECK(first == 0xe9 || first == 0xcc);
		CHECK_EQ(info.address, address);
		CHECK_EQ(info.state, PATCH_ENABLED);
		CHECK(info.lower <= recorder.hook && recorder.hook < info.upper);
		CHECK_EQ(info.strategy == PATCH_STRATEGY_TRAP, first == 0xcc);
		run_inputs(&recorder, t, true);
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&before);
		run_inputs(&recorder, t, false);
	}
	/* unmake while enabled */
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	run_inputs(&recorder, t, true);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	run_inputs(&recorder, t, false);
}

struct job {
	size_t target;
	int policy;
	uint64_t clobber;
};

static void probe_target(void *argument)
{
	const struct job *job = argument;
	const struct target *target = &targets[job->target];
	struct instructions list = target_decode(target);
	struct text_copy before = text_of_target(target);

	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n++) {
		probe_site(job->target, list.address[n], job->policy, job->clobber);
		counts->sites++;
	}
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

int main(int argc, char **argv)
{
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };

	harness_start();
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(counts != MAP_FAILED);
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		if (!target_runs_here(&targets[t]) || (argc > 1 && strcmp(argv[1], targets[t].name)))
			continue;
		for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
			for (int gp_only = 0; gp_only < 2; gp_only++) {
				struct job job = { t, policies[p], gp_only ? PATCH_REGS_GP_ONLY : PATCH_REGS_ALL };

				harness_isolated(targets[t].name, probe_target, &job);
			}
	}
	harness_say("%u probes, FORBID: %u made, %u refused\n", counts->sites, counts->forbid_made,
		    counts->forbid_refused);
	CHECK(counts->sites > 0);
	/* Most of these sites can carry a jump, awkward as they are. */
	if (argc == 1)
		CHECK(counts->forbid_made * 2 > counts->forbid_refused);
	return harness_end();
}
