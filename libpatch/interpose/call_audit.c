/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a thread may still be about to make a call that is not mediated: it was interrupted behind the instruction
 * that has changed, with the number loaded, or in the kernel. Until it is certain that none is, a handler may appear
 * that libpatch does not know of, and a thread may block owned signals in the kernel. Nothing is changed here.
 */
#include "interpose/call_audit.h"

#include "base/syscall.h"
#include "interpose/mask_audit.h"
#include "sys/tasks.h"

#define REMEMBERED 1024

/*
 * All that were there when calls were mediated already. One is in no such call, or not any more, when it has executed
 * code of the program since it was looked at, or waits in another call, or for the memory of an instruction.
 */
static struct suspect {
	pid_t tid;
	uint64_t user_time;
} suspects[REMEMBERED];
static size_t suspect_count;
static enum { NOT_LISTED, LISTED, OVER } calls;

struct call_audit_listing {
	pid_t self;
	bool self_seen;
	size_t visited;
};

static bool call_audit_list_thread(pid_t tid, uint64_t blocked, void *data)
{
	struct call_audit_listing *listing = data;
	struct suspect *suspect = &suspects[suspect_count];

	(void)blocked;
	++listing->visited;
	listing->self_seen |= tid == listing->self;
	if (tid == listing->self)
		return true;
	if (suspect_count == REMEMBERED)
		return false;
	suspect->tid = tid;
	if (!tasks_user_time(tid, &suspect->user_time))
		suspect->user_time = UINT64_MAX;
	++suspect_count;
	return true;
}

/*
 * One that begins or ends meanwhile makes the directory skip others. Where the calling thread is not in it, its numbers
 * are those of another namespace.
 */
static bool call_audit_list(void)
{
	struct call_audit_listing listing = { .self = (pid_t)raw_syscall(SYS_gettid) };
	size_t count = tasks_count();

	suspect_count = 0;
	return tasks_visit(call_audit_list_thread, &listing) && listing.self_seen && listing.visited == count &&
	       tasks_count() == count;
}

static bool call_audit_is_past(const struct suspect *suspect)
{
	struct tasks_wait wait;
	uint64_t user_time;

	if (tasks_user_time(suspect->tid, &user_time) && user_time > suspect->user_time)
		return true;
	tasks_waits_in(suspect->tid, &wait);
	/* They wait for their arguments' memory; calls that wait with a mask are wait_mask.h's. */
	return wait.call != TASKS_RUNS && wait.call != SYS_rt_sigaction && wait.call != SYS_rt_sigprocmask;
}

bool call_audit_is_over(void)
{
	if (!mask_audit_is_complete())
		return false;
	if (calls == NOT_LISTED && call_audit_list())
		calls = LISTED;
	for (size_t i = 0; calls == LISTED && i < suspect_count;) {
		if (call_audit_is_past(&suspects[i]))
			suspects[i] = suspects[--suspect_count];
		else
			++i;
	}
	if (tasks_is_single() || (calls == LISTED && suspect_count == 0))
		calls = OVER;
	return calls == OVER;
}

void call_audit_begin(void)
{
	calls = NOT_LISTED;
}
