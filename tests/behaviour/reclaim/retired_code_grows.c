/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing the same few patches for ever: generated code that is kept because a thread might still be in it is bounded
 * by the number of distinct sites and of distinct sets of probes there (I7), not by the number of changes.
 */
#include "targets.h"

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static uint64_t code_bytes(void)
{
	struct patch_statistics statistics;

	memset(&statistics, 0, sizeof(statistics));
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.code_bytes + statistics.retired_bytes;
}

static void toggle(unsigned int round)
{
	static patch_t patch;

	if (round == 0)
		REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
				      &patch));
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
}

static void make_and_unmake(unsigned int round)
{
	patch_t patch;

	(void)round;
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	t_five_bytes(1, 2);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* Never committed: nobody can be in the code. */
static void make_only(unsigned int round)
{
	patch_t patch;

	(void)round;
	REQUIRE_OK(make_probe((uintptr_t)t_cmov, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &patch));
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* All subsets of four probes on the instructions of one window. */
static void subsets(unsigned int round)
{
	static patch_t patches[4];

	for (unsigned int p = 0; p < 4; p++) {
		if (round == 0)
			REQUIRE_OK(make_probe((uintptr_t)t_five_singles + p, procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
					      PATCH_DISABLED, &patches[p]));
		CHECK_OK((round * 7 + 1) >> p & 1 ? patch_enable(patches[p]) : patch_disable(patches[p]));
	}
	CHECK_OK(patch_commit());
	hits = 0;
	CHECK_EQ(t_five_singles(1, 2), 3);
	CHECK_EQ(hits, __builtin_popcount((round * 7 + 1) & 15));
}

/* Everything on a window unmade and made again, half of the time while enabled. */
static void neighbours_made_again(unsigned int round)
{
	static patch_t patches[4];

	for (unsigned int p = 0; p < 4; p++)
		if (round > 0)
			CHECK_OK(patch_unmake(patches[p]));
	if (round & 1)
		CHECK_OK(patch_commit());
	for (unsigned int p = 0; p < 4; p++)
		REQUIRE_OK(make_probe((uintptr_t)t_3_1_1 + (p < 1 ? 0 : p + 2), procedure, NULL,
				      PATCH_TRAP_POLICY_ALLOW, round & 2 ? PATCH_ENABLED : PATCH_DISABLED,
				      &patches[p]));
	CHECK_OK(patch_commit());
	t_3_1_1(1, 2);
}

static void repeat(const char *what, void (*change)(unsigned int round))
{
	uint64_t early = 0, late;

	CONTEXT("%s", what);
	for (unsigned int round = 0; round < 2000; round++) {
		change(round);
		if (round == 99)
			early = code_bytes();
	}
	late = code_bytes();
	if (late > early + 2048)
		FAIL("%s: %llu bytes of code after 100 changes, %llu after 2000", what, (unsigned long long)early,
		     (unsigned long long)late);
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	repeat("a patch toggled", toggle);
	repeat("a patch made and unmade, never committed", make_only);
	repeat("a patch made, enabled and unmade", make_and_unmake);
	repeat("subsets of four probes", subsets);
	repeat("probes on one window made and unmade", neighbours_made_again);
	CHECK_OK(patch_fini());
	return harness_end();
}
