/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child finds the library unlocked, its probes served, and its signals as they were: also where the call was taken
 * over just before it was made, or still is after a patch_fini() that failed. One that is made in the middle of
 * patch_init(), not by fork(), is told so.
 */
#include "targets.h"

#include "base/inject.h"

#include <dlfcn.h>
#include <link.h>
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

static void fork_and(pid_t (*how)(void), void (*child)(void))
{
	uint64_t before = blocked();
	int status = -1;
	pid_t pid = how();

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
static _Atomic bool patching, forked;

/* libc's calls are about to be patched: the other thread comes to fork() before, and to its system call afterwards. */
static int hold(enum inject_point point)
{
	if (point != INJECT_COMMIT_CHECKED || patching)
		return 0;
	patching = true;
	while (forking == 0 || !harness_waits(forking))
		sched_yield();
	return 0;
}

static int hold_till_forked(enum inject_point point)
{
	if (point != INJECT_COMMIT_CHECKED || patching)
		return 0;
	patching = true;
	while (!forked)
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
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
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
	fork_and(fork, use);
	pthread_join(thread, NULL);
	use();
}

static void be_told(void)
{
	CHECK_STATUS(patch_init(NULL, 0), PATCH_EFAIL);
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(strstr(harness_last_error(), "copied") != NULL);
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
}

static pid_t by_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

/* glibc has it from 2.34 on. */
extern __attribute__((weak)) pid_t _Fork(void);

static void in_the_middle(void *how)
{
	pthread_t thread;

	libpatch_inject = hold_till_forked;
	REQUIRE(pthread_create(&thread, NULL, initialise, NULL) == 0);
	while (!patching)
		sched_yield();
	fork_and(how != NULL ? by_clone : _Fork, be_told);
	forked = true;
	pthread_join(thread, NULL);
	use();
}

/* The library has its handler already, but does not see yet what the program does with it. */
static _Atomic bool held;
static _Thread_local bool is_to_hold;

int dl_iterate_phdr(int (*function)(struct dl_phdr_info *, size_t, void *), void *data)
{
	static int (*next)(int (*)(struct dl_phdr_info *, size_t, void *), void *);

	if (next == NULL)
		next = (int (*)(int (*)(struct dl_phdr_info *, size_t, void *), void *))dlsym(RTLD_NEXT,
											      "dl_iterate_phdr");
	while (is_to_hold && !forked) {
		held = true;
		sched_yield();
	}
	return next(function, data);
}

static void *initialise_held(void *unused)
{
	is_to_hold = true;
	return initialise(unused);
}

static void clean_up_and_use(void)
{
	signal(SIGTRAP, SIG_DFL);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

static void after_its_handler(void *unused)
{
	pthread_t thread;

	(void)unused;
	REQUIRE(pthread_create(&thread, NULL, initialise_held, NULL) == 0);
	while (!held)
		sched_yield();
	fork_and(fork, clean_up_and_use);
	forked = true;
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
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	libpatch_inject = fault;
	if (patch_fini() == PATCH_OK) {
		*(bool *)reached = false;
		return;
	}
	fork_and(fork, finish);
	finish();
}

int main(void)
{
	bool *reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	harness_start();
	REQUIRE(reached != MAP_FAILED);
	harness_isolated("beside patch_init()", beside_init, NULL);
	if (_Fork != NULL)
		harness_isolated("_Fork() in the middle of patch_init()", in_the_middle, NULL);
	harness_isolated("clone() in the middle of patch_init()", in_the_middle, (void *)1);
	harness_isolated("the handler is in place", after_its_handler, NULL);
	*reached = true;
	for (failing = 1; failing <= WRITES_MAX && *reached; failing++) {
		CONTEXT("write %u fails", failing);
		harness_isolated("patch_fini() failed", after_failed_fini, reached);
	}
	CHECK(!*reached);
	CHECK(failing > 3);
	return harness_end();
}
