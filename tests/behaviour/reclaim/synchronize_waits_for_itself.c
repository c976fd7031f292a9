/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure that unmakes its own patch, commits, and asks for quiescence, would wait for itself: it is told so at
 * once. It is the running one until it returns, and gone after that. Of other patches it may wait.
 */
#include "targets.h"

static patch_t own, other;
static unsigned int destroyed_own, destroyed_other, runs;

static void destroy_own(void *user_data)
{
	(void)user_data;
	destroyed_own++;
}

static void destroy_other(void *user_data)
{
	(void)user_data;
	destroyed_other++;
}

static void idle(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	if (runs++ > 0)
		return;
	CHECK_OK(patch_unmake(other));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed_other, 1);
	CHECK_OK(patch_disable(own));
	CHECK_OK(patch_commit());
	CHECK_STATUS(patch_synchronize(-1), PATCH_EBUSY);
	CHECK_MSG(harness_error_is_at((uintptr_t)t_five_bytes), "%s", harness_last_error());
	CHECK_OK(patch_unmake(own));
	CHECK_OK(patch_commit());
	CHECK_STATUS(patch_synchronize(-1), PATCH_EBUSY);
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	CHECK_EQ(destroyed_own, 0);
}

static void run(void *argument)
{
	struct patch_location location = location_at((uintptr_t)t_five_bytes);
	struct patch_exec_model model = model_of(*(const int *)argument, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);

	REQUIRE_OK(patch_init(NULL, 0));
	model.probe.destroy = destroy_own;
	REQUIRE_OK(patch_make(&location, &model, &attr, &own, NULL));
	location.address = (uintptr_t)t_cmov;
	model.type = PATCH_EXEC_MODEL_PROBE;
	model.probe.procedure = idle;
	model.probe.destroy = destroy_other;
	REQUIRE_OK(patch_make(&location, &model, &attr, &other, NULL));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(destroyed_own, 0);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed_own, 1);
	/* A pair that began is completed. */
	CHECK_EQ(runs, *(const int *)argument == PATCH_EXEC_MODEL_PROBE_AROUND ? 2 : 1);
	CHECK_OK(patch_fini());
}

int main(void)
{
	int types[] = { PATCH_EXEC_MODEL_PROBE, PATCH_EXEC_MODEL_PROBE_AROUND };

	harness_start();
	harness_isolated("a probe", run, &types[0]);
	harness_isolated("a probe around an instruction", run, &types[1]);
	return harness_end();
}
