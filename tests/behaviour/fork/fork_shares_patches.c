/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fork: patches work in the child, the child changes its own, and the parent's text and patches are as they were. Also
 * while other threads of the parent are in the middle of a commit.
 */
#include "targets.h"

#include <pthread.h>
#include <spawn.h>

static unsigned int hits;
static patch_t patches[3];
static const struct target *used[3];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static unsigned int call_all(void)
{
	unsigned int wrong = 0;

	for (int u = 0; u < 3; u++)
		wrong += used[u]->function(5, 7) != used[u]->model(5, 7);
	return wrong;
}

/* The child: what it inherited works, then it changes everything. */
static void child(void *argument)
{
	const struct text_copy *originals = argument;
	unsigned int hits_before = hits;
	patch_t patch;

	CHECK_EQ(call_all(), 0);
	CHECK(hits > hits_before);
	for (int u = 0; u < 3; u++)
		CHECK_OK(patch_disable(patches[u]));
	CHECK_OK(patch_commit());
	for (int u = 0; u < 3; u++)
		CHECK_TEXT_SAME(&originals[u]);
	hits = 0;
	CHECK_EQ(call_all(), 0);
	CHECK_EQ(hits, 0);
	CHECK_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_enable(patches[1]));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_EQ(call_all(), 0);
	CHECK(hits > 1);
	CHECK_OK(patch_fini());
	for (int u = 0; u < 3; u++)
		CHECK_TEXT_SAME(&originals[u]);
	CHECK_EQ(call_all(), 0);
}

static unsigned int stop, wrong, toggles;

static void *toggle(void *argument)
{
	(void)argument;
	for (unsigned int n = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
		if ((n & 1 ? patch_enable(patches[2]) : patch_disable(patches[2])) != PATCH_OK ||
		    patch_commit() != PATCH_OK)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&toggles, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *run(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		__atomic_fetch_add(&wrong, call_all(), __ATOMIC_RELAXED);
	return NULL;
}

int main(void)
{
	static const char *const names[] = { "t_push_push", "t_call_last", "t_loop_to_second" };
	struct text_copy originals[3], patched[3];
	static const struct target *five;
	struct text_copy five_before;
	pthread_t threads[2];

	harness_start();
	five = target_named("t_five_bytes");
	five_before = text_save(target_start(five), target_size(five));
	for (int u = 0; u < 3; u++) {
		used[u] = target_named(names[u]);
		originals[u] = text_of_target(used[u]);
	}
	REQUIRE_OK(patch_init(NULL, 0));
	for (int u = 0; u < 3; u++)
		REQUIRE_OK(make_probe(target_start(used[u]), procedure, NULL,
				      u == 1 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				      &patches[u]));
	CHECK_OK(patch_commit());
	for (int u = 0; u < 3; u++)
		patched[u] = text_of_target(used[u]);
	for (int round = 0; round < 10; round++) {
		hits = 0;
		harness_isolated("child of a quiet parent", child, originals);
		CHECK_EQ(hits, 0);
		for (int u = 0; u < 3; u++)
			CHECK_TEXT_SAME(&patched[u]);
		CHECK_TEXT_SAME(&five_before);
		CHECK_EQ(call_all(), 0);
		CHECK_EQ(hits, 3);
		/* the parent can still change its own */
		CHECK_OK(patch_disable(patches[0]));
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&originals[0]);
		CHECK_OK(patch_enable(patches[0]));
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&patched[0]);
	}

	REQUIRE(pthread_create(&threads[0], NULL, toggle, NULL) == 0);
	REQUIRE(pthread_create(&threads[1], NULL, run, NULL) == 0);
	for (int round = 0; round < 200; round++) {
		unsigned int at = __atomic_load_n(&toggles, __ATOMIC_RELAXED);

		harness_isolated("child of a parent in the middle of a commit", child, originals);
		while (__atomic_load_n(&toggles, __ATOMIC_RELAXED) < at + 3)
			sched_yield();
	}
	for (int round = 0; round < 20; round++) {
		char *arguments[] = { "true", NULL };
		int status = -1;
		pid_t pid;

		CONTEXT("posix_spawn while others commit");
		if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ)) {
			FAIL("posix_spawn");
			continue;
		}
		waitpid(pid, &status, 0);
		CHECK_EQ(status, 0);
	}
	CONTEXT("at the end");
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	CHECK_EQ(wrong, 0);
	CHECK_OK(patch_fini());
	for (int u = 0; u < 3; u++)
		CHECK_TEXT_SAME(&originals[u]);
	return harness_end();
}
