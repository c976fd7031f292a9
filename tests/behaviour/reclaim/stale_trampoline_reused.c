/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches come and go at one site with other procedures and policies, so that trampolines kept from before are used
 * again, while the site's landing pad has meanwhile been led elsewhere, or the region turned from jump to trap and
 * back. The probe that is there is called, once, and none of those that were.
 */
#include "targets.h"

#define PROCEDURES 4
#define POLICIES 3
#define CHOICES (PROCEDURES * POLICIES)

static unsigned int hits[PROCEDURES];

#define PROCEDURE(n) \
	static void procedure_##n(struct patch_exec_context *context, uint8_t post) \
	{ \
		(void)context; \
		(void)post; \
		hits[n]++; \
	}
PROCEDURE(0)
PROCEDURE(1)
PROCEDURE(2)
PROCEDURE(3)

static const probe_procedure procedures[PROCEDURES] = { procedure_0, procedure_1, procedure_2, procedure_3 };

static const struct target *target;

/* One probe, there and gone again. False: refused, which FORBID may be. */
static bool come_and_go(int choice)
{
	int which = choice % PROCEDURES, policy = choice / PROCEDURES;
	patch_status status;
	patch_t patch;

	status = make_probe(target_start(target), procedures[which], NULL, policy, PATCH_ENABLED, &patch);
	if (status == PATCH_ENOJUMP && policy == PATCH_TRAP_POLICY_FORBID)
		return false;
	REQUIRE_OK(status);
	CHECK_OK(patch_commit());
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(target->function(1, 7), target->model(1, 7));
	for (int n = 0; n < PROCEDURES; n++)
		CHECK_EQ(hits[n], n == which);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(target->function(1, 7), target->model(1, 7));
	for (int n = 0; n < PROCEDURES; n++)
		CHECK_EQ(hits[n], 0);
	return true;
}

/* Every sequence of three, then the first once more. */
static void all_sequences(void *argument)
{
	struct text_copy before;
	unsigned int jumps = 0;

	target = argument;
	before = text_of_target(target);
	REQUIRE_OK(patch_init(NULL, 0));
	for (int n = 0; n < CHOICES * CHOICES * CHOICES && harness_failures == 0; n++) {
		int sequence[] = { n % CHOICES, n / CHOICES % CHOICES, n / CHOICES / CHOICES, n % CHOICES };

		for (int k = 0; k < 4 && harness_failures == 0; k++) {
			CONTEXT("%s, sequence %d %d %d, step %d", target->name, sequence[0], sequence[1], sequence[2],
				k);
			jumps += come_and_go(sequence[k]) && sequence[k] / PROCEDURES == PATCH_TRAP_POLICY_FORBID;
		}
	}
	CONTEXT("%s", target->name);
	CHECK(jumps > 0);
	CHECK_TEXT_SAME(&before);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

int main(void)
{
	/* windows of several instructions, with a landing pad, and a plain jump without one */
	static const char *const names[] = { "t_2_2_1", "t_1_4", "t_4_1", "t_five_bytes" };

	harness_start();
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], all_sequences, (void *)target_named(names[n]));
	return harness_end();
}
