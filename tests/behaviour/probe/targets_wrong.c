/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The targets themselves: without libpatch each does what its model says, called plainly and single-stepped. */
#include "targets.h"

int main(void)
{
	struct machine machine;
	unsigned int steps = 0, ran = 0;

	harness_start();
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		if (!target_runs_here(&targets[t])) {
			harness_say("%s: not on this processor\n", targets[t].name);
			continue;
		}
		ran++;
		CHECK(target_decode(&targets[t]).count > 0);
		for (size_t i = 0; i < TARGET_INPUTS; i++) {
			uint64_t a = target_inputs[i][0], b = target_inputs[i][1];

			CONTEXT("%s, input %zu", targets[t].name, i);
			steps += machine.trace[t][i].count;
			machine_run(&machine, t, i);
			if (!(targets[t].flags & TARGET_VOID))
				CHECK_EQ(targets[t].function(a, b), targets[t].model(a, b));
		}
	}
	harness_say("%u targets, %u steps\n", ran, steps);
	CONTEXT("all of them");
	/* At least two steps each; processors may lack AVX2 and AVX-512, which one target each needs. */
	CHECK(ran + 2 >= TARGET_COUNT);
	CHECK(steps >= 2 * ran * TARGET_INPUTS);
	return harness_end();
}
