/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Procedures that disable, enable, make, unmake and commit: their own patch, another one of the same region, all of
 * them; alone and in several threads at once. No call fails or hangs, and the state they ask for is the state there is.
 */
#include "targets.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 400

static struct machine_site {
	patch_t patch;
	unsigned int hits;
} own, neighbour, toggled;

static unsigned int failures;
static int line_of_failure;
static patch_status status_of_failure;

#define QUIET_OK(call) \
	do { \
		patch_status status_ = (call); \
		if (status_ != PATCH_OK && !__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED)) { \
			line_of_failure = __LINE__; \
			status_of_failure = status_; \
		} \
	} while (0)

static void disables_itself(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	own.hits++;
	QUIET_OK(patch_disable(own.patch));
	QUIET_OK(patch_commit());
}

static void unmakes_itself(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	own.hits++;
	QUIET_OK(patch_unmake(own.patch));
	QUIET_OK(patch_commit());
}

static void counts(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	__atomic_fetch_add(&((struct machine_site *)context->user_data)->hits, 1, __ATOMIC_RELAXED);
}

static void enables_neighbour(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	own.hits++;
	QUIET_OK(patch_enable(neighbour.patch));
	QUIET_OK(patch_commit());
}

static void makes_neighbour(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	own.hits++;
	if (!neighbour.patch) {
		QUIET_OK(make_probe((uintptr_t)context->program_counter + 1, counts, &neighbour,
				    PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &neighbour.patch));
		QUIET_OK(patch_commit());
	}
}

static void toggles_all(struct patch_exec_context *context, uint8_t post)
{
	unsigned int hit = __atomic_fetch_add(&own.hits, 1, __ATOMIC_RELAXED);

	(void)context;
	(void)post;
	QUIET_OK(hit & 1 ? patch_enable(toggled.patch) : patch_disable(toggled.patch));
	QUIET_OK(hit & 2 ? patch_enable(neighbour.patch) : patch_disable(neighbour.patch));
	QUIET_OK(patch_commit());
}

static unsigned int wrong;

static void *run(void *argument)
{
	const struct target *const *used = argument;

	for (unsigned int round = 0; round < ROUNDS; round++)
		for (unsigned int u = 0; used[u]; u++)
			if (used[u]->function(round % 20 + 1, round) != used[u]->model(round % 20 + 1, round))
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void check_quiet(void)
{
	if (failures)
		FAIL("%u calls inside procedures failed, the first in line %d: %s", failures, line_of_failure,
		     patch_status_string(status_of_failure));
}

static void scenario_disable_self(void *argument)
{
	const struct target *target = target_named("t_push_push");
	struct text_copy before = text_of_target(target);

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(target_start(target), disables_itself, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &own.patch));
	for (unsigned int n = 1; n < 20; n++) {
		REQUIRE_OK(patch_enable(own.patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(target->function(1, 2), target->model(1, 2));
		CHECK_EQ(own.hits, n);
		CHECK_TEXT_SAME(&before);
		CHECK_EQ(target->function(1, 2), target->model(1, 2));
		CHECK_EQ(own.hits, n);
	}
	check_quiet();
}

static void scenario_unmake_self(void *argument)
{
	const struct target *target = target_named("t_loop_to_second");
	struct text_copy before = text_of_target(target);

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 1; n < 50; n++) {
		REQUIRE_OK(make_probe(target_start(target) + (n % 2 ? 2 : 0), unmakes_itself, NULL,
				      n % 3 ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
				      &own.patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(target->function(20, 2), target->model(20, 2));
		CHECK_EQ(own.hits, n);
		CHECK_TEXT_SAME(&before);
		CHECK_STATUS(patch_disable(own.patch), PATCH_ENEXIST);
	}
	check_quiet();
}

static void scenario_enable_neighbour(void *argument)
{
	const struct target *target = target_named("t_push_push");
	struct instructions list = target_decode(target);

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(list.address[0], enables_neighbour, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &own.patch));
	REQUIRE_OK(make_probe(list.address[1], counts, &neighbour, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
			      &neighbour.patch));
	CHECK_OK(patch_commit());
	/* the first call may or may not run the neighbour; from the second on it has to */
	CHECK_EQ(target->function(1, 2), target->model(1, 2));
	CHECK_EQ(own.hits, 1);
	neighbour.hits = 0;
	CHECK_EQ(target->function(1, 2), target->model(1, 2));
	CHECK_EQ(own.hits, 2);
	CHECK_EQ(neighbour.hits, 1);
	check_quiet();
}

static void scenario_make_neighbour(void *argument)
{
	const struct target *target = target_named("t_push_push");

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(target_start(target), makes_neighbour, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &own.patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(target->function(1, 2), target->model(1, 2));
	neighbour.hits = 0;
	CHECK_EQ(target->function(1, 2), target->model(1, 2));
	CHECK_EQ(own.hits, 2);
	CHECK_EQ(neighbour.hits, 1);
	check_quiet();
}

static void scenario_threads(void *argument)
{
	static const struct target *used[4];
	struct text_copy before[3];
	pthread_t threads[THREADS];

	(void)argument;
	used[0] = target_named("t_loop_to_second");
	used[1] = target_named("t_call_last");
	used[2] = target_named("t_redzone");
	for (int u = 0; u < 3; u++)
		before[u] = text_of_target(used[u]);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(target_start(used[1]), toggles_all, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &own.patch));
	REQUIRE_OK(make_probe(target_start(used[0]), counts, &neighbour, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &neighbour.patch));
	REQUIRE_OK(make_probe(target_start(used[2]), counts, &toggled, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &toggled.patch));
	CHECK_OK(patch_commit());
	for (int n = 0; n < THREADS; n++)
		REQUIRE(pthread_create(&threads[n], NULL, run, used) == 0);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	CHECK_EQ(wrong, 0);
	CHECK_EQ(own.hits, THREADS * ROUNDS);
	CHECK(neighbour.hits > 0 && toggled.hits > 0);
	check_quiet();
	CHECK_OK(patch_fini());
	for (int u = 0; u < 3; u++)
		CHECK_TEXT_SAME(&before[u]);
}

int main(void)
{
	harness_start();
	harness_isolated("a procedure disables its own patch", scenario_disable_self, NULL);
	harness_isolated("a procedure unmakes its own patch", scenario_unmake_self, NULL);
	harness_isolated("a procedure enables a neighbour", scenario_enable_neighbour, NULL);
	harness_isolated("a procedure makes a neighbour", scenario_make_neighbour, NULL);
	harness_isolated("procedures of several threads toggle", scenario_threads, NULL);
	return harness_end();
}
