/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patch that may not be a trap is planned again because one of its boundaries is led to all the time, and that fails
 * half way. What it was is what it goes back to, whichever step fails.
 */
#include "harness.h"
#include "short.h"

#include "base/inject.h"

#define TURNS 5000
#define STEPS 8

static const struct {
	const char *name;
	enum inject_point point;
} failures[] = {
	{ "core synchronisation", INJECT_SYNC },
	{ "write to text", INJECT_TEXT_WRITE },
	{ "mapping", INJECT_MMAP },
};

static enum inject_point failing;
static unsigned int countdown;
static unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static int inject(enum inject_point point)
{
	return point == failing && --countdown == 0 ? EIO : 0;
}

static void check(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK(info.strategy != PATCH_STRATEGY_TRAP);
	CHECK_EQ(info.state, PATCH_ENABLED);
	hits = 0;
	CHECK_EQ(entered(1), 5);
	CHECK_EQ(enter_behind(), 7);
	CHECK_EQ(hits, 1);
}

static void replan(void *step)
{
	uint8_t original[16];
	patch_t patch;

	memcpy(original, (const void *)(uintptr_t)entered, sizeof(original));
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)entered_site, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED,
			      &patch));
	CHECK_OK(patch_commit());
	check(patch);
	for (unsigned int i = 0; i < TURNS; i++)
		enter_behind();
	countdown = *(const unsigned int *)step;
	libpatch_inject = inject;
	CHECK_OK(patch_commit()); /* nothing was asked for */
	libpatch_inject = NULL;
	for (unsigned int i = 0; i < 3; i++) {
		check(patch);
		CHECK_OK(patch_commit());
	}
	check(patch);
	CHECK_OK(patch_fini());
	CHECK(memcmp(original, (const void *)(uintptr_t)entered, sizeof(original)) == 0);
}

int main(void)
{
	harness_start();
	for (size_t f = 0; f < sizeof(failures) / sizeof(failures[0]); f++) {
		failing = failures[f].point;
		for (unsigned int step = 1; step <= STEPS; step++) {
			char name[64];

			snprintf(name, sizeof(name), "%s %u fails", failures[f].name, step);
			harness_isolated(name, replan, &step);
		}
	}
	return harness_end();
}
