/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a commit that failed leaves: the next one does all of it, also when a region has grown in between; what is in
 * effect already stays in effect, and nothing more is; patch_info() tells it as it is.
 */
#include "harness.h"

#include "base/inject.h"
#include "short.h"

static unsigned long hits[3];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned long *)context->user_data;
}

static bool published;

static int fail_write(enum inject_point point)
{
	published |= point == INJECT_COMMIT_PUBLISHED;
	return published && point == INJECT_TEXT_WRITE ? EIO : 0;
}

static int fail_sync(enum inject_point point)
{
	return point == INJECT_SYNC ? EIO : 0;
}

static void fail_commit(int (*inject)(enum inject_point point))
{
	published = false;
	libpatch_inject = inject;
	CHECK(patch_commit() != PATCH_OK);
	libpatch_inject = NULL;
}

static patch_t make(const void *at, unsigned int which, int state)
{
	patch_t patch = NULL;

	REQUIRE_OK(make_probe((uintptr_t)at, procedure, &hits[which], PATCH_TRAP_POLICY_ALLOW, state, &patch));
	return patch;
}

static int state_of(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	return info.state;
}

static void check(unsigned long a, unsigned long b, unsigned long c)
{
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(plain(1), 7);
	CHECK_EQ(counted(3), 6);
	CHECK_EQ(hits[0], a);
	CHECK_EQ(hits[1], b);
	CHECK_EQ(hits[2], c);
}

/* One in front of it, which is disabled, takes the region in. */
static void region_grown(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make(plain_second, 0, PATCH_ENABLED);
	fail_commit(fail_write);
	check(0, 0, 0);
	make((const void *)(uintptr_t)plain, 1, PATCH_DISABLED);
	CHECK_OK(patch_commit());
	CHECK_EQ(state_of(patch), PATCH_ENABLED);
	check(1, 0, 0);
	CHECK_OK(patch_fini());
}

/*
 * One of a window is disabled, and another one is made that needs other code: the first is closed without the text, the
 * second is not open without it.
 */
static void in_effect(void *unused)
{
	const struct patch_location location = location_at((uintptr_t)plain);
	const patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct patch_exec_model model;
	patch_t patch, other;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make((const void *)(uintptr_t)plain, 0, PATCH_ENABLED);
	make(plain_second, 1, PATCH_ENABLED);
	CHECK_OK(patch_commit());
	check(1, 1, 0);
	CHECK_OK(patch_disable(patch));
	model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, &hits[2]);
	REQUIRE_OK(patch_make(&location, &model, &attr, &other, NULL));
	fail_commit(fail_write);
	CHECK_EQ(state_of(patch), PATCH_DISABLED);
	check(0, 1, 0);
	CHECK_OK(patch_commit());
	CHECK_EQ(state_of(patch), PATCH_DISABLED);
	check(0, 1, 2);
	CHECK_OK(patch_fini());
}

/* Interrupted in phase 0, which cuts a punned jump: nothing of the others is there yet. */
static void not_begun(void *unused)
{
	patch_t patch, punned;
	struct patch_info info = { 0 };

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	punned = make((const void *)(uintptr_t)counted, 0, PATCH_ENABLED);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_info(punned, &info, sizeof(info)));
	if (info.strategy != PATCH_STRATEGY_PUNNED_JUMP)
		SKIP("no memory at the addresses that the jump can lead to: strategy %d", info.strategy);
	CHECK_OK(patch_unmake(punned));
	patch = make((const void *)(uintptr_t)plain, 1, PATCH_ENABLED);
	fail_commit(fail_sync);
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(plain(1), 7);
	CHECK_EQ(hits[1], state_of(patch) == PATCH_ENABLED);
	CHECK_OK(patch_commit());
	check(0, 1, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("its region taken in by another", region_grown, NULL);
	harness_isolated("in effect already", in_effect, NULL);
	harness_isolated("interrupted before it was begun", not_begun, NULL);
	return harness_end();
}
