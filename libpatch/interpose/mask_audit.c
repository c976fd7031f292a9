/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which threads block owned signals by calls that were not mediated: found in /proc/self/task when calls begin to be
 * mediated, and again before each commit for as long as one of them does. Those are adopted: what they block is what
 * they believe to block from then on.
 */
#include "interpose/mask_audit.h"

#include "arch/syscall.h"
#include "base/heap.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "elf/module.h"
#include "interpose/call_audit.h"
#include "interpose/wait_mask.h"
#include "runtime/lock.h"
#include "sys/process.h"
#include "sys/seize.h"
#include "sys/tasks.h"
#include "sys/tid_set.h"
#include "trap/app_sigstate.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

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

static atomic_bool pending;

void mask_audit_set_pending(bool is)
{
	pending = is;
}

bool mask_audit_is_pending(void)
{
	return pending;
}

bool mask_audit_is_settled(void)
{
	return atomic_load_explicit(&settled, memory_order_relaxed) && !mask_audit_is_pending();
}

bool mask_audit_is_complete(void)
{
	return !incomplete && !pending;
}

/* Of one thread: all are the process's own, and are as readable. */
static bool mask_audit_read_one(pid_t tid, void *data)
{
	uint64_t blocked;

	*(bool *)data = tasks_blocked(tid, SIGNALS_OWNED, &blocked);
	return false;
}

bool mask_audit_can_look(void)
{
	bool readable = false;

	return tasks_is_single() || (tasks_visit(mask_audit_read_one, &readable) && readable);
}

/*
 * Threads that were adopted, and may wait in a call that hides a mask (wait_mask.h): what the kernel puts back at its
 * end lets owned signals through. The call itself goes on, or is begun anew by the kernel, with the mask that it was
 * made with.
 */
static struct tid_set adopted;

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
enum thread_mask { MASK_CLEAN, MASK_PASSING, MASK_BLOCKS, MASK_UNREADABLE };

static enum thread_mask mask_audit_judge(const struct tasks_wait *wait, pid_t tid)
{
	uint64_t blocked;

	if (wait_mask_hides(wait))
		return arch_call_is_made(wait->pc) || tid_set_has(&adopted, tid) ? MASK_CLEAN : MASK_BLOCKS;
	if (!tasks_blocked(tid, SIGNALS_OWNED, &blocked))
		return MASK_UNREADABLE;
	if (!signals_are_blocked(blocked))
		return MASK_CLEAN;
	/* It was seen in the program, and blocked none: a handler begins or ends, as far as calls are mediated. */
	return tid_set_has(&adopted, tid) ? MASK_PASSING : MASK_BLOCKS;
}

/*
 * Threads that were past all calls that are not mediated, and blocked nothing behind that: they stay so, because they
 * can only change it by a mediated call. A new thread that has got the number of one is made by such a call.
 */
static struct tid_set clean;

static bool mask_audit_is_clean(pid_t tid)
{
	return !incomplete && tid_set_has(&clean, tid);
}

/* done[]: which were adopted; there is room for all threads. */
static struct mask_audit_list {
	pid_t self;
	bool known;
	bool passing; /* for one of them MASK_PASSING is all that is known */
	struct tid_set threads;
	bool *done;
	size_t room;
} list;

static void mask_audit_begin_list(void)
{
	list.self = tasks_self();
	list.known = true;
	list.passing = false;
	list.threads.count = 0;
}

/* False: there is no memory. */
static bool mask_audit_list_if_blocking(const struct tasks_wait *wait, pid_t tid, enum thread_mask *mask)
	REQUIRES(library_lock)
{
	*mask = mask_audit_judge(wait, tid);
	list.known &= *mask != MASK_UNREADABLE;
	list.passing |= *mask == MASK_PASSING;
	if (*mask != MASK_BLOCKS)
		return true;
	return heap_reserve(&list.done, &list.room, list.threads.count + 1, sizeof(*list.done)) &&
	       tid_set_add(&list.threads, tid);
}

static bool mask_audit_list_thread(pid_t tid, void *data) REQUIRES(library_lock)
{
	enum thread_mask mask;
	struct tasks_wait wait;

	(void)data;
	if (tid == list.self || mask_audit_is_clean(tid))
		return true;
	tasks_waits_in(tid, &wait);
	list.known &= mask_audit_list_if_blocking(&wait, tid, &mask);
	return true;
}

