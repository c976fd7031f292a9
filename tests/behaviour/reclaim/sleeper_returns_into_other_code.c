/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread sleeps in a procedure, above generated code, while the patch goes, others come and go at the same site, and
 * hooks of all sizes are generated for other sites. When it wakes up it goes on in the code that it came from.
 */
#include "targets.h"

#include <pthread.h>
#include <semaphore.h>

#define SHAPES 4

static const uint64_t shapes[SHAPES] = { 0, PATCH_REGS_GP_ONLY, PATCH_REGS_ALL, 1 };

static const struct target *target;
static sem_t asleep, awake;
static __thread bool sleeps;
static patch_t others[SHAPES * TARGET_COUNT];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	if (sleeps) {
		sem_post(&asleep);
		while (sem_wait(&awake) != 0)
			;
	}
}

static void *sleeper(void *unused)
{
	(void)unused;
	sleeps = true;
	CHECK_EQ(target->function(1, 7), target->model(1, 7));
	return NULL;
}

static patch_t make_of_shape(const struct target *where, unsigned int shape, int policy)
{
	struct patch_location location = location_at(target_start(where));
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	model.probe.read_registers = shapes[shape];
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

/* Whatever was given back is taken by something else. */
static void generate(void)
{
	size_t count = 0;

	for (unsigned int shape = 0; shape < SHAPES; shape++)
		for (size_t t = 0; t < TARGET_COUNT; t++)
			if (&targets[t] != target)
				others[count++] = make_of_shape(&targets[t], shape, PATCH_TRAP_POLICY_ALLOW);
	CHECK_OK(patch_commit());
	for (size_t n = 0; n < count; n++)
		CHECK_OK(patch_unmake(others[n]));
	CHECK_OK(patch_commit());
}

static void sleep_through_changes(void *argument)
{
	int policy = *(const int *)argument;

	REQUIRE_OK(patch_init(NULL, 0));
	sem_init(&asleep, 0, 0);
	sem_init(&awake, 0, 0);
	for (unsigned int shape = 0; shape < SHAPES; shape++) {
		patch_t patch = make_of_shape(target, shape, policy), next;
		pthread_t thread;

		CONTEXT("%s, %s, shape %u", target->name, policy_name(policy), shape);
		CHECK_OK(patch_commit());
		REQUIRE(pthread_create(&thread, NULL, sleeper, NULL) == 0);
		while (sem_wait(&asleep) != 0)
			;
		/* other code for the site, none, and that of another window */
		next = make_of_shape(target, (shape + 1) % SHAPES, policy);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		generate();
		CHECK_OK(patch_unmake(next));
		CHECK_OK(patch_commit());
		next = make_of_shape(target, shape, policy == PATCH_TRAP_POLICY_FORCE ? PATCH_TRAP_POLICY_ALLOW :
											 PATCH_TRAP_POLICY_FORCE);
		CHECK_OK(patch_unmake(next));
		CHECK_OK(patch_commit());
		generate();
		sem_post(&awake);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const char *const names[] = { "t_five_bytes", "t_2_2_1", "t_push_push" };

	harness_start();
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		target = target_named(names[n]);
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
			harness_isolated(names[n], sleep_through_changes, &policy);
	}
	return harness_end();
}
