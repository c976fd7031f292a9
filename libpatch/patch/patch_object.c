/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps of a patch's life, and of what is wanted of it: which there are. What is done at a step is elsewhere:
 * quiesce.c, handle.c.
 */
#include "patch/patch_object.h"

#include "base/bug.h"

#define TO(life) (1U << (life))

static const uint8_t patch_life_steps[PATCH_LIVES] = {
	[LIFE_QUIET] = TO(LIFE_OPEN) | TO(LIFE_DUE) | TO(LIFE_FREED),
	[LIFE_OPEN] = TO(LIFE_CLOSED),
	[LIFE_CLOSED] = TO(LIFE_OPEN) | TO(LIFE_QUIET) | TO(LIFE_DETACHED),
	[LIFE_DETACHED] = TO(LIFE_DUE),
	[LIFE_DUE] = TO(LIFE_DYING) | TO(LIFE_FREED),
	[LIFE_DYING] = TO(LIFE_FREED),
};

bool patch_may_become(enum patch_life from, enum patch_life to)
{
	return from < PATCH_LIVES && to < PATCH_LIVES && (patch_life_steps[from] & TO(to));
}

void patch_set_life(struct patch *patch, enum patch_life life)
{
	BUG_ON_RETURN(!patch_may_become((enum patch_life)patch->life, life));
	patch->life = (uint8_t)life;
}

bool patch_set_goal(struct patch *patch, enum patch_goal goal)
{
	if (patch_is_released(patch))
		return goal == GOAL_RELEASED;
	patch->goal = (uint8_t)goal;
	return true;
}
