/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_fini() whose core synchronisation or writes fail: it says so, each site works, and it can be called again until
 * nothing of ours is left. A commit that failed right before does not change that, and the synchronisation that is
 * missing is made up for even though no byte is left to be written (I4, I5).
 */
#include "targets.h"

#include "base/inject.h"

#define CALLS_MAX 200 /* more than the writes that restore libc's system calls, too */

static const char *const names[] = { "t_five_bytes", "t_2_2_1", "t_1_4", "t_five_singles" };
#define FUNCTIONS (sizeof(names) / sizeof(names[0]))

static enum inject_point fault_point;
static unsigned int calls, failing;

static const struct run {
	const char *name;
	enum inject_point point;
	bool commit_fails; /* before patch_fini() */
} runs[] = {
	{ "core synchronisation", INJECT_SYNC, false },
	{ "writing", INJECT_TEXT_WRITE, false },
	{ "core synchronisation of a commit", INJECT_SYNC, true },
	{ "writing of a commit", INJECT_TEXT_WRITE, true },
};

struct job {
	const struct run *run;
	unsigned int nth;
	bool *reached; /* in shared memory */
};

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static int fault(enum inject_point point)
{
	return point == fault_point && ++calls == failing ? EPERM : 0;
}

static void arm(enum inject_point point, unsigned int nth)
{
	fault_point = point;
	calls = 0;
	failing = nth;
}

static void run_all(void)
{
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK_EQ(target_named(names[n])->function(5, 7), target_named(names[n])->model(5, 7));
}

static void fail_once(void *argument)
{
	const struct job *job = argument;
	struct text_copy before[FUNCTIONS];
	patch_status status;
	patch_t patches[FUNCTIONS];

	CONTEXT("%s fails at call %u", job->run->name, job->nth);
	REQUIRE_OK(patch_init(NULL, 0));
	libpatch_inject = fault;
	for (size_t n = 0; n < FUNCTIONS; n++) {
		const struct target *target = target_named(names[n]);

		before[n] = text_of_target(target);
		REQUIRE_OK(make_probe(target_start(target), procedure, NULL,
				      n == 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				      &patches[n]));
	}
	CHECK_OK(patch_commit());
	if (job->run->commit_fails) {
		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_OK(patch_disable(patches[n]));
		arm(job->run->point, job->nth);
		status = patch_commit();
	} else {
		arm(job->run->point, job->nth);
		status = patch_fini();
	}
	*job->reached = calls >= failing;
	if (!*job->reached) {
		CHECK_EQ(status, PATCH_OK);
		return;
	}
	/* some of a batch, or all of it */
	CHECK(status == PATCH_ESYS || status == PATCH_EFAIL);
	CHECK(strcmp(harness_last_error(), "no error recorded"));
	run_all();
	if (!job->run->commit_fails)
		for (size_t n = 0; n < FUNCTIONS; n++)
			CHECK_STATUS(patch_enable(patches[n]), PATCH_ENEXIST);

	/* and once more, at its first call */
	arm(job->run->point, 1);
	status = patch_fini();
	if (job->run->point == INJECT_SYNC)
		CHECK_EQ(status, PATCH_ESYS); /* without one, nothing would have been made up for */
	run_all();
	arm(INJECT_POINTS, 0);
	if (status != PATCH_OK)
		CHECK_OK(patch_fini());
	run_all();
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK_TEXT_SAME(&before[n]);
	CHECK_STATUS(patch_fini(), PATCH_EFINI);
	CHECK_STATUS(patch_commit(), PATCH_EFINI);
}

int main(void)
{
	struct job job;

	harness_start();
	job.reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(job.reached != MAP_FAILED);
	for (size_t r = 0; r < sizeof(runs) / sizeof(runs[0]); r++) {
		job.run = &runs[r];
		*job.reached = true;
		for (job.nth = 1; *job.reached && job.nth < CALLS_MAX; job.nth++) {
			*job.reached = false;
			harness_isolated(runs[r].name, fail_once, &job);
		}
		CHECK(job.nth > 3);
		CHECK(job.nth < CALLS_MAX);
	}
	return harness_end();
}
