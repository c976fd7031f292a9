/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a public function begins and ends: where the library is in its life, the library lock, the thread's errors. It
 * decides nothing else, and calls no code of the host.
 */
#include "api/enter.h"

#include "base/error.h"
#include "patch/handle.h"
#include "sys/gaps.h"
#include "sys/mem_read.h"

#include <stdatomic.h>

static _Atomic enum api_life life;

enum api_life api_life(void)
{
	return atomic_load(&life);
}

void api_set_life(enum api_life now)
{
	atomic_store(&life, now);
}

/* Not analysed: the lock is held where *status says so. */
static bool api_enter_if(struct lock_scope *scope, const char *origin, bool finished, patch_status *status)
	NO_THREAD_SAFETY_ANALYSIS
{
	error_begin();
	*status = PATCH_OK;
	if (!lock_acquire(scope)) {
		*status = error_raise(PATCH_EFAIL, origin, lock_refusal(), NULL);
		return false;
	}
	if (api_life() == API_UNBORN)
		*status = error_raise(PATCH_EINIT, origin, "called before patch_init() has succeeded", NULL);
	else if (api_life() == API_FINISHED && !finished)
		*status = error_raise(PATCH_EFINI, origin, "called after patch_fini()", NULL);
	if (*status != PATCH_OK)
		lock_release(scope);
	return *status == PATCH_OK;
}

bool api_enter(struct lock_scope *scope, const char *origin, patch_status *status) NO_THREAD_SAFETY_ANALYSIS
{
	return api_enter_if(scope, origin, false, status);
}

bool api_enter_finished(struct lock_scope *scope, const char *origin, patch_status *status) NO_THREAD_SAFETY_ANALYSIS
{
	return api_enter_if(scope, origin, true, status);
}

patch_status api_leave(const struct lock_scope *scope, patch_status status)
{
	mem_trust(0, 0);
	gaps_try_again();
	lock_release_and_register_unwind(scope);
	return status;
}

patch_status api_find_patch(patch_t handle, struct patch **patch, const char *origin)
{
	*patch = handle_get(handle);
	if (*patch == NULL)
		return error_raise_at(PATCH_ENEXIST, origin, "no such patch: it was released, or never made",
				      (uintptr_t)handle);
	return PATCH_OK;
}
