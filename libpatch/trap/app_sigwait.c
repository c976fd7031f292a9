/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waits for owned signals, which the kernel does not block: closes the gap between the look at what has arrived and the
 * call, and tells signals of the process to threads that wait for them.
 *
 * The thread that tells one wakes the other by a signal of the same number, and the kernel drops a signal that is sent
 * to a thread for which one of that number is pending. So a wake must never be pending without need: the signal is
 * taken from the process and given to the thread before the wake is sent, so that nobody else takes it; and the thread
 * does not leave its wait while a wake is on its way. What the kernel drops beside a wake is then a second signal for a
 * thread that has not accepted its first one yet.
 */
#include "trap/app_sigwait.h"

#include "base/syscall.h"
#include "sys/process.h"
#include "trap/app_sigpending.h"
#include "trap/owned_signals.h"

#include <linux/futex.h>
#include <stdatomic.h>

/* Threads that wait for owned signals of the process; more than these are found at their next wait only. */
#define WAITERS 64

/* States of a waiter. */
#define FREE 0U
#define CLAIMED 1U /* the thread writes `tid` */
#define TELLING 2U /* another thread writes `info` and sends a wake: neither lasts */
#define TOLD 3U /* `info` is the thread's, and the wake has been sent */
#define OPENS(index) (4U << (index)) /* the thread waits for signals_ownable[index], and perhaps for others */

struct waiter {
	_Atomic unsigned int state;
	int tid;
	siginfo_t info;
};

static struct waiter waiters[WAITERS];

static TLS_INITIAL_EXEC uint64_t accepting;
static TLS_INITIAL_EXEC uint64_t mask_before;
static TLS_INITIAL_EXEC bool lets_through;
static TLS_INITIAL_EXEC uint64_t believed_after;
static TLS_INITIAL_EXEC bool left_pending;
/* The thread's own, NULL: none. */
static TLS_INITIAL_EXEC struct waiter *offer;
/* One arrived after the thread began to accept it, and before arch_wait_call(). */
static TLS_INITIAL_EXEC uint8_t arrived;

/* ---- signals of the process ------------------------------------------------------------------------------------- */

static void app_sigwait_offer(uint64_t accepted)
{
	unsigned int opens = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (accepted & SIGNALS_BIT(signals_ownable[index]))
			opens |= OPENS(index);
	/* A child in its parent's memory is alone in its process. */
	if (opens == 0 || process_is_borrowed())
		return;
	for (size_t i = 0; i < WAITERS; ++i) {
		unsigned int expected = FREE;

		if (!atomic_compare_exchange_strong(&waiters[i].state, &expected, CLAIMED))
			continue;
		waiters[i].tid = (int)raw_syscall(SYS_gettid);
		offer = &waiters[i];
		atomic_store(&waiters[i].state, opens);
		return;
	}
}

static void app_sigwait_set_state(struct waiter *waiter, unsigned int state)
{
	atomic_store(&waiter->state, state);
	raw_syscall(SYS_futex, &waiter->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* True: a signal was told, and its wake has arrived, or does so at the end of the thread's next system call. */
static bool app_sigwait_withdraw(siginfo_t *info)
{
	struct waiter *mine = offer;
	unsigned int state;

	if (mine == NULL)
		return false;
	offer = NULL;
	do {
		state = atomic_load(&mine->state);
		/* The other thread blocks all signals, and is about to be done. */
		if (state == TELLING)
			raw_syscall(SYS_futex, &mine->state, FUTEX_WAIT_PRIVATE, TELLING, NULL, NULL, 0);
	} while (state == TELLING || (state != TOLD && !atomic_compare_exchange_strong(&mine->state, &state, FREE)));
	if (state != TOLD)
		return false;
	*info = mine->info;
	atomic_store(&mine->state, FREE);
	return true;
}

/* False: the waiter is not there any more, or its process is another one. */
static bool app_sigwait_wake(const struct waiter *waiter, int signo)
{
	siginfo_t wake = { 0 };

	wake.si_signo = signo;
	/* The kernel lets nobody say to another thread that it was kill(); the true words are in waiter->info. */
	wake.si_code = SI_QUEUE;
	wake.si_value.sival_ptr = waiters;
	return raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), waiter->tid, signo, &wake) == 0;
}

