/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles that are no handles, or no longer: PATCH_ENEXIST from every call, however often, and no harm. */
#include "targets.h"

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void refuse(patch_t patch)
{
	struct patch_info info;

	for (int round = 0; round < 2; round++) {
		CHECK_STATUS(patch_enable(patch), PATCH_ENEXIST);
		CHECK_STATUS(patch_disable(patch), PATCH_ENEXIST);
		CHECK_STATUS(patch_info(patch, &info, sizeof(info)), PATCH_ENEXIST);
		CHECK_STATUS(patch_unmake(patch), PATCH_ENEXIST);
		CHECK_OK(patch_commit());
	}
}

int main(void)
{
	const struct target *target = target_named("t_push_push");
	struct patch_statistics statistics;
	struct text_copy before = text_of_target(target);
	patch_t old[64], fresh, kept;
	uint64_t on_stack[64] = { 0 };

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	refuse(NULL);
	refuse((patch_t)(uintptr_t)1);
	refuse((patch_t)(uintptr_t)0x1234567);
	refuse((patch_t)~(uintptr_t)0);
	refuse((patch_t)on_stack);
	refuse((patch_t)(uintptr_t)target->function);
	REQUIRE_OK(make_probe(target_start(target), procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &kept));
	refuse((patch_t)((uintptr_t)kept + 1));
	refuse((patch_t)((uintptr_t)kept - 8));

	/* released before its first commit, after it, and while disabled */
	for (int n = 0; n < 64; n++) {
		CONTEXT("handle %d", n);
		REQUIRE_OK(make_probe(target_start(target) + (n % 2), procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
				      PATCH_ENABLED, &old[n]));
		if (n % 3)
			CHECK_OK(patch_commit());
		if (n % 3 == 2) {
			CHECK_OK(patch_disable(old[n]));
			CHECK_OK(patch_commit());
		}
		CHECK_OK(patch_unmake(old[n]));
		CHECK_STATUS(patch_unmake(old[n]), PATCH_ENEXIST);
		CHECK_STATUS(patch_enable(old[n]), PATCH_ENEXIST);
	}
	CHECK_OK(patch_commit());
	/* new handles do not bring the old ones back to life */
	REQUIRE_OK(make_probe(target_start(target) + 1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
			      &fresh));
	for (int n = 0; n < 64; n++) {
		CONTEXT("old handle %d", n);
		if (old[n] != fresh)
			refuse(old[n]);
	}
	CONTEXT("at the end");
	hits = 0;
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 2);
	CHECK_OK(patch_unmake(kept));
	CHECK_OK(patch_unmake(fresh));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 0);
	CHECK_EQ(statistics.regions_installed, 0);
	CHECK_TEXT_SAME(&before);
	CHECK_OK(patch_fini());
	return harness_end();
}
