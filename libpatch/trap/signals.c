/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trap/signals.h"

#include "base/syscall.h"
#include "trap/app_sigpending.h"
#include "base/inject.h"
#include "elf/module.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"

#include <libpatch/tools.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

const int signals_ownable[SIGNALS_OWNABLE] = { SIGTRAP, SIGILL };

static _Atomic bool known[SIGNALS_OWNABLE]; /* the program's action is */
static _Atomic bool owned[SIGNALS_OWNABLE]; /* our handler is in place */
static TLS_INITIAL_EXEC bool installing;

/*
 * What uc_link of a frame points to while the frame is handed on: a handler of the program that forwards it back to us goes
 * no further. The kernel writes 0 there (arch/x86/kernel/signal_64.c); a handler that leaves by longjmp leaves nothing
 * behind.
 */
static ucontext_t handing_on;
/* Other such marks: a tool's handler in front of us runs, and has not handed the trap on yet, or has. */
static ucontext_t offering, taken;

int signal_index(int signo)
{
	for (int i = 0; i < SIGNALS_OWNABLE; ++i)
		if (signals_ownable[i] == signo)
			return i;
	return -1;
}

bool signals_owned(int signo)
{
	int slot = signal_index(signo);

	return slot >= 0 && atomic_load_explicit(&owned[slot], memory_order_acquire);
}

bool signals_are_blocked(uint64_t blocked)
{
	/* Those that can be blocked, without the two that libc keeps for itself (sysdeps/unix/sysv/linux/internal-signals.h). */
	uint64_t others = ~(SIGNALS_OWNED | SIGNALS_BIT(SIGKILL) | SIGNALS_BIT(SIGSTOP) | SIGNALS_BIT(32) | SIGNALS_BIT(33));
	uint64_t of_ours = blocked & SIGNALS_OWNED;

	/* Exactly one, and everything else: that is how our handler runs. */
	return of_ours != 0 && ((of_ours & (of_ours - 1)) != 0 || (blocked & others) != others);
}

bool signals_is_installing(void)
{
	return installing;
}

uintptr_t signals_restorer(void)
{
	struct kernel_sigaction action;

	if (raw_syscall(SYS_rt_sigaction, SIGTRAP, NULL, &action, sizeof(action.mask)) < 0)
		return 0;
	return (uintptr_t)action.restorer;
}

/* Through sigaction(), so that a host that interposes it sees it. */
static int change(int signo, const struct sigaction *action, struct sigaction *before)
{
	int injected = INJECT(INJECT_SYSCALL);

	if (!injected)
		return sigaction(signo, action, before);
	errno = injected;
	return -1;
}

/* 0 or errno. */
static int read_action(int signo, struct kernel_sigaction *out)
{
	struct sigaction action;

	if (change(signo, NULL, &action) != 0)
		return errno;
	out->handler = (void *)(uintptr_t)action.sa_sigaction;
	out->flags = (unsigned int)action.sa_flags;
	out->restorer = action.sa_restorer;
	/* The first word of a sigset_t is the kernel's mask. */
	memcpy(&out->mask, &action.sa_mask, sizeof(out->mask));
	return 0;
}

static int install(int signo)
{
	struct sigaction action;
	int error;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = libpatch_on_trap;
	/*
	 * SA_ONSTACK: the thread's own stack may be too small for a frame (goroutines). All signals but the other owned one are
	 * blocked while we decide, which signals_are_blocked() relies on; the program's handler gets the mask it asked for.
	 * SA_RESTART for signals that others send.
	 */
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask);
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot)
		sigdelset(&action.sa_mask, signals_ownable[slot]);
	installing = true;
	error = change(signo, &action, NULL) != 0 ? errno : 0;
	installing = false;
	return error;
}

void signals_doubt(int signo)
{
	struct kernel_sigaction action = { 0 };

	if (signals_owned(signo) && read_action(signo, &action) == 0 && (uintptr_t)action.handler != (uintptr_t)libpatch_on_trap)
		atomic_store(&owned[signal_index(signo)], false);
}

int signals_own(int signo)
{
	struct kernel_sigaction before;
	int slot = signal_index(signo);
	int saved = errno;
	int error;

	if (signals_owned(signo))
		return 0;
	error = read_action(signo, &before);
	if (error == 0) {
		if ((uintptr_t)before.handler != (uintptr_t)libpatch_on_trap)
			app_sigstate_set_action(slot, &before);
		/* Release pairs with the acquire in signals_hand_on(), which may run as soon as the handler is in place. */
		atomic_store_explicit(&known[slot], true, memory_order_release);
		error = install(signo);
	}
	if (error == 0)
		atomic_store_explicit(&owned[slot], true, memory_order_release);
	errno = saved;
	return error;
}

/* ---- tools in front of us --------------------------------------------------------------------------------------- */

bool signals_forwards(uintptr_t handler)
{
	struct module module;

	return handler > 1 && handler != (uintptr_t)libpatch_on_trap && module_find(handler, &module) &&
	       module_refers_to(&module, "libpatch_on_trap");
}

bool signals_offer(int signo, siginfo_t *info, void *data)
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
static bool is_synchronous(const siginfo_t *info)
{
	return info->si_code > 0;
}

/* Have the default action taken by the kernel, where the program was. */
static void take_default(int signo, siginfo_t *info, ucontext_t *context)
{
	static const struct kernel_sigaction default_action;
	uintptr_t pc = context->uc_mcontext.gregs[REG_RIP];

	raw_syscall(SYS_rt_sigaction, signo, &default_action, NULL, sizeof(default_action.mask));
	if (signo == SIGTRAP && info->si_code == SI_KERNEL && *(const uint8_t *)(pc - 1) == 0xCC) {
		/* Once more, without us. */
		context->uc_mcontext.gregs[REG_RIP] = pc - 1;
		return;
	}
	if (signo == SIGILL && is_synchronous(info))
		return;
	/* Blocked until the handler returns: then it finds the program as the first one did. */
	raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signo, info);
}

#define IS(handler, constant) ((uintptr_t)(handler) == (uintptr_t)(constant))

static void call_handler(const struct kernel_sigaction *program, int signo, siginfo_t *info, ucontext_t *context)
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
static bool put_off(int signo, siginfo_t *info, ucontext_t *context)
{
	if (app_sigwait_leave_pending(signo, info, context) || app_sigwait_is_wake(info))
		return true;
	if (!(app_sigstate_blocked() & SIGNALS_BIT(signo)))
		return false;
	app_sigpending_put(signo, info);
	if (info->si_code != SI_TKILL)
		app_sigwait_wake(signo);
	return true;
}

void signals_hand_on(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	int slot = signal_index(signo);
	struct kernel_sigaction program;
	bool synchronous = is_synchronous(info);

	if (slot < 0 || !atomic_load_explicit(&known[slot], memory_order_acquire) || context->uc_link == &handing_on)
		return;
	if (!synchronous && put_off(signo, info, context))
		return;
	app_sigstate_action(slot, &program);
	/* The kernel ends a process whose instruction raises what is blocked or ignored. */
	if (IS(program.handler, SIG_DFL) ||
	    (synchronous && (IS(program.handler, SIG_IGN) || (app_sigstate_blocked() & SIGNALS_BIT(signo)) != 0))) {
		take_default(signo, info, context);
	} else if (!IS(program.handler, SIG_IGN)) {
		struct kernel_sigaction once = program;

		if (program.flags & SA_RESETHAND) {
			program.handler = (void *)(uintptr_t)SIG_DFL;
			app_sigstate_set_action(slot, &program);
		}
		call_handler(&once, signo, info, context);
	}
}
