/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Traps that are not libpatch's: to a tool's handler in front of it, to the program's handler, or to the default
 * action. Runs in the trap handler, so takes no lock and allocates nothing (I9).
 */
#include "trap/forward.h"

#include "base/syscall.h"
#include "elf/module.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"
#include "trap/own.h"
#include "trap/owned_signals.h"

#include <ucontext.h>

/*
 * What uc_link of a frame points to while the frame is handed on: a handler of the program that forwards it back to us
 * goes no further. The kernel writes 0 there (arch/x86/kernel/signal_64.c); a handler that leaves by longjmp leaves
 * nothing behind.
 */
static ucontext_t handing_on;
/* Other such marks: a tool's handler in front of us runs, and has not handed the trap on yet, or has. */
static ucontext_t offering, taken;

bool forward_reaches_us(uintptr_t handler)
{
	struct module module;

	return handler > 1 && !own_is_handler(handler) && module_find(handler, &module) &&
	       module_refers_to(&module, "libpatch_on_trap");
}

bool forward_to_front(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	struct kernel_sigaction front;
	uint64_t mask;

	/* The tool's call, or a handler's that the program has. */
	if (context->uc_link != NULL) {
		if (context->uc_link == &offering)
			context->uc_link = &taken;
		return false;
	}
	app_sigstate_action(signal_index(signo) + APP_SIGSTATE_FRONT, &front);
	if ((uintptr_t)front.handler == (uintptr_t)SIG_DFL)
		return false;
	mask = *(const uint64_t *)&context->uc_sigmask | front.mask | SIGNALS_BIT(signo);
	context->uc_link = &offering;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	((void (*)(int, siginfo_t *, void *))(uintptr_t)front.handler)(signo, info, context);
	mask = ~(uint64_t)0;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	if (context->uc_link == &taken) {
		context->uc_link = NULL;
		return true;
	}
	/* It did not: as the program's handler goes, that is the end of it, but a trap of ours has to be served. */
	context->uc_link = &handing_on;
	return false;
}

/* ---- handing on ------------------------------------------------------------------------------------------------- */

/* Raised by the thread's own instruction, so that the kernel would kill rather than ignore it. */
static bool forward_is_synchronous(const siginfo_t *info)
{
	return info->si_code > 0;
}

/* Have the default action taken by the kernel, where the program was. */
static void forward_take_default(int signo, siginfo_t *info, ucontext_t *context)
{
	static const struct kernel_sigaction default_action;
	uintptr_t pc = context->uc_mcontext.gregs[REG_RIP];

	raw_syscall(SYS_rt_sigaction, signo, &default_action, NULL, sizeof(default_action.mask));
	if (signo == SIGTRAP && info->si_code == SI_KERNEL && *(const uint8_t *)(pc - 1) == 0xCC) {
		/* Once more, without us. */
		context->uc_mcontext.gregs[REG_RIP] = pc - 1;
		return;
	}
	if (signo == SIGILL && forward_is_synchronous(info))
		return;
	/* Blocked until the handler returns: then it finds the program as the first one did. */
	raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signo, info);
}

#define IS(handler, constant) ((uintptr_t)(handler) == (uintptr_t)(constant))

static void forward_call_handler(const struct kernel_sigaction *program, int signo, siginfo_t *info,
				 ucontext_t *context)
{
	void (*handler)(int, siginfo_t *, void *) = (void (*)(int, siginfo_t *, void *))(uintptr_t)program->handler;
	uint64_t mask = *(const uint64_t *)&context->uc_sigmask | program->mask;
	uint64_t blocked = app_sigstate_blocked();
	struct ucontext_t *mark;
	uint64_t meanwhile = blocked | (program->mask & SIGNALS_OWNED);

	if (!(program->flags & SA_NODEFER))
		meanwhile |= SIGNALS_BIT(signo);
	blocked = app_sigwait_blocked_after(blocked);
	/* Without the owned signals: a probe in the program's handler may need them. */
	mask &= ~SIGNALS_OWNED;
	app_sigstate_set_blocked(meanwhile);
	mark = context->uc_link;
	context->uc_link = &handing_on;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	/* With or without SA_SIGINFO: in this calling convention a handler may ignore arguments. */
	handler(signo, info, context);
	context->uc_link = mark;
	app_sigstate_set_blocked(blocked);
	mask = app_sigpending_pending() & ~blocked;
	if (mask != 0 && (signo = app_sigpending_take(mask, info)) != 0)
		raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signo, info);
}

/* Sent by others, to a thread that believes to block it or waits for it: true when the program does not get it now. */
static bool forward_put_off(int signo, siginfo_t *info, ucontext_t *context)
{
	if (app_sigwait_leave_pending(signo, info, context))
		return true;
	if (app_sigwait_is_wake(info))
		return !app_sigwait_told(info);
	if (!(app_sigstate_blocked() & SIGNALS_BIT(signo)))
		return false;
	app_sigpending_put(signo, info);
	if (info->si_code != SI_TKILL)
		app_sigwait_tell(signo);
	return true;
}

void forward_hand_on(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	int index = signal_index(signo);
	struct kernel_sigaction program;
	bool synchronous = forward_is_synchronous(info);

	if (index < 0 || !signals_action_known(index) || context->uc_link == &handing_on)
		return;
	if (!synchronous && forward_put_off(signo, info, context))
		return;
	app_sigstate_action(index, &program);
	/* The kernel ends a process whose instruction raises what is blocked or ignored. */
	if (IS(program.handler, SIG_DFL) ||
	    (synchronous && (IS(program.handler, SIG_IGN) || (app_sigstate_blocked() & SIGNALS_BIT(signo)) != 0))) {
		forward_take_default(signo, info, context);
	} else if (!IS(program.handler, SIG_IGN)) {
		struct kernel_sigaction once = program;

		if (program.flags & SA_RESETHAND) {
			program.handler = (void *)(uintptr_t)SIG_DFL;
			app_sigstate_set_action(index, &program);
		}
		forward_call_handler(&once, signo, info, context);
	}
}
