/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which threads block owned signals by calls that were not mediated: found in /proc/self/task when calls begin to be
 * mediated, and again before each commit for as long as one of them does. Those are adopted: what they block is what
 * they believe to block from then on.
 */
#include "interpose/mask_audit.h"

#include "arch/syscall.h"
#include "base/syscall.h"
#include "interpose/call_audit.h"
#include "interpose/wait_mask.h"
#include "runtime/lock.h"
#include "sys/seize.h"
#include "sys/tasks.h"
#include "trap/app_sigstate.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>
#include <time.h>

#define REMEMBERED 1024

static atomic_bool incomplete;
static bool adopts = true;
static atomic_bool settled;
/*
 * No thread has been found to block them since the last call was over that was not mediated (call_audit.h): one that
 * was about to make it when calls began to be mediated looked clean then.
 */
static bool all_seen;

void mask_audit_set_adopts(bool may)
{
	adopts = may;
}

bool mask_audit_adopts(void)
{
	return adopts;
}

void mask_audit_incomplete(void)
{
	incomplete = true;
	settled = false;
}

bool mask_audit_is_settled(void)
{
	return atomic_load_explicit(&settled, memory_order_relaxed);
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
 * Threads that were adopted, and may wait in a call that hides a mask (wait_mask.h): what the kernel puts back at its
 * end lets owned signals through. The call itself goes on, or is begun anew by the kernel, with the mask that it was
 * made with.
 */
static pid_t adopted[REMEMBERED];
static size_t adopted_count;

static bool mask_audit_is_adopted(pid_t tid)
{
	for (size_t i = 0; i < adopted_count; ++i)
		if (adopted[i] == tid)
			return true;
	return false;
}

static bool mask_audit_hides(pid_t tid)
{
	struct tasks_wait wait;

	tasks_waits_in(tid, &wait);
	return wait_mask_hides(&wait) && !arch_call_is_made(wait.pc);
}

/*
 * Does the thread block owned signals, or may it as soon as it has waited? What it blocks for the time of a wait does
 * no harm (S8). What it is seen to block is asked behind that: it may have waited until now.
 */
static bool mask_audit_blocks_in(const struct tasks_wait *wait, pid_t tid)
{
	uint64_t blocked;

	if (wait_mask_hides(wait))
		return !arch_call_is_made(wait->pc) && !mask_audit_is_adopted(tid);
	return tasks_blocked(tid, &blocked) && signals_are_blocked(blocked);
}

static bool mask_audit_blocks(pid_t tid)
{
	struct tasks_wait wait;

	tasks_waits_in(tid, &wait);
	return mask_audit_blocks_in(&wait, tid);
}

/*
 * Threads that blocked owned signals; once one is found clean it stays so, because it can only change it by a mediated
 * call. And those that wait for a child in their memory: it began without our handlers, and shares the text.
 */
static int blocking[REMEMBERED];
static size_t blocking_count;

static bool mask_audit_is_to_wait_for(pid_t tid)
{
	struct tasks_wait wait;

	tasks_waits_in(tid, &wait);
	return mask_audit_blocks_in(&wait, tid) || tasks_is_wait_for_child(&wait);
}

static bool mask_audit_remember(pid_t tid, uint64_t blocked, void *data)
{
	(void)blocked;
	if (tid == *(const pid_t *)data || !mask_audit_is_to_wait_for(tid))
		return true;
	if (blocking_count < REMEMBERED)
		blocking[blocking_count++] = tid;
	else
		incomplete = true;
	return true;
}

struct mask_audit_list {
	pid_t self;
	pid_t threads[REMEMBERED];
	bool done[REMEMBERED];
	size_t count;
};

static bool mask_audit_list_thread(pid_t tid, uint64_t blocked, void *data)
{
	struct mask_audit_list *list = data;

	(void)blocked;
	if (tid != list->self && list->count < REMEMBERED && mask_audit_blocks(tid))
		list->threads[list->count++] = tid;
	return true;
}

/* Who does not wait any more may have another mask by now. */
static void mask_audit_forget_adopted(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < adopted_count; ++i)
		if (mask_audit_hides(adopted[i]))
			adopted[kept++] = adopted[i];
	adopted_count = kept;
}

