/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "runtime/lock.h"

#include "base/syscall.h"
#include "code/arena.h"
#include "runtime/app_handlers.h"
#include "runtime/hook_guard.h"
#include "trap/app_sigpending.h"
#include "base/inject.h"
#include "trap/owned_signals.h"
#include "sys/process.h"
#include "runtime/hook_threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define FREE 0
#define TAKEN 1
#define CONTENDED 2

/* In a child of fork(), free. */
static _Atomic int *const state = &libpatch_process_own.lock;
/* Whoever has the lock is at it. In a child it may be somebody who is not there. */
static bool changing;
static bool half_changed;
/* Held while unwind descriptions are registered. */
static _Atomic int *const registering = &libpatch_process_own.registering;
/* This thread holds the lock, or is about to, or was just now: a handler that finds it set has interrupted us. */
static TLS_INITIAL_EXEC bool inside;

static uint64_t set_mask(uint64_t mask)
{
	uint64_t old = 0;

	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, sizeof(mask));
	return old;
}

static void take(_Atomic int *word)
{
	int expected = FREE;

	if (!atomic_compare_exchange_strong(word, &expected, TAKEN)) {
		while (atomic_exchange(word, CONTENDED) != FREE)
			raw_syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, CONTENDED, NULL);
	}
}

static void give(_Atomic int *word)
{
	if (atomic_exchange(word, FREE) == CONTENDED)
		raw_syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

static void release(void)
{
	changing = false;
	give(state);
}

/* The owned signals stay as the thread has them: a trap byte met under the lock must be served. */
static void block(struct lock_scope *scope)
{
	scope->blocked = true;
	scope->mask = set_mask(~SIGNALS_OWNED);
	if (scope->mask & SIGNALS_OWNED)
		set_mask(~SIGNALS_OWNED | (scope->mask & SIGNALS_OWNED));
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
		app_handlers_leave();
}

bool lock_acquire(struct lock_scope *scope)
{
	if (inside)
		return false;

	scope->blocked = false;
	if (!app_handlers_enter())
		block(scope);
	scope->guard = hook_threads_own_guard();
	libpatch_hook_guard.saved = scope->guard;
	atomic_signal_fence(memory_order_seq_cst);
	libpatch_hook_guard.guard = GUARD_INSIDE;
	inside = true;
	atomic_signal_fence(memory_order_seq_cst);
	take(state);
	half_changed |= changing;
	if (half_changed) {
		give(state);
		leave(scope);
		return false;
	}
	changing = true;
	return true;
}

const char *lock_refusal(void)
{
	return inside ? "called by a handler that interrupted libpatch in this thread" :
			"the process was copied, other than by fork(), while a thread of its parent was in libpatch";
}

/*
 * Registering takes a mutex of libgcc's: not under our lock, nor where others wait for us (app_handlers_expect()), and not where a
 * handler or a probe that patches can come in between, as it would wait for its own thread. Nobody returns before what another
 * thread registers is: it may be of code that this thread has patched.
 */
void lock_release(const struct lock_scope *scope)
{
	struct lock_scope now = *scope;

	release();
	if (arena_has_unregistered() || atomic_load(registering) != FREE) {
		if (!now.blocked) {
			block(&now);
			app_handlers_leave();
		}
		take(registering);
		arena_register_unwind();
		give(registering);
	}
	leave(&now);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

static void forget_parent(void)
{
	process_forked();
	app_sigpending_forget();
	hook_threads_forget_others();
	app_handlers_forget_others();
}

long lock_over_fork(lock_fork_fn *fork, void *data)
{
	struct lock_scope scope;
	bool locked = lock_acquire(&scope);
	long result;

	if (locked)
		take(registering);
	result = fork(data);
	if (result == 0)
		forget_parent();
	/* Without registering: libc's handlers for the child have not been called. */
	if (locked) {
		give(registering);
		release();
		leave(&scope);
	}
	return result;
}

static _Atomic enum lock_forks forks;

void lock_set_forks(enum lock_forks now)
{
	atomic_store(&forks, now);
}

/* Of the forking thread, which holds the lock from before to after. */
static struct lock_scope fork_scope;
static bool fork_locked;

static void before_fork(void)
{
	struct lock_scope scope;

	if (atomic_load(&forks) == LOCK_FORKS_BY_CALL || !lock_acquire(&scope))
		return;
	if (atomic_load(&forks) != LOCK_FORKS_BY_HANDLER) {
		/* patch_init() or patch_fini() was waited for. */
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
	if (process_is_new())
		forget_parent();
	after_fork();
}

int lock_handle_fork(void)
{
	int injected = INJECT(INJECT_ALLOC);

	return injected ? injected : pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
