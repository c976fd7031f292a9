/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a public function begins and ends.
 */
#ifndef LIBPATCH_API_ENTER_H
#define LIBPATCH_API_ENTER_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "runtime/lock.h"

#include <libpatch/patch.h>

struct patch;

/* Where the library is in its life. It goes from ALIVE to FINISHED under the library lock, and never back. */
enum api_life { API_UNBORN, API_ALIVE, API_FINISHED };
enum api_life api_life(void);
void api_set_life(enum api_life life);

/*
 * Begin a public call: the errors that it raises replace those of earlier calls, the lock is taken, the library is
 * ALIVE. False: *status says why not.
 */
bool api_enter(struct lock_scope *scope, const char *origin, patch_status *status) TRY_ACQUIRE(true, library_lock);
/* The same where the library may be FINISHED, too. */
bool api_enter_finished(struct lock_scope *scope, const char *origin, patch_status *status)
	TRY_ACQUIRE(true, library_lock);
/* End it: the lock is released. Returns `status`. */
patch_status api_leave(const struct lock_scope *scope, patch_status status) RELEASE(library_lock);

/* The patch of a handle, or PATCH_ENEXIST in the name of `origin`. Library lock held. */
patch_status api_find_patch(patch_t handle, struct patch **patch, const char *origin) REQUIRES(library_lock);

#endif
