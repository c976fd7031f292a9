/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread with a real-time priority calls patch_init(), and one without, which blocks SIGTRAP, has the processor only
 * when that one sleeps. The child that adopts it has the same priority, and looked until it had stopped: nobody let it
 * run but the kernel, which keeps some of each second for such, or does not. Now the child sleeps until it has stopped.
 */
#include "targets.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static int blocks, stop;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *block_and_run(void *unused)
{
	sigset_t all;

	sigfillset(&all);
	REQUIRE(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
	__atomic_store_n(&blocks, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		t_push_push(1, 2);
	return unused;
}

/* What the children took that have ended, in milliseconds. */
static long own_time(void)
{
	struct rusage usage;

	REQUIRE(getrusage(RUSAGE_CHILDREN, &usage) == 0);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

int main(void)
{
	const struct sched_param lowest = { .sched_priority = sched_get_priority_min(SCHED_FIFO) };
	pthread_t thread;
	patch_t patch;
	cpu_set_t one;
	long before;

	harness_start();
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
	REQUIRE(pthread_create(&thread, NULL, block_and_run, NULL) == 0);
	while (!__atomic_load_n(&blocks, __ATOMIC_SEQ_CST))
		sched_yield();
	if (sched_setscheduler(0, SCHED_FIFO, &lowest) != 0)
		SKIP("no real-time priority here: %s", strerror(errno));
	before = own_time();
	REQUIRE_OK(patch_init(NULL, 0));
	/* The kernel's share is 50 ms of a second. */
	CHECK(own_time() - before < 500);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_OK(patch_fini());
	return harness_end();
}
