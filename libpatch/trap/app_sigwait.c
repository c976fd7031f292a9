/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waits for owned signals, which the kernel does not block: closes the gap between the look at what has arrived and the
 * call, and wakes threads that wait for what was kept elsewhere.
 */
#include "trap/app_sigwait.h"

#include "base/syscall.h"
#include "trap/app_sigpending.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Threads that wait for owned signals of the process; more than these are found at their next wait only. */
#define WAITERS 64

struct waiter {
	_Atomic int tid; /* 0: free */
	_Atomic uint64_t accepted;
};

static struct waiter waiters[WAITERS];

static TLS_INITIAL_EXEC uint64_t accepting;
static TLS_INITIAL_EXEC uint64_t mask_before;
static TLS_INITIAL_EXEC bool lets_through;
static TLS_INITIAL_EXEC uint64_t believed_after;
static TLS_INITIAL_EXEC bool left_pending;
/* One arrived after the thread began to accept it, and before arch_wait_call(). */
static TLS_INITIAL_EXEC uint8_t arrived;

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

void app_sigwait_begin_mask(uint64_t accepted, uint64_t after)
{
	believed_after = after;
	atomic_signal_fence(memory_order_seq_cst);
	lets_through = true;
	app_sigwait_begin(accepted);
}

uint64_t app_sigwait_blocked_after(uint64_t now)
{
	if (!lets_through)
		return now;
	lets_through = false;
	accepting = 0;
	return believed_after;
}

void app_sigwait_begin(uint64_t accepted)
{
	arrived = 0;
	atomic_signal_fence(memory_order_seq_cst);
	accepting = accepted;
	atomic_signal_fence(memory_order_seq_cst);
}

void app_sigwait_end(void)
{
	lets_through = false;
	accepting = 0;
	atomic_signal_fence(memory_order_seq_cst);
	if (left_pending) {
		left_pending = false;
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask_before, NULL, sizeof(mask_before));
	}
}

long app_sigwait_call(const struct arch_call *call)
{
	return arch_wait_call(call, &arrived);
}

void *app_sigwait_offer(void)
{
	int self = (int)raw_syscall(SYS_gettid);

	for (size_t i = 0; i < WAITERS; ++i) {
		int expected = 0;

		if (!atomic_compare_exchange_strong(&waiters[i].tid, &expected, self))
			continue;
		atomic_store(&waiters[i].accepted, accepting);
		return &waiters[i];
	}
	return NULL;
}

void app_sigwait_withdraw(void *offer)
{
	struct waiter *waiter = offer;

	if (waiter == NULL)
		return;
	atomic_store(&waiter->accepted, 0);
	atomic_store(&waiter->tid, 0);
}

void app_sigwait_wake(int signo)
{
	siginfo_t info = { 0 };

	info.si_signo = signo;
	/* The kernel lets nobody say to another thread that it was kill(); the true words are held. */
	info.si_code = SI_QUEUE;
	info.si_value.sival_ptr = waiters;
	for (size_t i = 0; i < WAITERS; ++i) {
		int tid = atomic_load(&waiters[i].tid);

		if (tid != 0 && (atomic_load(&waiters[i].accepted) & SIGNALS_BIT(signo)) != 0 &&
		    raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), tid, signo, &info) == 0)
			return;
	}
}

bool app_sigwait_is_wake(const siginfo_t *info)
{
	return info->si_code == SI_QUEUE && info->si_value.sival_ptr == waiters;
}
