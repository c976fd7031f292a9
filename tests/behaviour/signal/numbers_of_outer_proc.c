/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process in a namespace of processes of its own, with the /proc of the outer one, as `unshare --pid --fork' leaves
 * it: the threads that block everything have other numbers there than in system calls. They are adopted all the same,
 * and another process, which has such a number for its own, is not touched. Commits were refused for ever.
 */
#include "harness.h"
#include "targets.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

static sem_t ready, go_on;
static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static int outer_number;

static uint64_t mask_of(const char *path)
{
	char line[128];
	unsigned long mask = 0;
	FILE *file = fopen(path, "re");

	REQUIRE(file != NULL);
	while (fgets(line, sizeof(line), file))
		sscanf(line, "SigBlk: %lx", &mask);
	fclose(file);
	return mask;
}

static void *block(void *unused)
{
	char link[64] = "";
	uint64_t all = ~UINT64_C(0), now = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	REQUIRE(readlink("/proc/thread-self", link, sizeof(link) - 1) > 0 && strrchr(link, '/'));
	outer_number = atoi(strrchr(link, '/') + 1);
	sem_post(&ready);
	while (sem_wait(&go_on) != 0)
		;
	CHECK_EQ(t_push_push(1, 2), 5);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, sizeof(now));
	CHECK_EQ(now | 1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1), all);
	return unused;
}

/* A process that has the thread's outer number in here, and blocks everything. */
static pid_t make_namesake(void)
{
	const pid_t number = outer_number;
	struct clone_args arguments = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1 };
	sigset_t all, before;
	long child;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (child == 0)
		for (;;)
			pause();
	sigprocmask(SIG_SETMASK, &before, NULL);
	return (pid_t)child;
}

static void run_inside(void *unused)
{
	uint64_t mask = 0;
	char path[64];
	pthread_t thread;
	pid_t namesake;
	patch_t patch;

	(void)unused;
	sem_init(&ready, 0, 0);
	sem_init(&go_on, 0, 0);
	REQUIRE(pthread_create(&thread, NULL, block, NULL) == 0);
	sem_wait(&ready);
	if (outer_number <= 2)
		SKIP("the outer number of a thread is %d", outer_number);
	namesake = make_namesake();
	if (namesake > 0) {
		int outside = 0;
		FILE *children = fopen("/proc/thread-self/children", "re");

		if (!children || fscanf(children, "%d", &outside) != 1)
			SKIP("there is no list of children here");
		fclose(children);
		snprintf(path, sizeof(path), "/proc/%d/status", outside);
		mask = mask_of(path);
	}
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	sem_post(&go_on);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 1);
	if (namesake > 0) {
		CHECK_EQ(mask_of(path), mask);
		kill(namesake, SIGKILL);
		waitpid(namesake, NULL, 0);
	}
	CHECK_OK(patch_fini());
	if (namesake < 0)
		SKIP("no process with a chosen number: %s", strerror(errno));
}

int main(void)
{
	harness_start();
	if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
		SKIP("no namespace of its own: %s", strerror(errno));
	harness_isolated("numbers of an outer /proc", run_inside, NULL);
	return harness_end();
}
