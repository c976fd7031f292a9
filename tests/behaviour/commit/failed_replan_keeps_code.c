/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A commit plans a patch again, builds code for that, and then lacks memory for the next thing. The patch stays as it
 * was; what was built for it must be given back: there is as much code, and there are as many pads, as before.
 */
#include "harness.h"
#include "short.h"

#include "base/inject.h"
#include "code/arena.h"
#include "code/pad.h"
#include "patch/region.h"

#define TURNS 5000
/* Allocations that a commit with a replan makes: fewer than this. */
#define STEPS_MAX 64
/* Of these, at least so many before the patch has moved. */
#define FAILED_MIN 3

static unsigned int countdown;
static bool fired;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static int inject(enum inject_point point)
{
	if (point != INJECT_ALLOC || --countdown != 0)
		return 0;
	fired = true;
	return ENOMEM;
}

/* What there is of generated code, once commits have nothing left to do. */
struct usage {
	struct arena_usage arena;
	struct pad_usage pad;
};

static struct usage settled(void)
{
	struct usage usage;

	for (unsigned int i = 0; i < 3; i++)
		CHECK_OK(patch_commit());
	arena_usage(&usage.arena);
	pad_usage(&usage.pad);
	return usage;
}

/*
 * Of parent and child: how many allocations failed while the patch stayed where it was, and whether one failed at all.
 */
static struct {
	unsigned int failed;
	bool fired;
} *shared;

static void replan(void *step)
{
	const struct region *region;
	struct usage before, after;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)entered_site, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED,
			      &patch));
	CHECK_OK(patch_commit());
	before = settled();
	region = region_at((uintptr_t)entered_site);
	for (unsigned int i = 0; i < TURNS; i++)
		enter_behind();
	countdown = *(const unsigned int *)step;
	libpatch_inject = inject;
	(void)patch_commit();
	libpatch_inject = NULL;
	after = settled();
	shared->fired = fired;
	CHECK_EQ(entered(1), 5);
	CHECK_EQ(enter_behind(), 7);
	if (fired && region_at((uintptr_t)entered_site) == region) {
		shared->failed++;
		CHECK_EQ(after.arena.code_bytes, before.arena.code_bytes);
		CHECK_EQ(after.pad.pads, before.pad.pads);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared->fired = true;
	for (unsigned int step = 1; shared->fired && step <= STEPS_MAX; step++) {
		char name[64];

		snprintf(name, sizeof(name), "allocation %u fails", step);
		harness_isolated(name, replan, &step);
	}
	CHECK(!shared->fired);
	CHECK(shared->failed >= FAILED_MIN);
	return harness_end();
}
