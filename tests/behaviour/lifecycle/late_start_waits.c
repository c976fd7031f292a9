/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process with other threads: patch_init() asks the kernel for nothing for which it waits until all processors have
 * been somewhere (a registration for membarrier(), a larger table of descriptors), nor for other threads to go on. The
 * first commit does, once; with one thread there is nothing to wait for, and patch_init() registers at once.
 */
#include "targets.h"

#include "seccomp.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>

static unsigned int registered, queried, synced, naps, running, hits;

/* Answers membarrier() and nanosleep(): no other thread runs what is patched. */
static void on_sigsys(int signo, siginfo_t *info, void *data)
{
	greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;
	const bool is_nap = info->si_syscall == SYS_nanosleep;
	const int command = is_nap ? 0 : (int)registers[REG_RDI];

	(void)signo;
	registers[REG_RAX] = 0;
	naps += is_nap;
	queried += !is_nap && command == MEMBARRIER_CMD_QUERY;
	registered += command == MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
	synced += command == MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;
	if (!is_nap && command == MEMBARRIER_CMD_QUERY)
		registers[REG_RAX] = MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE |
				     MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;
	if (is_nap)
		sched_yield();
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void *be_busy(void *unused)
{
	for (;;)
		__atomic_store_n(&running, 1, __ATOMIC_RELAXED);
	return unused;
}

static void *be_asleep(void *unused)
{
	__atomic_store_n(&running, 1, __ATOMIC_RELAXED);
	for (;;)
		pause();
	return unused;
}

/* How many descriptors the kernel has a table for. */
static unsigned int table_size(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned int size = 0;
	char line[256];

	REQUIRE(status);
	while (fgets(line, sizeof(line), status))
		sscanf(line, "FDSize: %u", &size);
	fclose(status);
	return size;
}

static void start(void *thread_of_function)
{
	void *(*function)(void *) = *(void *(**)(void *))thread_of_function;
	struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };
	const unsigned int before = table_size();
	pthread_t thread;
	patch_t patch;

	REQUIRE(before > 0 && before < 900);
	if (function) {
		REQUIRE(pthread_create(&thread, NULL, function, NULL) == 0);
		while (!__atomic_load_n(&running, __ATOMIC_RELAXED))
			sched_yield();
	}
	REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
	REQUIRE(filter_call(SYS_membarrier, SECCOMP_RET_TRAP, 0) == 0);
	REQUIRE(filter_call(SYS_nanosleep, SECCOMP_RET_TRAP, 0) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_EQ(naps, 0);
	CHECK_EQ(registered, function ? 0 : 1);
	CHECK_EQ(queried, function ? 1 : 0);
	if (function) {
		CHECK_EQ(synced, 0);
		CHECK_EQ(table_size(), before);
	}
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	for (unsigned int round = 0; round < 4; round++) {
		const unsigned int had = synced;

		CHECK_OK(round % 2 ? patch_disable(patch) : patch_enable(patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(registered, 1);
		CHECK(synced > had);
		hits = 0;
		CHECK_EQ(t_push_push(5, 7), target_named("t_push_push")->model(5, 7));
		CHECK_EQ(hits, round % 2 ? 0 : 1);
	}
	if (function)
		CHECK_EQ(table_size(), before);
	CHECK_OK(patch_fini());
}

int main(void)
{
	void *(*functions[])(void *) = { NULL, be_asleep, be_busy };

	harness_start();
	require_filters();
	harness_isolated("one thread", start, &functions[0]);
	harness_isolated("another thread asleep", start, &functions[1]);
	harness_isolated("another thread busy", start, &functions[2]);
	return harness_end();
}
