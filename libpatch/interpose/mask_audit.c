/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "interpose/mask_audit.h"

#include "base/syscall.h"
#include "runtime/lock.h"
#include "sys/tasks.h"
#include "trap/owned_signals.h"

#include <time.h>

#define REMEMBERED 256

static bool incomplete;

void mask_audit_incomplete(void)
{
	incomplete = true;
}

static bool visit_nothing(pid_t tid, uint64_t blocked, void *data)
{
	(void)tid;
	(void)blocked;
	(void)data;
	return true;
}

bool mask_audit_can_look(void)
{
	return tasks_is_single() || tasks_visit(visit_nothing, NULL);
}

/* ---- threads that block owned signals --------------------------------------------------------------------------- */

/*
 * Threads that blocked owned signals; once one is found clean it stays so, because it can only change it by a mediated
 * call.
 */
static int blocking[REMEMBERED];
static size_t blocking_count;

static bool remember_blocking(pid_t tid, uint64_t blocked, void *data)
{
	if (!signals_are_blocked(blocked) || tid == *(const pid_t *)data)
		return true;
	if (blocking_count < REMEMBERED)
		blocking[blocking_count++] = tid;
	else
		incomplete = true;
	return true;
}

static bool find(pid_t tid, uint64_t blocked, void *data)
{
	if (signals_are_blocked(blocked) && tid != (pid_t)raw_syscall(SYS_gettid))
		*(int *)data = tid;
	return *(int *)data == 0;
}

int mask_audit_blocking_thread(void)
{
	uint64_t blocked;
	int found = 0;

	if (incomplete) {
		bool known = tasks_visit(find, &found);

		return found != 0 || known || tasks_is_single() ? found : MASK_AUDIT_UNKNOWN;
	}
	while (blocking_count > 0) {
		int tid = blocking[blocking_count - 1];

		if (!tasks_blocked(tid, &blocked))
			return MASK_AUDIT_UNKNOWN;
		if (signals_are_blocked(blocked))
			return tid;
		--blocking_count;
	}
	return 0;
}

/*
 * While libc makes a thread, and until that one runs, both block all signals, and the two that libc keeps for itself,
 * which no program can block by its functions. They are past it soon, unless a debugger stopped them.
 */
#define LIBC_ONLY (SIGNALS_BIT(32) | SIGNALS_BIT(33))
#define FIRST_NAP_NS 50000
#define LONGEST_NAP_NS 2000000
#define LONGEST_WAIT_NS 1000000000

static bool is_in_libc(int tid)
{
	uint64_t blocked;

	return tasks_blocked(tid, &blocked) && signals_are_blocked(blocked) && (blocked & LIBC_ONLY) == LIBC_ONLY;
}

static bool any_in_libc(void)
{
	for (size_t i = 0; i < blocking_count; ++i)
		if (is_in_libc(blocking[i]))
			return true;
	return false;
}

void mask_audit_wait_for_libc(void)
{
	struct timespec nap = { 0, FIRST_NAP_NS };
	struct lock_scope scope;

	for (long waited = 0; waited < LONGEST_WAIT_NS && lock_acquire(&scope); waited += nap.tv_nsec) {
		bool any = any_in_libc();

		lock_release(&scope);
		if (!any)
			return;
		raw_syscall(SYS_nanosleep, &nap, NULL);
		nap.tv_nsec = MIN(nap.tv_nsec * 2, LONGEST_NAP_NS);
	}
}

/* ---- threads that may be about to install a handler ------------------------------------------------------------- */

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

struct listing {
	pid_t self;
	bool self_seen;
	size_t visited;
};

static bool suspect(pid_t tid, uint64_t blocked, void *data)
{
	struct listing *listing = data;
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
static bool list_suspects(void)
{
	struct listing listing = { .self = (pid_t)raw_syscall(SYS_gettid) };
	size_t count = tasks_count();

	suspect_count = 0;
	return tasks_visit(suspect, &listing) && listing.self_seen && listing.visited == count &&
	       tasks_count() == count;
}

static bool is_past(const struct suspect *suspect)
{
	uint64_t user_time;
	long call;

	if (tasks_user_time(suspect->tid, &user_time) && user_time > suspect->user_time)
		return true;
	call = tasks_waits_in(suspect->tid);
	return call != TASKS_RUNS && call != SYS_rt_sigaction;
}

bool mask_audit_is_over(void)
{
	if (incomplete)
		return false;
	if (handlers == NOT_LISTED && list_suspects())
		handlers = LISTED;
	for (size_t i = 0; handlers == LISTED && i < suspect_count;) {
		if (is_past(&suspects[i]))
			suspects[i] = suspects[--suspect_count];
		else
			++i;
	}
	if (tasks_is_single() || (handlers == LISTED && suspect_count == 0))
		handlers = OVER;
	return handlers == OVER;
}

/* ---- both ------------------------------------------------------------------------------------------------------- */

void mask_audit_look(void)
{
	pid_t self = (pid_t)raw_syscall(SYS_gettid);

	handlers = NOT_LISTED;
	if (!tasks_is_single() && !tasks_visit(remember_blocking, &self))
		incomplete = true;
}
