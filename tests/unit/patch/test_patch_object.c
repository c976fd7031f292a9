/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a patch, and what is wanted of it: every step that there is is made, and every other one refused. */
#include "base/bug.h"
#include "base/error.h"
#include "patch/patch_object.h"

#include <criterion/criterion.h>

static const struct {
	enum patch_life from, to;
} steps[] = {
	{ LIFE_QUIET, LIFE_OPEN },      { LIFE_QUIET, LIFE_DUE },    { LIFE_QUIET, LIFE_FREED },
	{ LIFE_OPEN, LIFE_CLOSED },     { LIFE_CLOSED, LIFE_OPEN },  { LIFE_CLOSED, LIFE_QUIET },
	{ LIFE_CLOSED, LIFE_DETACHED }, { LIFE_DETACHED, LIFE_DUE }, { LIFE_DUE, LIFE_DYING },
	{ LIFE_DUE, LIFE_FREED },       { LIFE_DYING, LIFE_FREED },
};

static bool is_step(enum patch_life from, enum patch_life to)
{
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); ++i)
		if (steps[i].from == from && steps[i].to == to)
			return true;
	return false;
}

Test(patch_object, life)
{
	for (unsigned int from = 0; from < PATCH_LIVES; ++from)
		for (unsigned int to = 0; to < PATCH_LIVES; ++to)
			cr_expect_eq(patch_may_become(from, to), is_step(from, to), "from %u to %u", from, to);
	cr_expect(!patch_may_become(LIFE_QUIET, PATCH_LIVES));
	cr_expect(!patch_may_become(PATCH_LIVES, LIFE_QUIET));
}

Test(patch_object, step_made)
{
	struct patch patch = { .count = 1 };

	error_begin();
	patch_set_life(&patch, LIFE_OPEN);
	cr_expect_eq(patch.life, LIFE_OPEN);
	cr_expect(patch_is_open(&patch));
	cr_expect(patch_may_be_in_use(&patch));
	cr_expect_eq(error_count(), 0);
}

Test(patch_object, step_refused)
{
	struct patch patch = { .count = 1, .life = LIFE_OPEN };
	struct patch_error error;

	libpatch_bugs_are_fatal = false;
	error_begin();
	patch_set_life(&patch, LIFE_DYING);
	cr_expect_eq(patch.life, LIFE_OPEN);
	cr_expect_eq(error_last(&error), PATCH_BUG);
	cr_expect_eq(error.code, PATCH_BUG);
}

Test(patch_object, in_use)
{
	static const bool expected[PATCH_LIVES] = { [LIFE_OPEN] = true, [LIFE_CLOSED] = true, [LIFE_DETACHED] = true };

	for (unsigned int life = 0; life < PATCH_LIVES; ++life) {
		struct patch patch = { .life = (uint8_t)life };

		cr_expect_eq(patch_may_be_in_use(&patch), expected[life], "%u", life);
		cr_expect_eq(patch_is_open(&patch), life == LIFE_OPEN, "%u", life);
	}
}

Test(patch_object, goal)
{
	struct patch patch = { .count = 1 };

	cr_expect(!patch_is_wanted(&patch));
	cr_expect(patch_set_goal(&patch, GOAL_ENABLED));
	cr_expect(patch_is_wanted(&patch));
	cr_expect(patch_set_goal(&patch, GOAL_DISABLED));
	cr_expect(!patch_is_wanted(&patch));
	cr_expect(patch_set_goal(&patch, GOAL_RELEASED));
	cr_expect(patch_is_released(&patch));
	cr_expect(!patch_is_wanted(&patch));
	/* Final. */
	cr_expect(!patch_set_goal(&patch, GOAL_ENABLED));
	cr_expect(!patch_set_goal(&patch, GOAL_DISABLED));
	cr_expect(patch_set_goal(&patch, GOAL_RELEASED));
	cr_expect(patch_is_released(&patch));
}
