/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that clone() has made without storage of its own blocks every signal, and has the storage of the thread that
 * calls patch_init(). To adopt it made that one believe to block SIGTRAP and SIGILL. It is refused, with its name,
 * until it has unblocked them.
 */
#include "targets.h"

#include <sched.h>

static char stack[1 << 16] __attribute__((aligned(16)));
static volatile int stage;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* Not by libc, whose variables are another thread's. */
static long call(long number, long first, const void *second)
{
	register long size __asm__("r10") = 8;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(second), "d"(0L), "r"(size)
			 : "rcx", "r11", "memory");
	return result;
}

static int share(void *unused)
{
	const uint64_t all = ~UINT64_C(0), none = 0;

	(void)unused;
	call(SYS_rt_sigprocmask, SIG_SETMASK, &all);
	stage = 1;
	while (stage != 2)
		call(SYS_sched_yield, 0, NULL);
	call(SYS_rt_sigprocmask, SIG_SETMASK, &none);
	stage = 3;
	while (stage != 4)
		call(SYS_sched_yield, 0, NULL);
	call(SYS_exit, 0, NULL);
	return 0;
}

static uint64_t mask(void)
{
	uint64_t now = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, sizeof(now));
	return now;
}

int main(void)
{
	const uint64_t before = mask();
	char name[32];
	patch_t patch;
	int thread;

	harness_start();
	thread = clone(share, stack + sizeof(stack),
		       CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL);
	REQUIRE(thread > 0);
	while (stage != 1)
		sched_yield();
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_EQ(mask(), before);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	snprintf(name, sizeof(name), "%d (", thread);
	CHECK(strstr(harness_last_error(), name));
	CHECK_EQ(mask(), before);
	stage = 2;
	while (stage != 3)
		sched_yield();
	CHECK_OK(patch_commit());
	CHECK_EQ(mask(), before);
	stage = 4;
	CHECK_OK(patch_fini());
	return harness_end();
}
