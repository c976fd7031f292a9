/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_enable(), patch_disable(), patch_unmake(): they note the state that the next commit gives a patch. No text is
 * touched here.
 */
#include "api/enter.h"

#include "api/patch_commit.h"
#include "base/error.h"
#include "patch/handle.h"
#include "patch/region.h"

static patch_status state_request(patch_t handle, bool enabled, const char *origin)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status;

	if (!api_enter(&scope, origin, &status))
		return status;
	status = api_find_patch(handle, &patch, origin);
	if (status == PATCH_OK) {
		if (enabled && patch->gone) {
			status = error_raise_at(PATCH_EFAULT, origin, "its code, or its procedure's, was unmapped",
						patch->located);
		} else {
			patch_set_goal(patch, enabled ? GOAL_ENABLED : GOAL_DISABLED);
			handle_change(patch);
		}
	}
	return api_leave(&scope, status);
}

EXPORT patch_status patch_enable(patch_t patch)
{
	return state_request(patch, true, "patch_enable");
}

EXPORT patch_status patch_disable(patch_t patch)
{
	return state_request(patch, false, "patch_disable");
}

void api_release_patch(struct patch *patch)
{
	static uint64_t order;

	patch->unmade = ++order;
	handle_change(patch);
}

EXPORT patch_status patch_unmake(patch_t handle)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status;

	if (!api_enter(&scope, "patch_unmake", &status))
		return status;
	status = api_find_patch(handle, &patch, "patch_unmake");
	if (status == PATCH_OK) {
		handle_revoke(patch);
		api_release_patch(patch);
	}
	return api_leave(&scope, status);
}
