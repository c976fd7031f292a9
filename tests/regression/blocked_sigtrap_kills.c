/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that blocked every signal after patch_init(), or runs a handler that blocks everything, meets a probe that
 * needs a trap: the kernel kills a process that meets an int3 with SIGTRAP blocked.
 */
#include "targets.h"

#include <pthread.h>

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void block_after_init(void *argument)
{
	sigset_t all, now;
	patch_t patch;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	sigfillset(&all);
	REQUIRE(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	/* the program reads back what it set */
	REQUIRE(sigprocmask(SIG_SETMASK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTRAP) == 1);
	CHECK(sigismember(&now, SIGUSR1) == 1);
	CHECK_OK(patch_fini());
}

static void on_usr1(int signo)
{
	(void)signo;
	t_push_push(1, 2);
}

/* A handler whose sa_mask blocks everything. */
static void handler_blocks(void *argument)
{
	struct sigaction action;
	patch_t patch;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_usr1;
	sigfillset(&action.sa_mask);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(raise(SIGUSR1) == 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("everything blocked after patch_init()", block_after_init, NULL);
	harness_isolated("a handler that blocks everything", handler_blocks, NULL);
	return harness_end();
}
