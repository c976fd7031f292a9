/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules that the dynamic linker unmaps. Runs in the program's thread that called dlclose(), with the loader's lock
 * held by it, and takes the library lock.
 */
#include "interpose/unload.h"

#include "base/error.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "arch/syscall.h"
#include "commit/commit.h"
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "patch/handle.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "patch/unmapped.h"
#include "plan/site.h"
#include "runtime/lock.h"
#include "sys/tls.h"

static uint64_t kept GUARDED_BY(library_lock);

uint64_t unload_kept(void)
{
	return kept;
}

static bool unload_includes(uintptr_t address, uintptr_t lower, uintptr_t upper)
{
	return address - lower < upper - lower;
}

/* Which threads are in the target of a divert is not known. */
static bool unload_may_be_in_use(const struct patch *patch)
{
	return patch->action == ARCH_DIVERT || patch_may_be_in_use(patch);
}

/* As patch_commit() does: trap bytes are for threads that do not block their signals (S5), here, too. */
static void unload_commit(void) REQUIRES(library_lock)
{
	struct error_chain before;

	if (region_queued() == 0)
		return;
	/* What fails is no error of the caller's, and stays for the next commit. */
	error_save(&before);
	if (commit_changes_text() && mask_audit_blocking_thread() != 0)
		commit_run_without_text();
	else
		commit_run();
	error_restore(&before);
}

/*
 * Patches that call code in [lower, upper) are over, and are removed from the text. True when no thread runs their
 * procedures or will, and no destroy function there is still to be called.
 */
static bool unload_procedures(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock)
{
	bool used = false;
	struct patch *patch;
	size_t index = 0;

	if (!quiesce_uses(lower, upper))
		return true;
	while ((patch = handle_next(&index)) != NULL) {
		if (!unload_includes(patch_refers_to(patch), lower, upper))
			continue;
		patch_set_goal(patch, GOAL_DISABLED);
		patch->gone = true;
		if (!patch_is_open(patch))
			continue;
		for_each_attachment(patch, a)
			if (a->region != NULL)
				region_queue(a->region);
		/* Nobody comes any more, whether it can be removed from the text now or not. */
		quiesce_set_open(patch, false);
	}
	unload_commit();
	quiesce_poll();
	index = 0;
	while ((patch = handle_next(&index)) != NULL)
		used |= (unload_may_be_in_use(patch) && unload_includes(patch_refers_to(patch), lower, upper)) ||
			unload_includes((uintptr_t)patch->destroy, lower, upper);
	return !used;
}

bool unload_munmap(struct arch_call *call)
{
	uintptr_t lower = (uintptr_t)call->rdi;
	uintptr_t upper = lower + (uintptr_t)call->rsi;
	struct lock_scope scope;
	bool quiet;

	if (lower >= upper || !tls_is_own_libcs() || !lock_acquire(&scope))
		return false;
	quiet = unload_procedures(lower, upper);
	unmapped_end(lower, upper);
	/* What stays, as a procedure runs in it, makes its calls itself. */
	if (interpose_forget(lower, upper) && !quiet)
		mask_audit_incomplete();
	site_forget_unmapped(lower, upper);
	kept += !quiet;
	/* With the lock: who has it sees the module whole, or not at all. */
	call->rax = quiet ? (uint64_t)raw_syscall(SYS_munmap, lower, upper - lower) : 0;
	lock_release_and_register_unwind(&scope);
	(void)INJECT(INJECT_UNMAPPED);
	return true;
}
