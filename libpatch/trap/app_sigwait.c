/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells signals of the process to threads that wait for them.
 *
 * The thread that tells one wakes the other by a signal of the same number, and the kernel drops a signal that is sent
 * to a thread for which one of that number is pending. So a wake must never be pending without need: the signal is
 * taken from the process and given to the thread before the wake is sent, so that nobody else takes it; and the thread
 * does not leave its wait while a wake is on its way. What the kernel drops beside a wake is then a second signal for a
 * thread that has not accepted its first one yet.
 */
#include "trap/app_sigwait.h"

#include "base/inject.h"
#include "base/syscall.h"
#include "sys/process.h"
#include "trap/app_sigpending.h"
#include "trap/owned_signals.h"

#include <linux/futex.h>
#include <stdatomic.h>

/* Threads that wait for owned signals of the process; more than these are found at their next wait only. */
#define WAITERS 64

/*
 * States of a waiter, in one word with the thread that has it: what a handler has cut short is told from what another
 * thread has begun.
 */
#define FREE 0U
#define TELLING 1U /* another thread writes `info` and sends a wake: does not last */
#define TOLD 2U /* `info` is the thread's, and the wake has been sent */
#define OPENS(index) (4U << (index)) /* the thread waits for signals_ownable[index], and perhaps for others */
#define OF_THREAD(tid) ((unsigned int)(tid) << 4)
#define IS_OF(state, tid) ((state) >> 4 == (unsigned int)(tid))

struct waiter {
	_Atomic unsigned int state;
	siginfo_t info;
};

static struct waiter waiters[WAITERS];

/* The thread's own, if it has one: NULL or any other is none. */
static TLS_INITIAL_EXEC struct waiter *offer;

void app_sigwait_offer(struct mediated *call, uint64_t accepted)
{
	unsigned int opens = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (accepted & SIGNALS_BIT(signals_ownable[index]))
			opens |= OPENS(index);
	/* A child in its parent's memory is alone in its process. */
	if (opens == 0 || process_is_borrowed())
		return;
	call->tid = (int)raw_syscall(SYS_gettid);
	for (size_t i = 0; i < WAITERS; ++i) {
		unsigned int expected = FREE;

		/* First: a handler that comes finds it. */
		offer = &waiters[i];
		atomic_signal_fence(memory_order_seq_cst);
		if (atomic_compare_exchange_strong(&waiters[i].state, &expected, OF_THREAD(call->tid) | opens))
			return;
	}
	offer = NULL;
}

static void app_sigwait_set_state(struct waiter *waiter, unsigned int state)
{
	atomic_store(&waiter->state, state);
	raw_syscall(SYS_futex, &waiter->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

bool app_sigwait_withdraw(struct mediated *call)
{
	struct waiter *mine = offer;
	unsigned int state = mine != NULL ? atomic_load(&mine->state) : FREE;

	for (; state != FREE && IS_OF(state, call->tid); state = atomic_load(&mine->state)) {
		if (state & TELLING) {
			/* The other thread blocks all signals, and is about to be done. */
			raw_syscall(SYS_futex, &mine->state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
		} else if (state & TOLD) {
			call->told = mine->info;
			atomic_signal_fence(memory_order_seq_cst);
			call->is_told = true;
			atomic_signal_fence(memory_order_seq_cst);
			atomic_store(&mine->state, FREE);
			/* Any call: the wake arrives at its end, where it is not blocked. */
			raw_syscall(SYS_getpid);
		} else {
			atomic_compare_exchange_strong(&mine->state, &state, FREE);
		}
	}
	offer = NULL;
	return call->is_told;
}

/* False: the waiter is not there any more, or its process is another one. */
static bool app_sigwait_wake(unsigned int tid, int signo)
{
	siginfo_t wake = { 0 };

	wake.si_signo = signo;
	/* The kernel lets nobody say to another thread that it was kill(); the true words are in waiter->info. */
	wake.si_code = SI_QUEUE;
	wake.si_value.sival_ptr = waiters;
	return raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), tid, signo, &wake) == 0;
}

/* True: the signal is the waiter's, or there is none any more. */
static bool app_sigwait_tell_to(struct waiter *waiter, int signo)
{
	unsigned int opens;

	for (;;) {
		opens = atomic_load(&waiter->state);
		if ((opens & (TELLING | TOLD)) != 0 || !(opens & OPENS(signal_index(signo))) ||
		    !atomic_compare_exchange_strong(&waiter->state, &opens, opens | TELLING))
			return false;
		if (app_sigpending_take_of_process(signo, &waiter->info))
			break;
		app_sigwait_set_state(waiter, opens);
		/* A thread that has put one meanwhile has not seen this waiter. */
		if (!app_sigpending_is_of_process(signo))
			return true;
	}
	(void)INJECT(INJECT_TELL);
	if (app_sigwait_wake(opens >> 4, signo)) {
		app_sigwait_set_state(waiter, opens | TOLD);
		return true;
	}
	app_sigpending_put(signo, &waiter->info);
	/* It may be there, and wait for this to end: a filter may refuse the wake. */
	app_sigwait_set_state(waiter, FREE);
	return false;
}

void app_sigwait_tell(int signo)
{
	uint64_t before;

	/* The threads that wait are its parent's. */
	if (process_is_borrowed())
		return;
	/* A waiter waits until this is done. */
	before = signals_block();
	for (size_t i = 0; i < WAITERS; ++i)
		if (app_sigwait_tell_to(&waiters[i], signo))
			break;
	signals_set_mask(before);
}

void app_sigwait_pass_on(struct mediated *call)
{
	const uint64_t before = signals_block();

	if (call->is_told) {
		call->is_told = false;
		app_sigpending_put(call->told.si_signo, &call->told);
		app_sigwait_tell(call->told.si_signo);
	}
	signals_set_mask(before);
}

bool app_sigwait_is_wake(const siginfo_t *info)
{
	return info->si_code == SI_QUEUE && info->si_value.sival_ptr == waiters;
}

void app_sigwait_forget(void)
{
	offer = NULL;
	for (size_t i = 0; i < WAITERS; ++i)
		atomic_store(&waiters[i].state, FREE);
}
