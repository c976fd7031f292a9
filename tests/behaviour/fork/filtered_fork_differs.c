/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A filter raises SIGSYS for the program's fork, and the handler says what the result is, as sandboxes do: that is what
 * fork() returns, the handler has come once, and the library goes on to work, whether filter and handler were there
 * before patch_init() or come later; and a fork that no filter is in the way of has a child whose library works.
 */
#include "seccomp.h"
#include "targets.h"

#include <ucontext.h>

static volatile unsigned int raised;
static unsigned int hits;

/* In the order in which things are there. */
struct order {
	const char *name;
	bool handler_first, filter_first;
	long number;
};

static void on_sys(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	raised++;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EDQUOT;
}

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void set_handler(void)
{
	struct sigaction action = { .sa_sigaction = on_sys, .sa_flags = SA_SIGINFO };

	REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
}

static void set_filter(long number)
{
	if (filter_call(number, SECCOMP_RET_TRAP, 0) != 0)
		SKIP("filters of system calls are not allowed here");
}

static void patch_one(void *unused)
{
	patch_t patch;

	(void)unused;
	hits = 0;
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void fork_filtered(void *data)
{
	const struct order *order = data;
	long result;

	if (order->handler_first)
		set_handler();
	if (order->filter_first)
		set_filter(order->number);
	REQUIRE_OK(patch_init(NULL, 0));
	if (!order->handler_first)
		set_handler();
	harness_isolated("a child", patch_one, NULL);
	if (!order->filter_first)
		set_filter(order->number);
	errno = 0;
	/* Not by fork(), which in glibc 2.41 blocks all signals: a filter ends the process there. */
	result = syscall(order->number, (long)SIGCHLD, 0L, 0L, 0L, 0L);
	CHECK_EQ(result, -1);
	CHECK_EQ(errno, EDQUOT);
	CHECK_EQ(raised, 1);
	patch_one(NULL);
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const struct order orders[] = {
		{ "clone, both later", false, false, SYS_clone },
		{ "clone, the filter later", true, false, SYS_clone },
		{ "fork, both later", false, false, SYS_fork },
		{ "fork, the handler later", false, true, SYS_fork },
		{ "fork, both first", true, true, SYS_fork },
	};

	harness_start();
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		harness_isolated(orders[i].name, fork_filtered, (void *)&orders[i]);
	return harness_end();
}
