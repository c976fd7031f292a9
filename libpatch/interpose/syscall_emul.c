/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which calls are made in the program's stead, and the first and the last look at what they are about.
 */
#include "interpose/syscall_emul.h"

#include "base/syscall.h"
#include "interpose/emul.h"
#include "interpose/mask_audit.h"
#include "runtime/hook_threads.h"
#include "sys/tls.h"
#include "trap/action.h"
#include "trap/app_sigstate.h"
#include "trap/put_off.h"
#include "trap/signal_frame.h"

bool syscall_emul_concerns(long number)
{
	switch (number) {
	case SYS_rt_sigreturn:
	case SYS_rt_sigprocmask:
	case SYS_rt_sigaction:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_rt_sigpending:
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
	case SYS_execve:
	case SYS_execveat:
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_prctl:
	case SYS_seccomp:
		return true;
	default:
		return false;
	}
}

static bool syscall_emulate_signals(struct arch_call *call)
{
	switch (call->rax) {
	case SYS_rt_sigprocmask:
		return emul_sigprocmask(call);
	case SYS_rt_sigaction:
		return emul_sigaction(call);
	case SYS_rt_sigsuspend:
		return emul_sigsuspend(call);
	case SYS_rt_sigtimedwait:
		return emul_sigtimedwait(call);
	case SYS_rt_sigpending:
		return emul_sigpending(call);
	case SYS_rt_sigreturn:
		return emul_sigreturn(call);
	case SYS_ppoll:
		return emul_ppoll(call, offsetof(struct arch_call, r10), call->r8);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return emul_ppoll(call, offsetof(struct arch_call, r8), call->r9);
	case SYS_pselect6:
	case SYS_io_pgetevents:
		return emul_pselect(call);
	case SYS_io_uring_enter:
		return emul_io_uring_enter(call);
	default:
		return false;
	}
}

bool syscall_emulate(struct arch_call *call)
{
	if (!signals_owned() || !tls_is_own_libcs())
		return false;
	/* The procedure was left by a jump. */
	if (put_off_blocked() != 0 && hook_threads_own_guard() == 0)
		put_off_abandon();
	/* Of the number, and of what it has as an int, the kernel has the lower half. */
	call->rax = (int)call->rax;
	switch (call->rax) {
	case SYS_execve:
	case SYS_execveat:
		return emul_execve(call);
	case SYS_clone:
		return emul_clone(call);
	case SYS_clone3:
		return emul_clone3(call);
	case SYS_fork:
		return emul_fork(call);
	case SYS_prctl:
		return emul_prctl(call);
	case SYS_seccomp:
		return emul_seccomp(call);
	default:
		return emul_signals_are_ours() && syscall_emulate_signals(call);
	}
}

void syscall_emul_adopt(uint64_t *mask)
{
	emul_begin_signals();
	emul_take_over_handlers();
	emul_adopt_blocked();
	*mask &= ~OWNED;
	mask_audit_begin();
	syscall_emul_look_for_handlers();
}

void syscall_emul_release(void)
{
	uint64_t blocked = app_sigstate_blocked();

	for (int signo = 1; signo <= SIGNALS; ++signo)
		if (signal_index(signo) < 0)
			action_give_back(signo);
	app_sigstate_end();
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, SET_SIZE);
	/* The kernel holds them from now on. */
	signal_frame_raise_held(OWNED);
}