/* True: the signal is the waiter's, or there is none any more. */
static bool app_sigwait_tell_to(struct waiter *waiter, int signo)
{
	for (;;) {
		unsigned int opens = atomic_load(&waiter->state);

		if (!(opens & OPENS(signal_index(signo))) ||
		    !atomic_compare_exchange_strong(&waiter->state, &opens, TELLING))
			return false;
		if (app_sigpending_take_of_process(signo, &waiter->info))
			break;
		app_sigwait_set_state(waiter, opens);
		/* A thread that has put one meanwhile has not seen this waiter. */
		if (!app_sigpending_is_of_process(signo))
			return true;
	}
	(void)INJECT(INJECT_TELL);
	if (app_sigwait_wake(waiter, signo)) {
		app_sigwait_set_state(waiter, TOLD);
		return true;
	}
	app_sigpending_put(signo, &waiter->info);
	atomic_store(&waiter->state, FREE);
	return false;
}

void app_sigwait_tell(int signo)
{
	const uint64_t all = ~(uint64_t)0;
	uint64_t before;

	/* A waiter waits until this is done. */
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
	for (size_t i = 0; i < WAITERS; ++i)
		if (app_sigwait_tell_to(&waiters[i], signo))
			break;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

void app_sigwait_pass_on(const siginfo_t *info)
{
	app_sigpending_put(info->si_signo, info);
	app_sigwait_tell(info->si_signo);
}

bool app_sigwait_is_wake(const siginfo_t *info)
{
	return info->si_code == SI_QUEUE && info->si_value.sival_ptr == waiters;
}

bool app_sigwait_told(siginfo_t *info)
{
	return lets_through && app_sigwait_withdraw(info);
}

void app_sigwait_forget(void)
{
	offer = NULL;
	for (size_t i = 0; i < WAITERS; ++i)
		atomic_store(&waiters[i].state, FREE);
}

/* ---- the wait --------------------------------------------------------------------------------------------------- */

bool app_sigwait_leave_pending(int signo, siginfo_t *info, ucontext_t *context)
{
	uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
	uint64_t *mask = (uint64_t *)&context->uc_sigmask;

	if (!(accepting & SIGNALS_BIT(signo)))
		return false;
	if (!arch_is_about_to_wait(pc)) {
		arrived = 1;
		return false;
	}
	/* Everything blocked, so that nothing else runs between here and the call, which unblocks what it waits for. */
	if (!left_pending)
		mask_before = *mask;
	left_pending = true;
	*mask = ~(uint64_t)0;
	raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signo, info);
	return true;
}

void app_sigwait_begin(uint64_t accepted)
{
	siginfo_t told;

	/* Of a wait that a handler has left by longjmp(). */
	if (app_sigwait_withdraw(&told))
		app_sigwait_pass_on(&told);
	arrived = 0;
	atomic_signal_fence(memory_order_seq_cst);
	accepting = accepted;
	atomic_signal_fence(memory_order_seq_cst);
	app_sigwait_offer(accepted);
}

void app_sigwait_begin_mask(uint64_t accepted, uint64_t after)
{
	believed_after = after;
	atomic_signal_fence(memory_order_seq_cst);
	lets_through = true;
	app_sigwait_begin(accepted);
}

uint64_t app_sigwait_blocked_after(uint64_t now)
{
	siginfo_t told;

	if (!lets_through)
		return now;
	lets_through = false;
	accepting = 0;
	if (app_sigwait_withdraw(&told))
		app_sigwait_pass_on(&told);
	return believed_after;
}

long app_sigwait_call(const struct arch_call *call)
{
	(void)INJECT(INJECT_WAIT);
	return arch_wait_call(call, &arrived);
}

bool app_sigwait_end(siginfo_t *info)
{
	bool told = app_sigwait_withdraw(info);

	lets_through = false;
	accepting = 0;
	atomic_signal_fence(memory_order_seq_cst);
	if (left_pending) {
		left_pending = false;
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask_before, NULL, sizeof(mask_before));
	} else if (told) {
		/* Any call: the wake arrives at its end. */
		raw_syscall(SYS_gettid);
	}
	return told;
}
