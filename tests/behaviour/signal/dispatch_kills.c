/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program asks for Syscall User Dispatch, which raises SIGSYS for system calls that are made from elsewhere than it
 * names: those that begin and end a handler are. The process died of its first signal. Now it is told that the kernel
 * does not have it, whichever way it asks, and may turn it off.
 */
#include "targets.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF 0
#define PR_SYS_DISPATCH_ON 1
#endif

static volatile char selector = 0; /* SYSCALL_DISPATCH_FILTER_ALLOW */
static volatile int handled;
static bool by_syscall;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void handle(int signo)
{
	(void)signo;
	handled++;
}

static long ask(unsigned long mode, volatile char *at)
{
	if (by_syscall)
		return syscall(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, mode, 0UL, 0UL, at);
	return prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, 0UL, 0UL, at);
}

/* What it would do between code that it dispatches. */
static void run(void *way)
{
	long answer;
	patch_t patch;

	by_syscall = way != NULL;
	signal(SIGUSR1, handle);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	answer = ask(PR_SYS_DISPATCH_ON, &selector);
	CHECK(answer == -1 && errno == EINVAL);
	kill(getpid(), SIGUSR1);
	selector = answer == 0;
	CHECK_EQ(t_push_push(1, 2), 5);
	selector = 0;
	CHECK_EQ(handled, 1);
	CHECK_EQ(ask(PR_SYS_DISPATCH_OFF, NULL), 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	if (ask(PR_SYS_DISPATCH_OFF, NULL) != 0)
		SKIP("there is no Syscall User Dispatch here: %s", strerror(errno));
	harness_isolated("by prctl()", run, NULL);
	harness_isolated("by syscall()", run, &by_syscall);
	return harness_end();
}
