/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which threads block owned signals by calls that were not mediated: found in /proc/self/task when calls begin to be
 * mediated, and again before each commit for as long as one of them does. Those are adopted: what they block is what
 * they believe to block from then on.
 */
#include "interpose/mask_audit.h"

#include "arch/syscall.h"
#include "base/syscall.h"
#include "runtime/lock.h"
#include "sys/seize.h"
#include "sys/tasks.h"
#include "trap/app_sigstate.h"
#include "trap/owned_signals.h"

#include <time.h>

#define REMEMBERED 256

static bool incomplete;
static bool adopts = true;

void mask_audit_set_adopts(bool may)
{
	adopts = may;
}

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
 * The kernel puts another mask back at the end of these calls than the one that a thread is seen to block meanwhile.
 */
static bool mask_audit_waits_with_mask(pid_t tid)
{
	switch (tasks_waits_in(tid)) {
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
		return true;
	default:
		return false;
	}
}

/* Those that were to be adopted last, and which of them were. */
static struct mask_audit_list {
	pid_t self;
	pid_t threads[REMEMBERED];
	bool done[REMEMBERED];
	size_t count;
	bool all; /* also those that wait */
} adopted;

static bool mask_audit_was_adopted(pid_t tid)
{
	for (size_t i = 0; i < adopted.count; ++i)
		if (adopted.threads[i] == tid)
			return adopted.done[i];
	return false;
}

/*
 * Does the thread block owned signals, or may it as soon as it has waited? Those that wait are adopted, else. What one
 * that waits is seen to block is the mask of its wait, with which nothing runs outside of the kernel (S8). What it has
 * behind that is as S1 wants it where the call is one of ours, or where the thread was adopted in it.
 */
static bool mask_audit_blocks(pid_t tid, uint64_t blocked)
{
	if (!signals_are_blocked(blocked) && adopts)
		return false;
	if (!mask_audit_waits_with_mask(tid))
		return signals_are_blocked(blocked);
	return !arch_call_is_made(tasks_waits_at(tid)) && !mask_audit_was_adopted(tid);
}

/*
 * Threads that blocked owned signals; once one is found clean it stays so, because it can only change it by a mediated
 * call.
 */
static int blocking[REMEMBERED];
static size_t blocking_count;

static bool mask_audit_remember(pid_t tid, uint64_t blocked, void *data)
{
	if (tid == *(const pid_t *)data || !mask_audit_blocks(tid, blocked))
		return true;
	if (blocking_count < REMEMBERED)
		blocking[blocking_count++] = tid;
	else
		incomplete = true;
	return true;
}

static bool mask_audit_list_thread(pid_t tid, uint64_t blocked, void *data)
{
	struct mask_audit_list *list = data;

	if (tid != list->self && list->count < REMEMBERED &&
	    (signals_are_blocked(blocked) || (list->all && mask_audit_waits_with_mask(tid))))
		list->threads[list->count++] = tid;
	return true;
}

void mask_audit_adopt(bool all)
{
	adopted.count = 0;
	if (!adopts || tasks_is_single())
		return;
	adopted.self = (pid_t)raw_syscall(SYS_gettid);
	adopted.all = all;
	tasks_visit(mask_audit_list_thread, &adopted);
	if (adopted.count > 0) {
		uint64_t everything = SIGNALS_IN_ENTRY, before;

		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, &before, sizeof(before));
		seize_and_unblock(adopted.threads, adopted.done, adopted.count, SIGNALS_OWNED, app_sigstate_place());
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
	}
}

static bool mask_audit_find(pid_t tid, uint64_t blocked, void *data)
{
	if (tid != (pid_t)raw_syscall(SYS_gettid) && mask_audit_blocks(tid, blocked))
		*(int *)data = tid;
	return *(int *)data == 0;
}

static int mask_audit_look_again(void)
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
		if (mask_audit_blocks(tid, blocked))
			return tid;
		--blocking_count;
	}
	return 0;
}

int mask_audit_blocking_thread(void)
{
	int thread = mask_audit_look_again();

	if (thread <= 0)
		return thread;
	mask_audit_adopt(false);
	return mask_audit_look_again();
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
