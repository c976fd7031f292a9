/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels and filters without membarrier(): patch_init() says which and why, and changes nothing. A filter that comes
 * later, between any two commits: they return PATCH_ESYS, every site works, threads run on. Memory refused:
 * PATCH_ENOMEM, nothing left behind, and what is there can still be used.
 */
#include "targets.h"

#include "seccomp.h"

#include <pthread.h>

static const char *const names[] = { "t_push_push",  "t_2_2_1",          "t_1_4",
				     "t_five_bytes", "t_loop_to_second", "t_call_last" };
#define FUNCTIONS (sizeof(names) / sizeof(names[0]))

static unsigned int hits[FUNCTIONS];
static unsigned int stop, wrong;
static uint64_t rounds;
static patch_t patches[FUNCTIONS];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	__atomic_fetch_add((unsigned int *)context->user_data, 1, __ATOMIC_RELAXED);
}

static bool call(size_t n)
{
	const struct target *target = target_named(names[n]);

	return target->function(5, 7) == target->model(5, 7);
}

static void *run(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		for (size_t n = 0; n < FUNCTIONS; n++)
			if (!call(n))
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void run_for_a_while(void)
{
	uint64_t until = __atomic_load_n(&rounds, __ATOMIC_RELAXED) + 200;

	while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) < until)
		sched_yield();
}

static void make_all(int state)
{
	for (size_t n = 0; n < FUNCTIONS; n++)
		REQUIRE_OK(make_probe(target_start(target_named(names[n])), procedure, &hits[n],
				      n % 3 == 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, state,
				      &patches[n]));
}

static void check_words(int code)
{
	struct patch_error error;

	CHECK_EQ(patch_last_error(&error), code);
	CHECK(error.origin && error.origin[0] && error.irritant && error.message && error.message[0]);
}

/* ---- refused from the beginning ---------------------------------------------------------------------------------- */

struct refusal {
	long number;
	int error;
	patch_status wanted;
	bool late; /* with another thread there */
};

static void *sleeps(void *argument)
{
	for (;;)
		pause();
	return argument;
}

static void refused_at_init(void *argument)
{
	const struct refusal *refusal = argument;
	struct text_copy before = text_of_target(target_named(names[0]));
	pthread_t thread;
	patch_t patch;

	if (refusal->late)
		REQUIRE(pthread_create(&thread, NULL, sleeps, NULL) == 0);
	refuse(refusal->number, refusal->error);
	for (int round = 0; round < 3; round++) {
		CHECK_STATUS(patch_init(NULL, 0), refusal->wanted);
		check_words(refusal->wanted);
		CHECK_STATUS(make_probe((uintptr_t)t_push_push, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW,
					PATCH_ENABLED, &patch),
			     PATCH_EINIT);
		CHECK_STATUS(patch_commit(), PATCH_EINIT);
	}
	CHECK(call(0));
	CHECK_TEXT_SAME(&before);
	CHECK_STATUS(patch_fini(), PATCH_EINIT);
}

/* ---- refused later ----------------------------------------------------------------------------------------------- */

/* Where the filter finds the patches. */
enum stage { MADE, ENABLED, DISABLED, STAGES };
static const char *const stage_name[] = { "membarrier refused before the first commit",
					  "membarrier refused when enabled", "membarrier refused when disabled again" };

static void refused_later(void *argument)
{
	enum stage stage = *(const enum stage *)argument;
	pthread_t threads[2];

	REQUIRE_OK(patch_init(NULL, 0));
	make_all(PATCH_DISABLED);
	for (int n = 0; n < 2; n++)
		REQUIRE(pthread_create(&threads[n], NULL, run, NULL) == 0);
	for (int pass = 0; pass < (int)stage; pass++) {
		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_OK(pass % 2 ? patch_disable(patches[n]) : patch_enable(patches[n]));
		CHECK_OK(patch_commit());
	}
	run_for_a_while();
	refuse(SYS_membarrier, EPERM);
	for (int round = 0; round < 20; round++) {
		bool enable = (round + (int)stage) % 2 == 0;

		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_OK(enable ? patch_enable(patches[n]) : patch_disable(patches[n]));
		CHECK_STATUS(patch_commit(), PATCH_ESYS);
		check_words(PATCH_ESYS);
		run_for_a_while();
		CHECK_EQ(wrong, 0);
	}
	/* asked for, not in effect as a jump: by trap it works, where it was never installed as well */
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK_OK(patch_enable(patches[n]));
	CHECK_STATUS(patch_commit(), PATCH_ESYS);
	for (size_t n = 0; n < FUNCTIONS; n++) {
		unsigned int before = __atomic_load_n(&hits[n], __ATOMIC_RELAXED);

		CHECK(call(n));
		CHECK(__atomic_load_n(&hits[n], __ATOMIC_RELAXED) > before);
	}
	CHECK_STATUS(patch_fini(), PATCH_ESYS);
	run_for_a_while();
	CHECK_STATUS(patch_fini(), PATCH_ESYS);
	run_for_a_while();
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int n = 0; n < 2; n++)
		pthread_join(threads[n], NULL);
	CHECK_EQ(wrong, 0);
}

