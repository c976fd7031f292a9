/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child of fork() finds the library unlocked, its probes served, and its signals as they were, also where the call was taken
 * over just before it was made, or still is after a patch_fini() that failed.
 */
#include "targets.h"

#include "inject.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define WRITES_MAX 200 /* more than restore libc's system calls */

static patch_t patch;
static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void *wait_for_end(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

/* Then signals are blocked under the lock. */
static void start_thread(void)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, wait_for_end, NULL) == 0);
}

static uint64_t blocked(void)
{
	uint64_t mask = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	return mask;
}

static void fork_and(void (*child)(void))
{
	uint64_t before = blocked();
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		CHECK_EQ(blocked(), before);
		child();
		_exit(0);
	}
	REQUIRE(pid > 0);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(blocked(), before);
}

/* ---- beside patch_init() ---------------------------------------------------------------------------------------- */

static _Atomic pid_t forking;
static _Atomic bool patching;

static bool is_waiting(pid_t tid)
{
	char path[64], line[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	file = fopen(path, "r");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL)
		line[0] = '\0';
	if (file != NULL)
		fclose(file);
	return atoi(line) == SYS_futex && line[0] != '\0';
}

/* libc's calls are about to be patched: the other thread comes to fork() before, and to its system call afterwards. */
static int hold(enum inject_point point)
{
	if (point != INJECT_COMMIT_CHECKED || patching)
		return 0;
	patching = true;
	while (forking == 0 || !is_waiting(forking))
		sched_yield();
	return 0;
}

static void *initialise(void *unused)
{
	(void)unused;
	CHECK_OK(patch_init(NULL, 0));
	return NULL;
}

static void use(void)
{
	hits = 0;
	REQUIRE_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

static void beside_init(void *unused)
{
	pthread_t thread;

	(void)unused;
	libpatch_inject = hold;
	REQUIRE(pthread_create(&thread, NULL, initialise, NULL) == 0);
	while (!patching)
		sched_yield();
	forking = (pid_t)syscall(SYS_gettid);
	fork_and(use);
	pthread_join(thread, NULL);
	use();
}

/* ---- after patch_fini() ----------------------------------------------------------------------------------------- */

static unsigned int writes, failing;

static int fault(enum inject_point point)
{
	return point == INJECT_TEXT_WRITE && ++writes == failing ? EPERM : 0;
}

static void finish(void)
{
	failing = 0;
	CHECK_OK(patch_fini());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
}

static void after_failed_fini(void *reached)
{
	start_thread();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	libpatch_inject = fault;
	if (patch_fini() == PATCH_OK) {
		*(bool *)reached = false;
		return;
	}
	fork_and(finish);
	finish();
}

int main(void)
{
	bool *reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	harness_start();
	REQUIRE(reached != MAP_FAILED);
	harness_isolated("beside patch_init()", beside_init, NULL);
	*reached = true;
	for (failing = 1; failing <= WRITES_MAX && *reached; failing++) {
		CONTEXT("write %u fails", failing);
		harness_isolated("patch_fini() failed", after_failed_fini, reached);
	}
	CHECK(!*reached);
	CHECK(failing > 3);
	return harness_end();
}
