/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts the handler for trap bytes in place, through sigaction(), so that a host that interposes it sees it. Does not
 * know what the handler does, and nothing here runs in it.
 */
#include "trap/own.h"

#include "base/inject.h"
#include "base/syscall.h"
#include "trap/app_sigstate.h"
#include "trap/owned_signals.h"

#include <errno.h>
#include <string.h>

/* Written before it is installed, with the same value each time. */
static own_handler_fn *own_handler;
static TLS_INITIAL_EXEC bool installing;

bool own_is_handler(uintptr_t handler)
{
	return own_handler != NULL && handler == (uintptr_t)own_handler;
}

bool own_is_installing(void)
{
	return installing;
}

uintptr_t own_restorer(void)
{
	struct kernel_sigaction action;

	if (raw_syscall(SYS_rt_sigaction, SIGTRAP, NULL, &action, sizeof(action.mask)) < 0)
		return 0;
	return (uintptr_t)action.restorer;
}

/* Through sigaction(), so that a host that interposes it sees it. */
static int own_change_action(int signo, const struct sigaction *action, struct sigaction *before)
{
	int injected = INJECT(INJECT_SYSCALL);

	if (!injected)
		return sigaction(signo, action, before);
	errno = injected;
	return -1;
}

/* 0 or errno. */
static int own_read_action(int signo, struct kernel_sigaction *out)
{
	struct sigaction action;

	if (own_change_action(signo, NULL, &action) != 0)
		return errno;
	out->handler = (void *)(uintptr_t)action.sa_sigaction;
	out->flags = (unsigned int)action.sa_flags;
	out->restorer = action.sa_restorer;
	/* The first word of a sigset_t is the kernel's mask. */
	memcpy(&out->mask, &action.sa_mask, sizeof(out->mask));
	return 0;
}

static int own_install(int signo)
{
	struct sigaction action;
	int error;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = own_handler;
	/*
	 * SA_ONSTACK: the thread's own stack may be too small for a frame (goroutines). All signals but the other owned
	 * one are blocked while we decide, which signals_are_blocked() relies on; the program's handler gets the mask
	 * it asked for. SA_RESTART for signals that others send.
	 */
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&action.sa_mask);
	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		sigdelset(&action.sa_mask, signals_ownable[index]);
	installing = true;
	error = own_change_action(signo, &action, NULL) != 0 ? errno : 0;
	installing = false;
	return error;
}

void own_doubt_signal(int signo)
{
	struct kernel_sigaction action = { 0 };

	if (signals_owned(signo) && own_read_action(signo, &action) == 0 && !own_is_handler((uintptr_t)action.handler))
		signals_set_owned(signo, false);
}

int own_signal(int signo, own_handler_fn *handler)
{
	struct kernel_sigaction before;
	int index = signal_index(signo);
	int saved = errno;
	int error;

	if (signals_owned(signo))
		return 0;
	own_handler = handler;
	error = own_read_action(signo, &before);
	if (error == 0) {
		if (!own_is_handler((uintptr_t)before.handler))
			app_sigstate_set_action(index, &before);
		/* Before the handler is in place: forward_hand_on() may run as soon as it is. */
		signals_set_action_known(index);
		error = own_install(signo);
	}
	if (error == 0)
		signals_set_owned(signo, true);
	errno = saved;
	return error;
}
