/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forks: the parent holds the library lock over them, so that the child finds everything whole; and the child forgets
 * the threads of its parent. How the program's calls get here is not known here (interpose/).
 */
#include "runtime/fork.h"

#include "base/inject.h"
#include "base/thread_safety.h"
#include "runtime/app_handlers.h"
#include "runtime/hook_threads.h"
#include "runtime/lock.h"
#include "runtime/own_stack.h"
#include "sys/process.h"
#include "sys/tasks.h"
#include "trap/action.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigwait.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static void fork_forget_parent(void)
{
	process_forked();
	app_sigpending_forget();
	app_sigwait_forget();
	hook_threads_forget_others();
	own_stack_forget_others();
	app_handlers_forget_others();
}

/* With the lock or without: not analysed. */
long lock_over_fork(lock_fork_fn *fork, void *data) NO_THREAD_SAFETY_ANALYSIS
{
	struct lock_scope scope;
	bool locked = lock_acquire(&scope);
	long result;

	result = fork(data);
	if (result == 0)
		fork_forget_parent();
	/* Without registering: libc's handlers for the child have not been called. */
	if (locked)
		lock_release(&scope);
	return result;
}

static _Atomic enum lock_forks forks;

void lock_set_forks(enum lock_forks now)
{
	atomic_store(&forks, now);
}

static atomic_bool filtered;

static bool fork_has_handler_of_filters(void)
{
	struct kernel_sigaction action;

	return action_get(SIGSYS, &action) == 0 && action.handler != (void *)(uintptr_t)SIG_DFL &&
	       action.handler != (void *)(uintptr_t)SIG_IGN;
}

static bool fork_look_for_filter(pid_t tid, void *unused)
{
	(void)unused;
	if (tasks_is_filtered(tid))
		atomic_store(&filtered, true);
	return !atomic_load(&filtered);
}

/* What others have matters as long as it is not the end of the process. */
void lock_look_for_filters(void)
{
	if (fork_look_for_filter(tasks_self(), NULL) && fork_has_handler_of_filters())
		tasks_visit(fork_look_for_filter, NULL);
}

void lock_note_filter(void)
{
	atomic_store(&filtered, true);
}

bool lock_fork_is_filtered(void)
{
	return atomic_load(&filtered) && fork_has_handler_of_filters();
}

static bool fork_is_by_call(void)
{
	return atomic_load(&forks) == LOCK_FORKS_BY_CALL && !lock_fork_is_filtered();
}

/* Of the forking thread, which holds the lock from before to after. */
static struct lock_scope fork_scope;
static bool fork_locked;

/* The lock is held when it returns, or not: not analysed. */
static void fork_before(void) NO_THREAD_SAFETY_ANALYSIS
{
	struct lock_scope scope;

	if (fork_is_by_call() || !lock_acquire(&scope))
		return;
	if (atomic_load(&forks) == LOCK_FORKS_ARE_FREE || fork_is_by_call()) {
		/* patch_init() or patch_fini() was waited for. */
		lock_release(&scope);
		return;
	}
	fork_scope = scope;
	fork_locked = true;
}

/* Only gives back what fork_before() took: not analysed. */
static void fork_after(void) NO_THREAD_SAFETY_ANALYSIS
{
	struct lock_scope scope;

	if (!fork_locked || !lock_is_inside())
		return;
	scope = fork_scope;
	fork_locked = false;
	lock_release(&scope);
}

static void fork_after_in_child(void)
{
	/* lock_over_fork() was not called, or has done it. */
	if (process_is_new())
		fork_forget_parent();
	fork_after();
}

int lock_handle_fork(void)
{
	int injected = INJECT(INJECT_ALLOC);

	return injected ? injected : pthread_atfork(fork_before, fork_after, fork_after_in_child);
}
