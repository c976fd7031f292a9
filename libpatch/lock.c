/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lock.h"

#include "arena.h"
#include "handlers.h"
#include "held.h"
#include "inject.h"
#include "owned.h"
#include "process.h"
#include "threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>

#define FREE 0
#define TAKEN 1
#define CONTENDED 2

static _Atomic int state;
/* This thread holds the lock, or is about to, or was just now: a handler that finds it set has interrupted us. */
static TLS_INITIAL_EXEC bool inside;

static uint64_t set_mask(uint64_t mask)
{
	uint64_t old = 0;

	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, sizeof(mask));
	return old;
}

static void acquire(void)
{
	int expected = FREE;

	if (!atomic_compare_exchange_strong(&state, &expected, TAKEN)) {
		while (atomic_exchange(&state, CONTENDED) != FREE)
			raw_syscall(SYS_futex, &state, FUTEX_WAIT_PRIVATE, CONTENDED, NULL);
	}
}

static void release(void)
{
	if (atomic_exchange(&state, FREE) == CONTENDED)
		raw_syscall(SYS_futex, &state, FUTEX_WAKE_PRIVATE, 1);
}

/* The owned signals stay as the thread has them: a trap byte met under the lock must be served. */
static void block(struct lock_scope *scope)
{
	scope->blocked = true;
	scope->mask = set_mask(~SIGNALS_OWNED);
	if (scope->mask & SIGNALS_OWNED)
		set_mask(~SIGNALS_OWNED | (scope->mask & SIGNALS_OWNED));
}

bool lock_acquire(struct lock_scope *scope)
{
	if (inside)
		return false;

	scope->blocked = false;
	if (!handlers_enter())
		block(scope);
	scope->guard = threads_own_guard();
	libpatch_hook_guard.saved = scope->guard;
	atomic_signal_fence(memory_order_seq_cst);
	libpatch_hook_guard.guard = GUARD_INSIDE;
	inside = true;
	atomic_signal_fence(memory_order_seq_cst);
	acquire();
	return true;
}

/* What a handler or a probe may do again. */
static void leave(const struct lock_scope *scope)
{
	atomic_signal_fence(memory_order_seq_cst);
	inside = false;
	libpatch_hook_guard.guard = scope->guard;
	if (scope->blocked)
		set_mask(scope->mask);
	else
		handlers_leave();
}

/*
 * Registering takes a mutex of libgcc's: not under our lock, nor where others wait for us (handlers_expect()), and not where a
 * handler or a probe that patches can come in between, as it would wait for its own thread.
 */
void lock_release(const struct lock_scope *scope)
{
	struct lock_scope now = *scope;

	release();
	if (arena_has_unregistered()) {
		if (!now.blocked) {
			block(&now);
			handlers_leave();
		}
		arena_register_unwind();
	}
	leave(&now);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

static void forget_parent(void)
{
	process_forked();
	held_forget();
	threads_forget_others();
	handlers_forget_others();
}

long lock_over_fork(lock_fork_fn *fork, void *data)
{
	struct lock_scope scope;
	bool locked = lock_acquire(&scope);
	long result = fork(data);

	if (result == 0)
		forget_parent();
	/* Without registering: in the child a thread that is not there may hold libgcc's mutex. */
	if (locked) {
		release();
		leave(&scope);
	}
	return result;
}

static _Atomic bool by_call;

void lock_forks_by_call(bool yes)
{
	atomic_store(&by_call, yes);
}

/* Of the forking thread, which holds the lock from before to after. */
static struct lock_scope fork_scope;
static bool fork_locked;

static void before_fork(void)
{
	struct lock_scope scope;

	if (atomic_load(&by_call) || !lock_acquire(&scope))
		return;
	/* Another thread has just initialised the library. */
	if (atomic_load(&by_call)) {
		lock_release(&scope);
		return;
	}
	fork_scope = scope;
	fork_locked = true;
}

static void after_fork(void)
{
	struct lock_scope scope;

	if (!fork_locked || !inside)
		return;
	scope = fork_scope;
	fork_locked = false;
	release();
	leave(&scope);
}

static void after_fork_in_child(void)
{
	/* lock_over_fork() was not called, or has done it. */
	if (process_is_new()) {
		forget_parent();
		/* by_call, but the patch on the call was taken away before it was made: whoever had the lock is not here. */
		if (!inside)
			atomic_store(&state, FREE);
	}
	after_fork();
}

int lock_handle_fork(void)
{
	int injected = INJECT(INJECT_ALLOC);

	return injected ? injected : pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
