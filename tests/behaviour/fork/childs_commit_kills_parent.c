/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A commit in a child of vfork(), which runs in its parent's memory and has threads of its own in /proc: what its
 * parent's block is not seen from there. It changes no text while one of them may block SIGTRAP, and what was known of
 * them is known behind that, too.
 */
#include "targets.h"

#include "raw_mask.h"

#include <pthread.h>
#include <semaphore.h>

#define SIGTRAP_BIT ((uint64_t)1 << (SIGTRAP - 1))

static unsigned int hits;
static sem_t ready, go_on, unblocked;
static enum { BEFORE, BEHIND } blocks; /* patch_init() */

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void *block(void *unused)
{
	raw_mask(SIG_BLOCK, SIGTRAP_BIT);
	sem_post(&ready);
	sem_wait(&go_on);
	raw_mask(SIG_UNBLOCK, SIGTRAP_BIT);
	sem_post(&unblocked);
	return unused;
}

static patch_status commit_in_child(void)
{
	volatile patch_status result = PATCH_OK;
	int status;
	pid_t child = vfork();

	if (child == 0) {
		result = patch_commit();
		_exit(0);
	}
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	return result;
}

static void start_thread(pthread_t *thread)
{
	REQUIRE(pthread_create(thread, NULL, block, NULL) == 0);
	sem_wait(&ready);
}

static void run(void *when)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = false };
	const struct text_copy before = text_of_target(target_named("t_push_push"));
	pthread_t thread;
	patch_t patch;

	blocks = *(const int *)when;
	sem_init(&ready, 0, 0);
	sem_init(&go_on, 0, 0);
	sem_init(&unblocked, 0, 0);
	if (blocks != BEHIND)
		start_thread(&thread);
	REQUIRE_OK(patch_init(&option, 1));
	if (blocks == BEHIND)
		start_thread(&thread);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	for (int round = 0; round < 2; round++) {
		CHECK_STATUS(commit_in_child(), PATCH_EFAIL);
		CHECK_TEXT_SAME(&before);
		CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
		CHECK_TEXT_SAME(&before);
	}
	sem_post(&go_on);
	sem_wait(&unblocked);
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

/* One thread, which waits for the child: the commit is as good as its own. */
static void alone(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK(commit_in_child() != PATCH_ESYS);
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

int main(void)
{
	int before = BEFORE, behind = BEHIND;

	harness_start();
	harness_isolated("blocked before patch_init()", run, &before);
	harness_isolated("blocked behind it", run, &behind);
	harness_isolated("one thread", alone, NULL);
	return harness_end();
}
