/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of a commit that patch_commit(), patch_fini() and patch_synchronize() share. Library lock held, unless it
 * is said otherwise.
 */
#ifndef LIBPATCH_API_PATCH_COMMIT_H
#define LIBPATCH_API_PATCH_COMMIT_H

#include "base/thread_safety.h"
#include "api/enter.h"

/* The next commit disables and then frees the patch, whose handle is revoked already. */
void api_release_patch(struct patch *patch) REQUIRES(library_lock);

/*
 * Before the first commit: wait for what patch_init() did not, which by now is over, as a rule. Without the library
 * lock.
 */
void api_wait_for_start(void);

/* Queue the regions of every patch that was changed. */
void api_queue_regions(void) REQUIRES(library_lock);
/*
 * PATCH_EBLOCKED or PATCH_ESYS, in the name of `origin`, when a thread would be killed by the traps of what is queued.
 */
patch_status api_check_threads(const char *origin) REQUIRES(library_lock);
/* Commit everything queued, as one batch; or what of it needs no change of text. */
patch_status api_commit_queue(bool text) REQUIRES(library_lock);
/*
 * End a public call as api_leave() does; then, without the lock, call the destroy functions that are due. Returns
 * `status`.
 */
patch_status api_leave_and_destroy(const struct lock_scope *scope, patch_status status) RELEASE(library_lock)
	REQUIRES(library_lock);

#endif