/* ---- memory refused ---------------------------------------------------------------------------------------------- */

static void memory_at_init(void *argument)
{
	patch_status status;

	(void)argument;
	refuse(SYS_mmap, ENOMEM);
	status = patch_init(NULL, 0);
	if (status == PATCH_OK) {
		CHECK_OK(patch_fini());
		return;
	}
	CHECK(status == PATCH_ENOMEM || status == PATCH_ENOTSUP || status == PATCH_ESYS);
	check_words(status);
	CHECK(call(0));
}

/* Nothing was made before: what memory there is was made by patch_init() for itself, and soon ends. */
static void memory_at_first_make(void *argument)
{
	struct text_copy before = text_of_target(target_named(names[0]));
	struct patch_statistics statistics;
	unsigned int refused = 0, made = 0;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	refuse(SYS_mmap, ENOMEM);
	for (int round = 0; round < 10; round++) {
		for (size_t n = 0; n < FUNCTIONS; n++) {
			patch_status status = make_probe(target_start(target_named(names[n])), procedure, &hits[n],
							 (int)n % 3, PATCH_ENABLED, &patches[n]);

			made += status == PATCH_OK;
			if (status == PATCH_OK)
				continue;
			refused++;
			CHECK_EQ(status, PATCH_ENOMEM);
			check_words(PATCH_ENOMEM);
		}
		CHECK_OK(patch_commit());
	}
	/* jumps that need a pad have no memory at their few addresses */
	CHECK(refused > 0);
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, made);
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK(call(n));
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

/* Patches are there: they can be toggled; new ones until memory ends. */
static void memory_later(void *argument)
{
	struct text_copy before[FUNCTIONS];
	unsigned int made = 0, refused = 0, committed = 0;
	patch_t patch;

	(void)argument;
	for (size_t n = 0; n < FUNCTIONS; n++)
		before[n] = text_of_target(target_named(names[n]));
	REQUIRE_OK(patch_init(NULL, 0));
	make_all(PATCH_ENABLED);
	CHECK_OK(patch_commit());
	refuse(SYS_mmap, ENOMEM);
	for (unsigned int round = 0; round < 100000 && refused < 10; round++) {
		const struct target *target = target_named(names[round % FUNCTIONS]);
		patch_status status =
			make_probe(target_start(target), procedure, &hits[round % FUNCTIONS],
				   round % FUNCTIONS % 3 == 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW,
				   PATCH_DISABLED, &patch);

		made += status == PATCH_OK;
		refused += status != PATCH_OK;
		if (status != PATCH_OK) {
			CHECK_EQ(status, PATCH_ENOMEM);
			check_words(PATCH_ENOMEM);
		}
	}
	CHECK_EQ(refused, 10);
	for (int round = 0; round < 10; round++) {
		patch_status status;

		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_OK(round % 2 ? patch_enable(patches[n]) : patch_disable(patches[n]));
		status = patch_commit();
		if (status != PATCH_OK)
			CHECK_EQ(status, PATCH_ENOMEM);
		committed += status == PATCH_OK;
		memset(hits, 0, sizeof(hits));
		for (size_t n = 0; n < FUNCTIONS; n++) {
			CHECK(call(n));
			if (status == PATCH_OK)
				CHECK_EQ(hits[n] > 0, round % 2);
		}
	}
	/* What is there already is toggled without new memory. */
	CHECK(committed > 0);
	if (patch_fini() == PATCH_OK)
		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_TEXT_SAME(&before[n]);
	else
		check_words(PATCH_ENOMEM);
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK(call(n));
	harness_say("%u patches made without new memory\n", made);
}

int main(void)
{
	static const struct refusal refusals[] = {
		{ SYS_membarrier, ENOSYS, PATCH_ENOTSUP, false }, { SYS_membarrier, ENOSYS, PATCH_ENOTSUP, true },
		{ SYS_membarrier, EINVAL, PATCH_ENOTSUP, false }, { SYS_membarrier, EINVAL, PATCH_ENOTSUP, true },
		{ SYS_membarrier, EPERM, PATCH_ESYS, false },     { SYS_membarrier, EPERM, PATCH_ESYS, true },
	};

	harness_start();
	require_filters();
	for (size_t n = 0; n < sizeof(refusals) / sizeof(refusals[0]); n++)
		harness_isolated(strerror(refusals[n].error), refused_at_init, (void *)&refusals[n]);
	for (enum stage stage = 0; stage < STAGES; stage++)
		harness_isolated(stage_name[stage], refused_later, &stage);
	harness_isolated("memory refused before patch_init()", memory_at_init, NULL);
	harness_isolated("memory refused before the first patch", memory_at_first_make, NULL);
	harness_isolated("memory refused with patches there", memory_later, NULL);
	return harness_end();
}
