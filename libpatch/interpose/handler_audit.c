/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a thread may still be inside a call that installs a handler and was not mediated. Until it is certain that
 * none is, a handler may appear that libpatch does not know of. No handler is changed here.
 */
#include "interpose/handler_audit.h"

#include "base/syscall.h"
#include "interpose/mask_audit.h"
#include "sys/tasks.h"

#define REMEMBERED 256

/*
 * All that were there when calls were mediated already. One was in no such call, or is not any more, when it has
 * executed code of the program since it was looked at, or waits in another call, or for the memory of an instruction.
 */
static struct suspect {
	pid_t tid;
	uint64_t user_time;
} suspects[REMEMBERED];
static size_t suspect_count;
static enum { NOT_LISTED, LISTED, OVER } handlers;

struct handler_audit_listing {
	pid_t self;
	bool self_seen;
	size_t visited;
};

static bool handler_audit_list_thread(pid_t tid, uint64_t blocked, void *data)
{
	struct handler_audit_listing *listing = data;
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
static bool handler_audit_list(void)
{
	struct handler_audit_listing listing = { .self = (pid_t)raw_syscall(SYS_gettid) };
	size_t count = tasks_count();

	suspect_count = 0;
	return tasks_visit(handler_audit_list_thread, &listing) && listing.self_seen && listing.visited == count &&
	       tasks_count() == count;
}

static bool handler_audit_is_past(const struct suspect *suspect)
{
	struct tasks_wait wait;
	uint64_t user_time;

	if (tasks_user_time(suspect->tid, &user_time) && user_time > suspect->user_time)
		return true;
	tasks_waits_in(suspect->tid, &wait);
	return wait.call != TASKS_RUNS && wait.call != SYS_rt_sigaction;
}

bool handler_audit_is_over(void)
{
	if (!mask_audit_is_complete())
		return false;
	if (handlers == NOT_LISTED && handler_audit_list())
		handlers = LISTED;
	for (size_t i = 0; handlers == LISTED && i < suspect_count;) {
		if (handler_audit_is_past(&suspects[i]))
			suspects[i] = suspects[--suspect_count];
		else
			++i;
	}
	if (tasks_is_single() || (handlers == LISTED && suspect_count == 0))
		handlers = OVER;
	return handlers == OVER;
}

void handler_audit_begin(void)
{
	handlers = NOT_LISTED;
}
