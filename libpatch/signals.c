/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "signals.h"

#include <libpatch/tools.h>
#include <string.h>
#include <ucontext.h>

/* The kernel's struct sigaction (arch/x86/include/uapi/asm/signal.h); libc's has another layout. */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

#define OWNABLE 2

static const int ownable[OWNABLE] = { SIGTRAP, SIGILL };

/* The program's handler, in words: a struct copy could become a call of memcpy (I9). */
struct disposition {
	void (*handler)(int signo, siginfo_t *info, void *context);
	int flags;
	uint64_t mask;
};

static struct disposition previous[OWNABLE];
static _Atomic bool known[OWNABLE]; /* previous[] is filled in */
static _Atomic bool owned[OWNABLE]; /* our handler is in place */

/*
 * What uc_link of a frame points to while the frame is handed on: a handler of the program that forwards it back to us goes
 * no further. The kernel writes 0 there (arch/x86/kernel/signal_64.c); a handler that leaves by longjmp leaves nothing
 * behind.
 */
static ucontext_t handing_on;

static int slot_of(int signo)
{
	for (int i = 0; i < OWNABLE; ++i)
		if (ownable[i] == signo)
			return i;
	return -1;
}

bool signals_owned(int signo)
{
	int slot = slot_of(signo);

	return slot >= 0 && atomic_load_explicit(&owned[slot], memory_order_acquire);
}

uintptr_t signals_restorer(void)
{
	struct kernel_sigaction action;

	if (raw_syscall(SYS_rt_sigaction, SIGTRAP, NULL, &action, sizeof(action.mask)) < 0)
		return 0;
	return (uintptr_t)action.restorer;
}

int signals_own(int signo)
{
	struct sigaction action;
	struct sigaction before;
	int slot = slot_of(signo);
	int saved = errno;

	if (signals_owned(signo))
		return 0;
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = libpatch_on_trap;
	/*
	 * SA_ONSTACK: the thread's own stack may be too small for a frame (goroutines). All signals are blocked while we
	 * decide; the program's handler gets the mask it asked for. SA_RESTART for signals that others send.
	 */
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask);
	if (sigaction(signo, NULL, &before) != 0)
		goto fail;
	if (before.sa_sigaction != libpatch_on_trap) {
		previous[slot].handler = before.sa_sigaction;
		previous[slot].flags = before.sa_flags;
		/* The first word of a sigset_t is the kernel's mask. */
		memcpy(&previous[slot].mask, &before.sa_mask, sizeof(previous[slot].mask));
	}
	/* Release pairs with the acquire in signals_hand_on(), which may run as soon as the handler is in place. */
	atomic_store_explicit(&known[slot], true, memory_order_release);
	if (sigaction(signo, &action, NULL) != 0)
		goto fail;
	atomic_store_explicit(&owned[slot], true, memory_order_release);
	errno = saved;
	return 0;
fail:
	slot = errno;
	errno = saved;
	return slot;
}

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

static void call_handler(const struct disposition *program, int signo, siginfo_t *info, ucontext_t *context)
{
	void (*handler)(int, siginfo_t *, void *) = program->handler;
	uint64_t mask = *(const uint64_t *)&context->uc_sigmask | program->mask;

	/* Without the owned signals: a probe in the program's handler may need them. */
	mask &= ~((uint64_t)1 << (SIGTRAP - 1)) & ~((uint64_t)1 << (SIGILL - 1));
	context->uc_link = &handing_on;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	/* With or without SA_SIGINFO: in this calling convention a handler may ignore arguments. */
	handler(signo, info, context);
	context->uc_link = NULL;
}

void signals_hand_on(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	int slot = slot_of(signo);
	struct disposition *program;

	if (slot < 0 || !atomic_load_explicit(&known[slot], memory_order_acquire) || context->uc_link == &handing_on)
		return;
	program = &previous[slot];
	if (IS(program->handler, SIG_DFL) || (IS(program->handler, SIG_IGN) && is_synchronous(info))) {
		take_default(signo, info, context);
	} else if (!IS(program->handler, SIG_IGN)) {
		struct disposition once = { program->handler, program->flags, program->mask };

		if (once.flags & SA_RESETHAND)
			program->handler = (void (*)(int, siginfo_t *, void *))(uintptr_t)SIG_DFL;
		call_handler(&once, signo, info, context);
	}
}
