/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_synchronize(): waits until what was disabled or unmade is quiet. It looks, under the lock, and sleeps between
 * looks, without it.
 */
#include "api/enter.h"

#include "api/patch_commit.h"
#include "base/error.h"
#include "base/syscall.h"
#include "patch/quiesce.h"

#include <time.h>

#define FIRST_NAP_NS 20000
#define LONGEST_NAP_NS 2000000

/* -1: the clock cannot be read. */
static int64_t sync_now(void)
{
	struct timespec time = { 0 };

	if (raw_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time) < 0)
		return -1;
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Also after patch_fini(), which does not wait for what it removed. */
static bool sync_enter(struct lock_scope *scope, patch_status *status) TRY_ACQUIRE(true, library_lock)
{
	error_begin();
	*status = PATCH_OK;
	if (!lock_acquire(scope)) {
		*status = error_raise(PATCH_EFAIL, "patch_synchronize", lock_refusal(), NULL);
		return false;
	}
	if (api_life() != API_UNBORN)
		return true;
	lock_release(scope);
	*status = error_raise(PATCH_EINIT, "patch_synchronize", "called before patch_init()", NULL);
	return false;
}

/* One look at what has a ticket up to the given one; 0: up to now. Destroys what is due. */
static patch_status sync_look(uint64_t *ticket, enum quiesce_state *state)
{
	struct lock_scope scope;
	patch_status status;

	/* Also where nothing is seen, because the library cannot be entered. */
	*state = QUIESCE_BUSY;
	if (!sync_enter(&scope, &status))
		return status;
	if (*ticket == 0)
		*ticket = quiesce_ticket();
	api_leave_and_destroy(&scope, PATCH_OK);
	if (!sync_enter(&scope, &status))
		return status;
	*state = quiesce_state(*ticket);
	return api_leave(&scope, PATCH_OK);
}

EXPORT patch_status patch_synchronize(int64_t timeout_ns)
{
	int64_t start = sync_now();
	struct timespec nap = { 0, FIRST_NAP_NS };
	int64_t napped = 0;
	uint64_t ticket = 0;

	for (;;) {
		enum quiesce_state state;
		patch_status status = sync_look(&ticket, &state);

		if (status != PATCH_OK || state == QUIESCE_QUIET)
			return status;
		if (state == QUIESCE_SELF)
			return error_raise(PATCH_EBUSY, "patch_synchronize",
					   "called from a procedure of a patch that it would wait for", NULL);
		if (timeout_ns >= 0 && (start >= 0 ? sync_now() - start : napped) >= timeout_ns)
			return error_raise(PATCH_EBUSY, "patch_synchronize", "a thread is still in a procedure", NULL);
		raw_syscall(SYS_nanosleep, &nap, NULL);
		napped += nap.tv_nsec;
		nap.tv_nsec = MIN(nap.tv_nsec * 2, LONGEST_NAP_NS);
	}
}
