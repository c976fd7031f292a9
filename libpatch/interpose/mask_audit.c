/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which threads block owned signals by calls that were not mediated: found in /proc/self/task when calls begin to be
 * mediated, and again before each commit for as long as one of them does. A mask is never changed here.
 */
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

static bool mask_audit_visit_nothing(pid_t tid, uint64_t blocked, void *data)
{
	(void)tid;
	(void)blocked;
	(void)data;
	return true;
}

bool mask_audit_is_complete(void)
{
	return !incomplete;
}

bool mask_audit_can_look(void)
{
	return tasks_is_single() || tasks_visit(mask_audit_visit_nothing, NULL);
}

/*
 * Threads that blocked owned signals; once one is found clean it stays so, because it can only change it by a mediated
 * call.
 */
static int blocking[REMEMBERED];
static size_t blocking_count;

static bool mask_audit_remember(pid_t tid, uint64_t blocked, void *data)
{
	if (!signals_are_blocked(blocked) || tid == *(const pid_t *)data)
		return true;
	if (blocking_count < REMEMBERED)
		blocking[blocking_count++] = tid;
	else
		incomplete = true;
	return true;
}

static bool mask_audit_find(pid_t tid, uint64_t blocked, void *data)
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
		bool known = tasks_visit(mask_audit_find, &found);

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

void mask_audit_look(void)
{
	pid_t self = (pid_t)raw_syscall(SYS_gettid);

	if (!tasks_is_single() && !tasks_visit(mask_audit_remember, &self))
		incomplete = true;
}
