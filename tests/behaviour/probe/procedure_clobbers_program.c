/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure that destroys everything the ABI and its masks let it destroy (general purpose registers, flags, 4 KiB
 * of stack; with all masks 0 and with PATCH_REGS_ALL also xmm/ymm/zmm/k, the x87 stack and MXCSR's status), at every
 * instruction of every target at once: the program notices nothing.
 */
#include "targets.h"

static struct machine machine;
static const uint64_t clobbers[] = { PATCH_REGS_NO_STATE, 0, PATCH_REGS_ALL };
static bool everything;
static unsigned int hits, entered_backwards, entered_misaligned;

static GP_ONLY void inner(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
	entered_backwards += (destroy_entry_flags & 0x400) != 0;
	entered_misaligned += !everything && (destroy_entry_rsp & 15) != 8;
	errno = 4711;
}

struct job {
	size_t target;
	uint64_t clobber;
};

static void destroy_target(void *argument)
{
	const struct job *job = argument;
	size_t t = job->target;
	struct instructions list = target_decode(&targets[t]);
	patch_t patch;

	destroy_inner = inner;
	everything = job->clobber != PATCH_REGS_NO_STATE;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n++) {
		struct patch_location location = location_at(list.address[n]);
		struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, destroy_general, NULL);
		patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);

		model.probe.read_registers = 0;
		model.probe.clobber_registers = job->clobber;
		if (everything)
			model.probe.procedure = __builtin_cpu_supports("avx512bw") ? destroy_avx512 :
						__builtin_cpu_supports("avx")	   ? destroy_avx :
										     destroy_sse;
		if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK)
			FAIL("+%#zx: %s", (size_t)(list.address[n] - list.address[0]), harness_last_error());
	}
	CHECK_OK(patch_commit());
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		unsigned int wanted = 0;

		for (unsigned int n = 0; n < list.count; n++)
			wanted += machine_count(&machine.trace[t][i],
						list.address[n] + (target_has_endbr(list.address[n]) ? 4 : 0));
		hits = 0;
		errno = 99;
		machine_run(&machine, t, i);
		CHECK_EQ(errno, 99);
		CHECK_EQ(hits, wanted);
		CHECK_EQ(entered_backwards, 0);
		CHECK_EQ(entered_misaligned, 0);
	}
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	unsigned int ran = 0;

	harness_start();
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++)
		for (size_t c = 0; c < sizeof(clobbers) / sizeof(clobbers[0]); c++) {
			struct job job = { t, clobbers[c] };
			char what[128];

			if (!target_runs_here(&targets[t]) || (argc > 1 && strcmp(argv[1], targets[t].name)))
				continue;
			snprintf(what, sizeof(what), "%s, clobber %#llx", targets[t].name,
				 (unsigned long long)clobbers[c]);
			harness_isolated(what, destroy_target, &job);
			ran++;
		}
	CHECK(ran > 0);
	return harness_end();
}
