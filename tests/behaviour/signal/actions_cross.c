/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two threads set SIGTRAP's action, one between the other's call and what is due behind that; or a handler has what is
 * due there done twice, and the other thread sets it in between. What comes for the later action is not dropped with
 * what the earlier one had ignored, and the later action is what handlers in front hand on to.
 */
#include "targets.h"

#include "base/inject.h"
#include "base/syscall.h"
#include "trap/forward.h"

#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

static _Atomic int crosses_at; /* 1: in front of what is due, 2: behind it; 0: it was */
static _Atomic bool is_other, interrupts, crossed, other_is_done;
static _Atomic int handled, earlier_handled;

static void on_usr1(int signo)
{
	(void)signo;
}

static void on_trap(int signo)
{
	(void)signo;
	++handled;
}

static void on_trap_earlier(int signo)
{
	(void)signo;
	++earlier_handled;
}

/* In the other thread, whose call is made. */
static int at_point(enum inject_point point)
{
	static _Thread_local bool mine;

	if (point != INJECT_ACTION || !is_other || raw_syscall(SYS_gettid) == raw_syscall(SYS_getpid))
		return 0;
	mine = crosses_at == 1;
	if (crosses_at > 0)
		--crosses_at;
	if (!mine)
		return 0;
	crossed = true;
	while (!other_is_done)
		raw_syscall(SYS_sched_yield);
	if (interrupts)
		raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), SIGUSR1);
	return 0;
}

static void set_action(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };

	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
}

static void *set_earlier(void *handler)
{
	is_other = true;
	set_action((void (*)(int))handler);
	return NULL;
}

static void change_mask(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(pthread_sigmask(how, &set, NULL) == 0);
}

struct crossing {
	int at;
	bool interrupts;
	bool before, between; /* is a signal sent in front of the call, and when it is crossed? */
	int handled;
};

/* The other thread sets `earlier`, and this one on_trap() at that point. */
static void cross(const struct crossing *crossing, void (*earlier)(int))
{
	struct sigaction action = { .sa_handler = on_usr1 };
	pthread_t thread;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	set_action(on_trap);
	change_mask(SIG_BLOCK);
	if (crossing->before)
		REQUIRE(kill(getpid(), SIGTRAP) == 0);
	interrupts = crossing->interrupts;
	crosses_at = crossing->at;
	libpatch_inject = at_point;
	REQUIRE(pthread_create(&thread, NULL, set_earlier, (void *)earlier) == 0);
	while (!crossed)
		sched_yield();
	set_action(on_trap);
	if (crossing->between)
		REQUIRE(kill(getpid(), SIGTRAP) == 0);
	other_is_done = true;
	pthread_join(thread, NULL);
	libpatch_inject = NULL;
}

static void dropped(void *argument)
{
	const struct crossing *crossing = argument;

	cross(crossing, SIG_IGN);
	change_mask(SIG_UNBLOCK);
	CHECK_EQ(handled, crossing->handled);
	CHECK_OK(patch_fini());
}

static void handed_to_earlier(void *unused)
{
	siginfo_t info = { .si_signo = SIGTRAP, .si_code = SI_USER };
	ucontext_t context;

	(void)unused;
	memset(&context, 0, sizeof(context));
	cross(&(struct crossing){ .at = 1 }, on_trap_earlier);
	change_mask(SIG_UNBLOCK);
	forward_hand_on(SIGTRAP, &info, &context);
	CHECK_EQ(handled, 1);
	CHECK_EQ(earlier_handled, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("one that comes between the call and what is due", dropped,
			 &(struct crossing){ .at = 1, .between = true, .handled = 1 });
	harness_isolated("one that comes before that is done again", dropped,
			 &(struct crossing){ .at = 2, .interrupts = true, .before = true, .between = true,
					     .handled = 1 });
	harness_isolated("one from before the call", dropped, &(struct crossing){ .at = 1, .before = true });
	harness_isolated("the action that handlers in front hand on to", handed_to_earlier, NULL);
	return harness_end();
}
