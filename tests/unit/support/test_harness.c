/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The harness of the behaviour tests: what a test exits with, and what its last line says, when parts of it fail or
 * cannot run. A test here runs a whole behaviour test in a child and looks at it from outside.
 */
#include "harness.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct outcome {
	int status; /* as of waitpid() */
	char last_line[512];
};

/* The process that runs behaviour() becomes leader of a process group, which the watchdog ends with it. */
static struct outcome outcome_of(int (*behaviour)(void))
{
	struct outcome outcome = { .status = -1 };
	char line[512];
	int ends[2];
	FILE *said;
	pid_t pid;

	cr_assert_eq(pipe(ends), 0);
	fflush(NULL);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		exit(behaviour());
	}
	close(ends[1]);
	said = fdopen(ends[0], "r");
	while (fgets(line, sizeof(line), said))
		memcpy(outcome.last_line, line, sizeof(line));
	fclose(said);
	cr_assert_eq(waitpid(pid, &outcome.status, 0), pid);
	return outcome;
}

static void passes(void *unused)
{
	(void)unused;
	CHECK(1 + 1 == 2);
}

static void fails(void *unused)
{
	(void)unused;
	CHECK(1 + 1 == 3);
}

static void is_skipped(void *unused)
{
	(void)unused;
	SKIP("there is no %s", "moon");
}

static void fails_and_is_skipped(void *unused)
{
	fails(unused);
	is_skipped(unused);
}

static void has_a_part_that_is_skipped(void *unused)
{
	(void)unused;
	harness_isolated("inner part", is_skipped, NULL);
	harness_isolated("other inner part", passes, NULL);
}

static int all_parts_pass(void)
{
	harness_start();
	harness_isolated("first", passes, NULL);
	harness_isolated("second", passes, NULL);
	return harness_end();
}

Test(harness, parts_pass)
{
	cr_expect_eq(outcome_of(all_parts_pass).status, 0);
}

static int one_part_is_skipped(void)
{
	harness_start();
	harness_isolated("first", is_skipped, NULL);
	harness_isolated("second", passes, NULL);
	return harness_end();
}

Test(harness, skipped_part_is_no_pass)
{
	struct outcome outcome = outcome_of(one_part_is_skipped);

	cr_expect(WIFEXITED(outcome.status));
	cr_expect_eq(WEXITSTATUS(outcome.status), 77);
	cr_expect_str_eq(outcome.last_line, "SKIP: 1 part(s) of the test: first: there is no moon\n");
}

static int part_within_part_is_skipped(void)
{
	harness_start();
	harness_isolated("outer part", has_a_part_that_is_skipped, NULL);
	return harness_end();
}

Test(harness, part_within_part_is_skipped)
{
	struct outcome outcome = outcome_of(part_within_part_is_skipped);

	cr_expect_eq(WEXITSTATUS(outcome.status), 77);
	cr_expect_str_eq(outcome.last_line, "SKIP: 1 part(s) of the test: outer part: inner part: there is no moon\n");
}

static int one_part_fails(void)
{
	harness_start();
	harness_isolated("first", fails, NULL);
	harness_isolated("second", is_skipped, NULL);
	return harness_end();
}

Test(harness, failure_counts_for_more_than_a_skipped_part)
{
	cr_expect_eq(WEXITSTATUS(outcome_of(one_part_fails).status), 1);
}

static int part_fails_then_skips(void)
{
	harness_start();
	harness_isolated("first", fails_and_is_skipped, NULL);
	return harness_end();
}

static int fails_then_skips(void)
{
	harness_start();
	fails_and_is_skipped(NULL);
	return harness_end();
}

Test(harness, skip_hides_no_failure)
{
	cr_expect_eq(WEXITSTATUS(outcome_of(part_fails_then_skips).status), 1);
	cr_expect_eq(WEXITSTATUS(outcome_of(fails_then_skips).status), 1);
}

static void is_killed(void *unused)
{
	(void)unused;
	raise(SIGKILL);
}

static int one_part_dies(void)
{
	harness_start();
	harness_isolated("first", is_killed, NULL);
	return harness_end();
}

Test(harness, killed_part_fails)
{
	cr_expect_eq(WEXITSTATUS(outcome_of(one_part_dies).status), 1);
}
