/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that end inside a procedure, or inside a function called from displaced code, by pthread_exit() or
 * pthread_cancel(): their cleanup handlers run, they can be joined, and probes of other threads go on.
 */
#include "targets.h"

#include <pthread.h>

enum way { EXIT_IN_PROCEDURE, CANCEL_IN_PROCEDURE, EXIT_IN_CALLEE, CANCEL_IN_CALLEE, WAYS };

static const char *const way_name[] = { "pthread_exit in a procedure", "pthread_cancel in a procedure",
					"pthread_exit in a callee", "pthread_cancel in a callee" };

static enum way way;
static __thread bool doomed;
static unsigned int hits, cleanups;
static pthread_barrier_t barrier;

static void end_here(bool cancel)
{
	if (!cancel)
		pthread_exit((void *)4711);
	pthread_barrier_wait(&barrier); /* the other cancels */
	pthread_barrier_wait(&barrier);
	pthread_testcancel();
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
	if (doomed && (way == EXIT_IN_PROCEDURE || way == CANCEL_IN_PROCEDURE))
		end_here(way == CANCEL_IN_PROCEDURE);
}

static void callback(void *argument)
{
	(void)argument;
	if (doomed && (way == EXIT_IN_CALLEE || way == CANCEL_IN_CALLEE))
		end_here(way == CANCEL_IN_CALLEE);
}

static void cleanup(void *argument)
{
	(void)argument;
	cleanups++;
	/* still a thread of the process: probed code works */
	doomed = false;
	if (t_call_callback(callback, NULL) != 77)
		FAIL("wrong result in a cleanup handler");
}

static void *run(void *argument)
{
	doomed = true;
	pthread_cleanup_push(cleanup, argument);
	t_call_callback(callback, argument);
	FAIL("the thread did not end");
	pthread_cleanup_pop(0);
	return NULL;
}

static void end_threads(void *argument)
{
	struct instructions list = code_decode((uintptr_t)t_call_callback, (uintptr_t)t_call_callback_end);
	int policy = *(const int *)argument;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < list.count; n++) {
		CONTEXT("%s, +%#zx, %s", way_name[way], (size_t)(list.address[n] - list.address[0]),
			policy_name(policy));
		/* behind the call, the procedure is met by nobody whose callee ended */
		REQUIRE_OK(make_probe(list.address[n], procedure, NULL, policy, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		for (int round = 0; round < 3; round++) {
			pthread_t thread;
			void *value = NULL;

			cleanups = 0;
			pthread_barrier_init(&barrier, NULL, 2);
			REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
			if (way == CANCEL_IN_PROCEDURE || way == CANCEL_IN_CALLEE) {
				pthread_barrier_wait(&barrier);
				CHECK_EQ(pthread_cancel(thread), 0);
				pthread_barrier_wait(&barrier);
			}
			CHECK_EQ(pthread_join(thread, &value), 0);
			CHECK(value == (way == EXIT_IN_PROCEDURE || way == EXIT_IN_CALLEE ? (void *)4711 :
											     PTHREAD_CANCELED));
			CHECK_EQ(cleanups, 1);
			pthread_barrier_destroy(&barrier);
			hits = 0;
			CHECK_EQ(t_call_callback(callback, NULL), 77);
			CHECK_EQ(hits, 1);
			/* and nothing of the dead thread is waited for */
			CHECK_OK(patch_disable(patch));
			CHECK_OK(patch_commit());
			CHECK_OK(patch_enable(patch));
			CHECK_OK(patch_commit());
		}
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (int w = 0; w < WAYS; w++)
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2) {
			way = (enum way)w;
			harness_isolated(way_name[w], end_threads, &policy);
		}
	return harness_end();
}
