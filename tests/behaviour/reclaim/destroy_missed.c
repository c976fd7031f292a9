/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The destroy function of a patch is called once, by patch_commit(), patch_synchronize() or patch_fini() and by nothing
 * else, when the patch is gone; in order of patch_unmake(); without a lock of the library, which it may call. A patch
 * that was not made has none.
 */
#include "targets.h"

#include <pthread.h>

#define PATCHES 8

static unsigned int destroyed[PATCHES], order[PATCHES], count, hits;
static bool allowed;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void destroy(void *user_data)
{
	unsigned int which = (unsigned int)(uintptr_t)user_data;

	CHECK(allowed);
	destroyed[which]++;
	if (count < PATCHES)
		order[count] = which;
	count++;
}

static patch_status try_make(uintptr_t address, int type, uintptr_t which, void (*how)(void *), int policy,
			     patch_t *patch)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(type, procedure, (void *)which);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);

	model.probe.destroy = how;
	return patch_make(&location, &model, &attr, patch, NULL);
}

static patch_t make(const void *address, int type, uintptr_t which, void (*how)(void *))
{
	patch_t patch = NULL;

	REQUIRE_OK(try_make((uintptr_t)address, type, which, how, PATCH_TRAP_POLICY_ALLOW, &patch));
	return patch;
}

/* A commit that may destroy. */
static void commit(void)
{
	allowed = true;
	CHECK_OK(patch_commit());
	allowed = false;
}

static void once(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 1, destroy);
	CHECK_OK(patch_commit());
	t_five_bytes(1, 2);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_unmake(patch));
	commit();
	CHECK_EQ(destroyed[1], 1);
	/* Never committed. */
	patch = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE_AROUND, 2, destroy);
	CHECK_OK(patch_unmake(patch));
	CHECK_EQ(destroyed[2], 0);
	commit();
	CHECK_EQ(destroyed[2], 1);
	/* By somebody else's synchronisation. */
	patch = make((const void *)t_cmov, PATCH_EXEC_MODEL_PROBE, 3, destroy);
	CHECK_OK(patch_unmake(patch));
	commit();
	CHECK_EQ(destroyed[3], 1);
	make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 4, destroy);
	make((const void *)t_cmov, PATCH_EXEC_MODEL_PROBE, 5, destroy);
	CHECK_OK(patch_commit());
	CHECK_EQ(destroyed[4], 0);
	allowed = true;
	CHECK_OK(patch_fini());
	for (unsigned int i = 1; i <= 5; i++)
		CHECK_EQ(destroyed[i], 1);
	CHECK_EQ(count, 5);
	CHECK_OK(patch_synchronize(0));
	CHECK_EQ(count, 5);
}

static void not_made(void *unused)
{
	patch_t patch, other;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_STATUS(try_make(0x1000, PATCH_EXEC_MODEL_PROBE, 1, destroy, PATCH_TRAP_POLICY_ALLOW, &patch),
		     PATCH_EFAULT);
	other = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 2, destroy);
	CHECK(try_make((uintptr_t)t_five_bytes + 1, PATCH_EXEC_MODEL_PROBE, 1, destroy, PATCH_TRAP_POLICY_ALLOW,
		       &patch) != PATCH_OK);
	CHECK_OK(patch_unmake(other));
	commit();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed[1], 0);
	CHECK_EQ(destroyed[2], 1);
	CHECK_OK(patch_fini());
}

static void in_order(void *unused)
{
	static const unsigned int wanted[] = { 3, 0, 4, 1, 2 };
	patch_t patches[5];

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < 5; i++)
		patches[i] = make((const char *)t_five_singles + i % 4, PATCH_EXEC_MODEL_PROBE, i, destroy);
	CHECK_OK(patch_commit());
	for (unsigned int i = 0; i < 5; i++)
		CHECK_OK(patch_unmake(patches[wanted[i]]));
	commit();
	CHECK_EQ(count, 5);
	for (unsigned int i = 0; i < 5; i++)
		CHECK_EQ(order[i], wanted[i]);
	CHECK_OK(patch_fini());
}

/* Makes another patch, and has that one destroyed, too. Waits for everybody but itself. */
static void destroy_and_make(void *user_data)
{
	patch_t patch = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 7, destroy);

	CHECK_OK(patch_commit());
	hits = 0;
	t_five_bytes(1, 2);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed[7], 1);
	/* An error of its own is none of the commit's. */
	CHECK_STATUS(patch_unmake(patch), PATCH_ENEXIST);
	destroy(user_data);
}

static void calls_the_library(void *unused)
{
	struct patch_error before, error;
	patch_t patch, other;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 1, destroy_and_make);
	other = make((const void *)t_cmov, PATCH_EXEC_MODEL_PROBE, 2, destroy);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_unmake(other));
	patch_last_error(&before);
	commit();
	CHECK_EQ(destroyed[1], 1);
	CHECK_EQ(destroyed[2], 1);
	CHECK_EQ(patch_last_error(&error), before.code);
	CHECK_OK(patch_fini());
}

static _Atomic bool entered, go;

static void slow_destroy(void *user_data)
{
	(void)user_data;
	entered = true;
	while (!go)
		sched_yield();
	destroyed[1]++;
}

static void *committer(void *argument)
{
	CHECK_OK(patch_commit());
	return argument;
}

/* patch_synchronize() waits for destroy functions that other threads run. */
static void elsewhere(void *unused)
{
	pthread_t thread;
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make((const void *)t_five_bytes, PATCH_EXEC_MODEL_PROBE, 1, slow_destroy);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_unmake(patch));
	REQUIRE(pthread_create(&thread, NULL, committer, NULL) == 0);
	while (!entered)
		sched_yield();
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	CHECK_MSG(harness_error_is_at((uintptr_t)t_five_bytes), "%s", harness_last_error());
	CHECK_OK(patch_commit());
	go = true;
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed[1], 1);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	CHECK_STATUS(patch_synchronize(0), PATCH_EINIT);
	harness_isolated("once", once, NULL);
	harness_isolated("not made", not_made, NULL);
	harness_isolated("in order", in_order, NULL);
	harness_isolated("a destroy function that calls the library", calls_the_library, NULL);
	harness_isolated("a destroy function that another thread runs", elsewhere, NULL);
	return harness_end();
}