/* Who does not wait any more may have another mask by now. */
static void mask_audit_forget_adopted(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < adopted.count; ++i)
		if (mask_audit_hides(adopted.tids[i]))
			adopted.tids[kept++] = adopted.tids[i];
	adopted.count = kept;
}

/*
 * What is blocked there says nothing of the program, or will not soon: the thread is about to set it, or has looked at
 * it, by a call that is not mediated; or the kernel has blocked all that the library has it block while a handler
 * begins or ends, or a trap is served (S6), when no frame or word says yet, or still, what the program blocks. Who
 * waits for the library lock has called the library.
 */
static bool mask_audit_is_passing(uintptr_t pc, long call, uint64_t blocked)
{
	const bool all = (blocked | SIGNALS_NEVER_BLOCKED | ~SIGNALS_IN_ENTRY) == ~(uint64_t)0;

	return (call < 0 && call_audit_is_in_front(pc)) || (all && call != SYS_futex && module_is_librarys(pc));
}

/*
 * Adopt those that are listed. Where there is no memory to note it, a thread counts as one that blocks them until it
 * has waited.
 */
static void mask_audit_adopt(void) REQUIRES(library_lock)
{
	uint64_t before;

	if (list.threads.count == 0)
		return;
	memset(list.done, 0, list.threads.count * sizeof(*list.done));
	if (!adopts)
		return;
	before = signals_block();
	seize_and_unblock(list.threads.tids, list.done, list.threads.count, SIGNALS_OWNED, app_sigstate_place(),
			  mask_audit_is_passing);
	signals_set_mask(before);
	for (size_t i = 0; i < list.threads.count; ++i)
		if (list.done[i])
			tid_set_add(&adopted, list.threads.tids[i]);
}

/*
 * Threads that blocked owned signals when calls began to be mediated, and could not be adopted. And those that wait for
 * a child in their memory: it began without our handlers, and shares the text.
 */
static struct tid_set blocking;

static void mask_audit_remember(pid_t tid) REQUIRES(library_lock)
{
	if (!tid_set_add(&blocking, tid))
		incomplete = true;
}

/* A call_audit_visit_fn: the first look. */
static void mask_audit_meet(pid_t tid, const struct tasks_wait *wait, bool past, void *data)
	REQUIRES(library_lock)
{
	enum thread_mask mask;

	(void)data;
	if (!mask_audit_list_if_blocking(wait, tid, &mask))
		incomplete = true;
	if (tasks_is_wait_for_child(wait))
		mask_audit_remember(tid);
	else if (past && mask == MASK_CLEAN)
		tid_set_add(&clean, tid);
}

/* 0: it does neither. */
static int mask_audit_is_to_wait_for(pid_t tid)
{
	struct tasks_wait wait;
	enum thread_mask mask;

	tasks_waits_in(tid, &wait);
	mask = mask_audit_judge(&wait, tid);
	if (mask == MASK_BLOCKS || tasks_is_wait_for_child(&wait))
		return tid;
	return mask == MASK_UNREADABLE ? MASK_AUDIT_UNKNOWN : 0;
}

/* Those that are there, whether they were there before or not. */
static int mask_audit_look_at_all(void)
{
	/* First: what a call has blocked that is over is seen. */
	const bool over = call_audit_is_over();
	bool known;

	mask_audit_begin_list();
	known = (tasks_visit(mask_audit_list_thread, NULL) && list.known) || tasks_is_single();
	all_seen = over && known && list.threads.count == 0 && !list.passing;
	if (list.threads.count > 0)
		return list.threads.tids[0];
	/* Else there is none that could be but one of those interrupted. */
	return known || !incomplete ? 0 : MASK_AUDIT_UNKNOWN;
}

static int mask_audit_look_again(void)
{
	int found = 0;

	if (!all_seen || incomplete)
		found = mask_audit_look_at_all();
	if (incomplete || found != 0)
		return found;
	while (blocking.count > 0) {
		found = mask_audit_is_to_wait_for(blocking.tids[blocking.count - 1]);
		if (found != 0)
			return found;
		--blocking.count;
	}
	return 0;
}

/* A child that has borrowed the memory has its own threads in /proc, not those that run this text. */
static bool mask_audit_is_blind(void)
{
	return (!all_seen || incomplete || blocking.count > 0) && process_is_borrowed();
}

