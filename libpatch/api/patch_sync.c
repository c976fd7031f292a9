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

#define FIRST_NAP_NS 20000
#define LONGEST_NAP_NS 2000000

/*
 * One look at what has a ticket up to the given one; 0: up to now. Destroys what is due. Also after patch_fini(), which
 * does not wait for what it removed.
 */
static patch_status sync_look(uint64_t *ticket, enum quiesce_state *state, uintptr_t *site)
{
	struct lock_scope scope;
	patch_status status;

	/* Also where nothing is seen, because the library cannot be entered. */
	*state = QUIESCE_BUSY;
	if (!api_enter_finished(&scope, "patch_synchronize", &status))
		return status;
	if (*ticket == 0)
		*ticket = quiesce_ticket();
	api_leave_and_destroy(&scope, PATCH_OK);
	if (!api_enter_finished(&scope, "patch_synchronize", &status))
		return status;
	*state = quiesce_state(*ticket, site);
	return api_leave(&scope, PATCH_OK);
}

EXPORT patch_status patch_synchronize(int64_t timeout_ns)
{
	int64_t start = raw_clock(CLOCK_MONOTONIC);
	struct timespec nap = { 0, FIRST_NAP_NS };
	int64_t napped = 0;
	uint64_t ticket = 0;

	for (;;) {
		enum quiesce_state state;
		uintptr_t site = 0;
		patch_status status = sync_look(&ticket, &state, &site);

		if (status != PATCH_OK || state == QUIESCE_QUIET)
			return status;
		if (state == QUIESCE_SELF)
			return error_raise_at(PATCH_EBUSY, "patch_synchronize",
					      "called from a procedure of a patch that it would wait for", site);
		if (timeout_ns >= 0 && raw_waited(start, napped) >= timeout_ns)
			return error_raise_at(PATCH_EBUSY, "patch_synchronize",
					      "a thread is still in its procedure, or its destroy function has not "
					      "returned",
					      site);
		raw_syscall(SYS_nanosleep, &nap, NULL);
		napped += nap.tv_nsec;
		nap.tv_nsec = MIN(nap.tv_nsec * 2, LONGEST_NAP_NS);
	}
}
