/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_commit(): what is queued becomes a batch, the batch is committed, and what is gone afterwards is destroyed. The
 * protocol by which text is changed is in commit/.
 */
#include "api/patch_commit.h"

#include "base/error.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "commit/commit.h"
#include "commit/replan.h"
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "interpose/syscall_emul.h"
#include "patch/handle.h"
#include "patch/hookset.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "patch/unmapped.h"
#include "plan/site.h"
#include "sys/mem_read.h"
#include "sys/membarrier.h"
#include "sys/process.h"
#include "sys/tasks.h"

/*
 * Queue the regions of a changed patch. A patch that has no effect and had none leaves a region alone of which
 * nothing is in the text.
 */
static void api_queue_patch(struct patch *patch) REQUIRES(library_lock)
{
	bool has_effect = patch_is_wanted(patch) || patch_is_open(patch);

	for_each_attachment(patch, a) {
		struct region *region = a->region;

		if (region == NULL || (!has_effect && !region->installed))
			continue;
		if (patch_is_released(patch))
			hookset_settle_for_less(region);
		region_queue(region);
	}
}

/* After a commit: false when it has a change still. */
static bool api_settle_patch(struct patch *patch) REQUIRES(library_lock)
{
	if (!patch_is_released(patch))
		return true;
	if (patch_is_pending(patch) || patch_is_open(patch))
		return false;
	region_detach(patch);
	quiesce_detached(patch);
	return true;
}

/* With the lock held: everything queued, as one batch; or what of it needs no change of text. */
patch_status api_commit_queue(bool text)
{
	patch_status status;

	mem_trust(0, 0);
	unmapped_collect();
	status = text ? commit_run() : commit_run_without_text();
	/* Modules come and go: what was learnt of them is good for one batch. */
	site_forget();
	heap_tidy();
	handle_settle(api_settle_patch);
	return status;
}

/*
 * Destroy functions are code of the host: they run without the lock, may call the library, and change no error of ours.
 * Not analysed: the lock is taken again without a look at the result, as this thread does not hold it.
 */
static void api_destroy_due(void) NO_THREAD_SAFETY_ANALYSIS
{
	struct error_chain errors;
	struct lock_scope scope;
	struct patch *patch;

	error_save(&errors);
	while (lock_acquire(&scope)) {
		patch = quiesce_take();
		lock_release(&scope);
		if (patch == NULL)
			break;
		patch->destroy(patch_procedure(patch).user_data);
		lock_acquire(&scope);
		quiesce_destroyed(patch);
		lock_release(&scope);
	}
	error_restore(&errors);
}

/* After a commit: what is gone goes. */
patch_status api_leave_and_destroy(const struct lock_scope *scope, patch_status status)
{
	bool due;

	quiesce_poll();
	due = quiesce_is_due();
	status = api_leave(scope, status);
	if (due)
		api_destroy_due();
	return status;
}

void api_queue_regions(void)
{
	handle_visit_changed(api_queue_patch);
}

/* What patch_init() could not do is done. */
static void api_finish_start(void)
{
	struct lock_scope scope;

	if (!lock_acquire(&scope))
		return;
	if (interpose_try_again())
		syscall_emul_adopt(&scope.mask);
	lock_release(&scope);
}

void api_wait_for_start(void)
{
	const bool pending = mask_audit_is_pending();

	if (api_life() != API_ALIVE || lock_is_inside() ||
	    (!pending && core_sync_is_registered() && mask_audit_is_finished()) || process_is_borrowed())
		return;
	if (pending)
		api_finish_start();
	/* What fails here the commit fails by. Threads go on meanwhile: there is less to wait for behind it. */
	core_sync_register();
	mask_audit_wait();
}

/*
 * A thread that meets a trap byte with SIGTRAP blocked is the process's end (kernel/signal.c,
 * force_sig_info_to_task()).
 */
patch_status api_check_threads(const char *origin)
{
	int thread = commit_changes_text() ? mask_audit_blocking_thread() : 0;
	char name[TASKS_TEXT];

	if (thread == 0)
		return PATCH_OK;
	if (thread == MASK_AUDIT_PENDING)
		return error_raise(PATCH_EBLOCKED, origin,
				   "system calls by which threads may block SIGTRAP or SIGILL are not mediated, and "
				   "who makes one would be killed by a trap byte: beside other threads the kernel "
				   "refuses to exchange the pages that have them, as where text is sealed (mseal(2)), "
				   "and libpatch may not stop the threads. End what traces them (a debugger), allow "
				   "ptrace(2) and PATCH_OPT_ADOPT_THREADS, or start libpatch while there is one "
				   "thread, and commit again",
				   NULL);
	if (thread == MASK_AUDIT_UNKNOWN && process_is_borrowed())
		return error_raise(PATCH_EFAIL, origin,
				   "called in a child that runs in its parent's memory (vfork(2)): what signals the "
				   "parent's threads block is not seen from there, and one that blocks SIGTRAP or "
				   "SIGILL would be killed. The parent's next commit makes the change",
				   NULL);
	if (thread == MASK_AUDIT_UNKNOWN)
		return error_raise(PATCH_ESYS, origin,
				   "/proc/self/task, which tells what signals the threads block, cannot be read: "
				   "one that blocks SIGTRAP or SIGILL would be killed",
				   NULL);
	tasks_describe(thread, name);
	if (!mask_audit_adopts())
		return error_raise_name(PATCH_EBLOCKED, origin,
					"a thread blocks SIGTRAP or SIGILL, or may do so behind the call that it waits "
					"in, or has not run since patch_init() and may be about to block them, and "
					"would be killed by a trap byte: PATCH_OPT_ADOPT_THREADS is false, so that "
					"libpatch leaves it alone. Have the thread run and unblock them, and commit "
					"again",
					name);
	return error_raise_name(PATCH_EBLOCKED, origin,
				"a thread blocks SIGTRAP or SIGILL, and would be killed by a trap byte: libpatch may "
				"not trace it, to change that. Or it waits for a child of vfork(2) from before "
				"patch_init(), or has not run since, and may be about to block them. End what traces "
				"it (a debugger), allow ptrace(2), have the thread run and unblock them, or its child "
				"execute its program, and commit again",
				name);
}

EXPORT patch_status patch_commit(void)
{
	struct error_chain before;
	struct lock_scope scope;
	patch_status status, blocked;

	api_wait_for_start();
	if (!api_enter(&scope, "patch_commit", &status))
		return status;
	api_queue_regions();
	syscall_emul_look_for_handlers();
	blocked = api_check_threads("patch_commit");
	status = api_commit_queue(blocked == PATCH_OK);
	if (blocked != PATCH_OK)
		status = blocked;
	/* What was queued may have changed no text, and nobody has looked. */
	if (status == PATCH_OK && replan_is_due() && mask_audit_blocking_thread() == 0 && replan_begin()) {
		/* Nobody asked for this. What fails of it works as it is, and is on the list for the next commit. */
		error_save(&before);
		api_commit_queue(true);
		replan_go_on();
		api_commit_queue(true);
		error_restore(&before);
	}
	return api_leave_and_destroy(&scope, status);
}
