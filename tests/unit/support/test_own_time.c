/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limits of tests (own_time.h): sleeping and computing count, waiting for a processor does not, and harness and
 * run-test end what has had its time.
 */
#include "harness.h"
#include "own_time.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>

static void spin(void)
{
	for (;;)
		__asm__ volatile("" ::: "memory");
}

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

/* What a waiting loop does that waits in vain. */
static void ask_and_sleep(void)
{
	for (;;)
		usleep(1000);
}

/* In a process group of its own, which ends with this process. */
static pid_t start(void (*fn)(void))
{
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		fn();
	}
	setpgid(pid, pid);
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static struct own_time looked_at(pid_t group, unsigned int times)
{
	struct own_time own;

	own_time_start(&own, false, group);
	for (unsigned int i = 0; i < times; i++) {
		usleep(OWN_TIME_PERIOD * 1000000);
		own_time_look(&own);
	}
	return own;
}

Test(own_time, sleeping_counts)
{
	pid_t pid = start(sleep_for_ever);

	cr_expect_geq(looked_at(pid, 3).charged, 2.9);
	stop(pid);
}

Test(own_time, computing_counts)
{
	pid_t pid = start(spin);
	double charged = 0;

	/* As long as it takes where others compute, too. */
	while (charged < 1)
		charged += looked_at(pid, 1).charged;
	stop(pid);
}

#define OTHERS 7

Test(own_time, waiting_for_a_processor_does_not_count)
{
	pid_t others[OTHERS], pid;
	struct own_time own;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	for (int i = 0; i < OTHERS; i++)
		others[i] = start(spin);
	pid = start(spin);
	own = looked_at(pid, 4);
	/* an eighth, by rights */
	cr_expect_lt(own.charged, own.by_clock / 2);
	stop(pid);
	for (int i = 0; i < OTHERS; i++)
		stop(others[i]);
}

static int status_of(void (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		harness_start_seconds(2);
		fn();
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

Test(own_time, harness_ends_what_hangs)
{
	static void (*const hangs[])(void) = { sleep_for_ever, spin, ask_and_sleep };

	for (size_t i = 0; i < sizeof(hangs) / sizeof(hangs[0]); i++) {
		int status = status_of(hangs[i]);

		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%zu: status %#x", i, status);
	}
}

/* What run-test exits with when a shell runs `script`. */
static int run_test(const char *script, const char *limit)
{
	const char *directory = getenv("LIBPATCH_BUILD_DIR");
	char path[4096];
	int status = 0;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/tests/support/run-test", directory ? directory : ".");
	pid = fork();
	if (pid == 0) {
		setenv("TEST_TIMEOUT", limit, 1);
		execl(path, path, "sh", "-c", script, (char *)NULL);
		_exit(126);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

Test(own_time, run_test_exits_as_the_test_does)
{
	cr_expect_eq(run_test("exit 0", "100"), 0);
	cr_expect_eq(run_test("exit 1", "100"), 1);
	cr_expect_eq(run_test("exit 77", "100"), 77);
	cr_expect_eq(run_test("kill -TERM $$", "100"), 128 + SIGTERM);
}

Test(own_time, run_test_ends_what_hangs)
{
	cr_expect_eq(run_test("sleep 1000; exit 0", "2"), 1);
	cr_expect_eq(run_test("timeout 1000 sleep 1000; exit 0", "2"), 1);
	cr_expect_eq(run_test("while :; do :; done", "2"), 1);
}
