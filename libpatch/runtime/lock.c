/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library lock: a futex word, and what keeps the thread that holds it undisturbed. Waits for the lock, for nothing
 * else. What it protects is not known here.
 */
#include "runtime/lock.h"

#include "arch/x86_64/hook_frame.h"
#include "base/scratch.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "code/unwinders.h"
#include "runtime/app_handlers.h"
#include "runtime/hook_guard.h"
#include "runtime/own_stack.h"
#include "trap/owned_signals.h"
#include "sys/process.h"
#include "runtime/hook_threads.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>

#define FREE 0
#define TAKEN 1
#define CONTENDED 2

/* In a child of fork(), free. */
static _Atomic int *const state = &libpatch_process_own.lock;
/* The holder of the lock is at it. In a child the holder may be a thread that is not there. */
static bool changing;
static bool half_changed;
/* This thread holds the lock, or is about to, or was just now: a handler that finds it set has interrupted us. */
static TLS_INITIAL_EXEC bool inside;
#ifdef LIBPATCH_INJECT
/* Unit tests of single modules never take the lock. */
static bool ever_taken;
#endif

static uint64_t lock_change_mask(int how, uint64_t mask)
{
	uint64_t old = 0;

	raw_syscall(SYS_rt_sigprocmask, how, &mask, &old, sizeof(mask));
	return old;
}

static void lock_take_word(_Atomic int *word)
{
	int expected = FREE;

	if (!atomic_compare_exchange_strong(word, &expected, TAKEN)) {
		while (atomic_exchange(word, CONTENDED) != FREE)
			raw_syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, CONTENDED, NULL);
	}
}

static void lock_give_word(_Atomic int *word)
{
	if (atomic_exchange(word, FREE) == CONTENDED)
		raw_syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

static void lock_give_up(void) REQUIRES(library_lock)
{
	scratch_end();
	changing = false;
	lock_give_word(state);
}

/*
 * The owned signals stay as the thread has them: a trap byte met under the lock must be served. So does SIGSYS, which
 * filters raise for our own system calls, and which ends a process that blocks it.
 */
static void lock_block_signals(struct lock_scope *scope)
{
	scope->blocked = true;
	scope->mask = lock_change_mask(SIG_BLOCK, SIGNALS_IN_ENTRY & ~SIGNALS_OWNED);
}

/* What a handler or a probe may do again. */
static void lock_leave(const struct lock_scope *scope)
{
	atomic_signal_fence(memory_order_seq_cst);
	inside = false;
	libpatch_hook_guard.guard = scope->guard;
	if (scope->blocked)
		lock_change_mask(SIG_SETMASK, scope->mask);
	else
		app_handlers_leave();
}

/* This and the two that release are what the analysis starts from: they are not analysed. */
bool lock_acquire(struct lock_scope *scope) NO_THREAD_SAFETY_ANALYSIS
{
	if (inside)
		return false;

	scope->blocked = false;
	if (!app_handlers_enter())
		lock_block_signals(scope);
	scope->guard = hook_threads_own_guard();
	libpatch_hook_guard.saved = scope->guard;
	atomic_signal_fence(memory_order_seq_cst);
	libpatch_hook_guard.guard = GUARD_INSIDE;
	inside = true;
	atomic_signal_fence(memory_order_seq_cst);
	lock_take_word(state);
	half_changed |= changing;
	if (half_changed) {
		lock_give_word(state);
		lock_leave(scope);
		return false;
	}
	changing = true;
#ifdef LIBPATCH_INJECT
	ever_taken = true;
#endif
	return true;
}

const char *lock_refusal(void)
{
	return inside ? "called by a handler that interrupted libpatch in this thread" :
			"the process was copied, other than by fork(), while a thread of its parent was in libpatch";
}

void lock_release(const struct lock_scope *scope) NO_THREAD_SAFETY_ANALYSIS
{
	lock_give_up();
	lock_leave(scope);
}

/* No thread returns before what it described itself is registered. */
void lock_release_and_register_unwind(const struct lock_scope *scope) NO_THREAD_SAFETY_ANALYSIS
{
	struct unwinders_range *taken = unwinders_take();
	uintptr_t guard = scope->guard;

	lock_give_up();
	lock_leave(scope);
	if (own_stack_is_own(guard))
		guard = arch_hook_stack_pointer(guard);
	unwinders_register(taken, guard < GUARD_UNKNOWN ? guard : 0);
}

bool lock_is_inside(void)
{
	return inside;
}

#ifdef LIBPATCH_INJECT
bool lock_may_be_held(void)
{
	return !ever_taken || (inside && atomic_load(state) != FREE);
}
#endif
