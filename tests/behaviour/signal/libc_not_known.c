/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host has a sigaction() of its own, as those of sanitizers do, which everybody calls in place of libc's: the
 * library knows libc all the same, and mediates all of its calls, that of clone() included, which has no unwind entry.
 * A thread inherits that its creator believes to block SIGTRAP; the handler of libc's that changes user ids is none of
 * the program's.
 */
#include "targets.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

static unsigned int hits;

__attribute__((visibility("default"))) int sigaction(int signo, const struct sigaction *action,
						     struct sigaction *before)
{
	int (*real)(int, const struct sigaction *, struct sigaction *);

	*(void **)&real = dlsym(RTLD_NEXT, "sigaction");
	return real(signo, action, before);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void *read_mask(void *set)
{
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	pthread_sigmask(SIG_BLOCK, NULL, set);
	return NULL;
}

int main(void)
{
	struct sigaction action;
	uint8_t code[56];
	patch_t patch;

	harness_start();
	CHECK(dlsym(RTLD_DEFAULT, "sigaction") == (void *)(uintptr_t)&sigaction);
	memcpy(code, (const void *)(uintptr_t)&clone, sizeof(code));
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK(memcmp(code, (const void *)(uintptr_t)&clone, sizeof(code)) != 0);
	REQUIRE_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			      &patch));
	REQUIRE_OK(patch_commit());
	for (int blocks = 0; blocks < 2; blocks++) {
		pthread_t thread;
		sigset_t set;

		CONTEXT("blocks %d", blocks);
		sigemptyset(&set);
		sigaddset(&set, SIGTRAP);
		pthread_sigmask(blocks ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
		REQUIRE(pthread_create(&thread, NULL, read_mask, &set) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK_EQ(sigismember(&set, SIGTRAP), blocks);
	}
	CHECK_EQ(hits, 2);
	/* The kernel's handler of it, which libc has set by now, is libc's own. */
	CHECK(setuid(getuid()) == 0);
	CHECK(syscall(SYS_rt_sigaction, 33, NULL, &action, 8) == 0);
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_OK(patch_fini());
	CHECK(memcmp(code, (const void *)(uintptr_t)&clone, sizeof(code)) == 0);
	return harness_end();
}