/* The thread that was found, which may look clean by now, and whoever else is found. False: it is not adopted. */
static bool mask_audit_adopt_found(pid_t thread) REQUIRES(library_lock)
{
	bool done = false;

	mask_audit_begin_list();
	if (heap_reserve(&list.done, &list.room, 1, sizeof(*list.done)))
		tid_set_add(&list.threads, thread);
	tasks_visit(mask_audit_list_thread, NULL);
	mask_audit_adopt();
	for (size_t i = 0; i < list.threads.count; ++i)
		done |= list.threads.tids[i] == thread && list.done[i];
	return done && tid_set_has(&adopted, thread);
}

int mask_audit_blocking_thread(void)
{
	int thread;

	if (pending)
		return MASK_AUDIT_PENDING;
	if (mask_audit_is_blind())
		return MASK_AUDIT_UNKNOWN;
	/* What ticks do not tell. */
	if (adopts && !call_audit_is_over())
		call_audit_stop();
	if (!call_audit_is_over())
		call_audit_count_switches();
	mask_audit_forget_adopted();
	thread = mask_audit_look_again();
	/* Who is adopted is not found again. */
	while (thread > 0 && mask_audit_adopt_found(thread))
		thread = mask_audit_look_again();
	settled = thread == 0 && all_seen;
	return thread == 0 && !all_seen ? call_audit_suspect() : thread;
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

static bool mask_audit_is_soon_past(pid_t tid)
{
	struct tasks_wait wait;
	uint64_t blocked;

	tasks_waits_in(tid, &wait);
	return tasks_is_wait_for_child(&wait) ||
	       (tasks_blocked(tid, SIGNALS_OWNED, &blocked) && signals_are_blocked(blocked) &&
		(blocked & LIBC_ONLY) == LIBC_ONLY);
}

/*
 * Some ticks, until a thread that was interrupted behind a window's first instruction has run again. Those of which
 * ticks do not tell it are stopped then: they have little of a processor, or run for less than a tick each time.
 */
#define CALLS_WAIT_NS 30000000

/* patch_init() has left it to the first commit to wait. */
static atomic_bool unfinished;

/* Nothing to wait for, as far as `waited` is not too long: then it is known whether a thread blocks owned signals. */
static bool mask_audit_finish(int64_t waited) REQUIRES(library_lock)
{
	/* Each time: it counts what it sees. */
	const bool over = incomplete || call_audit_is_over();

	for (size_t i = 0; i < blocking.count; ++i)
		if (mask_audit_is_soon_past(blocking.tids[i]))
			return false;
	if (!over && waited < CALLS_WAIT_NS)
		return false;
	mask_audit_blocking_thread();
	return call_audit_suspect() == 0;
}

bool mask_audit_is_finished(void)
{
	return !atomic_load(&unfinished);
}

void mask_audit_wait(void)
{
	const int64_t start = raw_clock(CLOCK_MONOTONIC);
	struct timespec nap = { 0, FIRST_NAP_NS };
	struct lock_scope scope;
	bool finished = mask_audit_is_finished();
	int64_t waited = 0, napped = 0;

	while (!finished && waited < LONGEST_WAIT_NS && lock_acquire(&scope)) {
		finished = mask_audit_finish(waited);
		lock_release(&scope);
		if (finished)
			break;
		raw_syscall(SYS_nanosleep, &nap, NULL);
		napped += nap.tv_nsec;
		waited = raw_waited(start, napped);
		nap.tv_nsec = MIN(nap.tv_nsec * 2, LONGEST_NAP_NS);
	}
	atomic_store(&unfinished, false);
}

void mask_audit_begin(void)
{
	/* It begins when calls are mediated. */
	if (pending)
		return;
	if (tasks_is_single()) {
		all_seen = !incomplete;
		settled = all_seen;
		return;
	}
	all_seen = false;
	settled = false;
	mask_audit_begin_list();
	if (!call_audit_begin(mask_audit_meet, NULL) || !list.known)
		incomplete = true;
	mask_audit_adopt();
	for (size_t i = 0; i < list.threads.count; ++i)
		if (!list.done[i])
			mask_audit_remember(list.threads.tids[i]);
	atomic_store(&unfinished, !mask_audit_finish(0));
}