/* Where there is no room, the thread counts as one that blocks them until it has waited. */
static void mask_audit_note_adopted(const struct mask_audit_list *list)
{
	for (size_t i = 0; i < list->count; ++i)
		if (list->done[i] && adopted_count < REMEMBERED && !mask_audit_is_adopted(list->threads[i]))
			adopted[adopted_count++] = list->threads[i];
}

void mask_audit_adopt(void)
{
	static struct mask_audit_list list;

	if (!adopts || tasks_is_single())
		return;
	list.self = (pid_t)raw_syscall(SYS_gettid);
	list.count = 0;
	tasks_visit(mask_audit_list_thread, &list);
	if (list.count > 0) {
		uint64_t everything = SIGNALS_IN_ENTRY, before;

		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &everything, &before, sizeof(before));
		seize_and_unblock(list.threads, list.done, list.count, SIGNALS_OWNED, app_sigstate_place());
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
		mask_audit_note_adopted(&list);
	}
}

static bool mask_audit_find(pid_t tid, uint64_t blocked, void *data)
{
	(void)blocked;
	if (tid != (pid_t)raw_syscall(SYS_gettid) && mask_audit_blocks(tid))
		*(int *)data = tid;
	return *(int *)data == 0;
}

/* Those that are there, whether they were there before or not. */
static int mask_audit_look_at_all(void)
{
	/* First: what a call has blocked that is over is seen. */
	const bool over = call_audit_is_over();
	int found = 0;
	bool known = tasks_visit(mask_audit_find, &found) || tasks_is_single();

	all_seen = over && known && found == 0;
	/* Else there is none that could be but one of those interrupted. */
	return found != 0 || known || !incomplete ? found : MASK_AUDIT_UNKNOWN;
}

static int mask_audit_look_again(void)
{
	uint64_t blocked;
	int found = 0;

	if (!all_seen || incomplete)
		found = mask_audit_look_at_all();
	if (incomplete || found != 0)
		return found;
	while (blocking_count > 0) {
		int tid = blocking[blocking_count - 1];

		if (!tasks_blocked(tid, &blocked))
			return MASK_AUDIT_UNKNOWN;
		if (mask_audit_is_to_wait_for(tid))
			return tid;
		--blocking_count;
	}
	return 0;
}

int mask_audit_blocking_thread(void)
{
	int thread;

	mask_audit_forget_adopted();
	thread = mask_audit_look_again();
	if (thread > 0) {
		mask_audit_adopt();
		thread = mask_audit_look_again();
	}
	settled = thread == 0 && all_seen;
	return thread;
}

/*
 * While libc makes a thread, and until that one runs, both block all signals, and the two that libc keeps for itself,
 * which no program can block by its functions. They are past it soon, unless a debugger stopped them. So are those that
 * wait for a child that has borrowed their memory to execute its program, as a rule.
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

/* Some ticks, until a thread that was interrupted behind a window's first instruction has run again. */
#define CALLS_WAIT_NS 30000000

static bool any_in_libc(void)
{
	for (size_t i = 0; i < blocking_count; ++i)
		if (is_in_libc(blocking[i]) || tasks_waits_for_child(blocking[i]))
			return true;
	return false;
}

void mask_audit_wait(void)
{
	struct timespec nap = { 0, FIRST_NAP_NS };
	struct lock_scope scope;

	for (long waited = 0; waited < LONGEST_WAIT_NS && lock_acquire(&scope); waited += nap.tv_nsec) {
		bool any = any_in_libc() || (waited < CALLS_WAIT_NS && !incomplete && !call_audit_is_over());

		if (!any)
			mask_audit_blocking_thread();
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
	all_seen = false;
	settled = false;
}
