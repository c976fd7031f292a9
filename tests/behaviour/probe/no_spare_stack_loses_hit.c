/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that meet their first hook with a stack of their own while no stack is spare: they wait until whoever took
 * the others has made some, and no hit is lost; a signal that comes meanwhile is handled. Where none can be made the
 * hook is passed over, counted, and the program goes on.
 */
#include "targets.h"

#include "arch/own_stack.h"
#include "runtime/lock.h"
#include "runtime/own_stack.h"

#include <pthread.h>

#define MANY 400

static unsigned int hits, handled, begun, go;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_SEQ_CST);
}

static void on_signal(int signo)
{
	(void)signo;
	__atomic_fetch_add(&handled, 1, __ATOMIC_SEQ_CST);
}

static void start(void)
{
	struct patch_location location = location_at((uintptr_t)t_five_bytes);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(patch_attr_set_stack(&attr, PATCH_STACK_OWN));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
}

/* As if other threads had taken them, and were preempted. */
static void take_all(void)
{
	for (int i = 0; i < OWN_SPARES; i++)
		__atomic_store_n(&libpatch_own_spares[i], NULL, __ATOMIC_SEQ_CST);
}

static void make_some(void)
{
	struct lock_scope scope;

	REQUIRE(lock_acquire(&scope));
	CHECK(own_stack_prepare());
	lock_release(&scope);
}

static uint64_t missed(void)
{
	struct patch_statistics statistics;

	REQUIRE_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.missed;
}

static void *run(void *unused)
{
	__atomic_fetch_add(&begun, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		sched_yield();
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	return unused;
}

static void wait_until(const unsigned int *what, unsigned int value)
{
	while (__atomic_load_n(what, __ATOMIC_ACQUIRE) < value)
		sched_yield();
}

/* The thread is seen to wait when what it waits by goes down. */
static void wait_for_wait(uint64_t from)
{
	while (__atomic_load_n(&libpatch_own_patience, __ATOMIC_RELAXED) >= from)
		sched_yield();
}

static void waits(void *with_signal)
{
	const uint64_t patience = UINT64_MAX / 2;
	pthread_t thread;

	signal(SIGUSR1, on_signal);
	start();
	take_all();
	__atomic_store_n(&libpatch_own_patience, patience, __ATOMIC_SEQ_CST);
	go = 1;
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	wait_for_wait(patience);
	CHECK_EQ(hits, 0);
	for (unsigned int i = 1; with_signal != NULL && i <= 100; i++) {
		pthread_kill(thread, SIGUSR1);
		wait_until(&handled, i);
		wait_for_wait(__atomic_load_n(&libpatch_own_patience, __ATOMIC_RELAXED));
	}
	make_some();
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 2);
	CHECK_EQ(missed(), 0);
	CHECK_OK(patch_fini());
}

static void gives_up(void *unused)
{
	pthread_t thread;

	(void)unused;
	start();
	take_all();
	__atomic_store_n(&libpatch_own_patience, 1000, __ATOMIC_SEQ_CST);
	go = 1;
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 0);
	CHECK_EQ(missed(), 2);
	make_some();
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 2);
	CHECK_EQ(missed(), 2);
	CHECK_OK(patch_fini());
}

/* Who had taken them is not in the child. */
static void forks(void *unused)
{
	int status;
	pid_t child;

	(void)unused;
	start();
	take_all();
	__atomic_store_n(&libpatch_own_patience, UINT64_MAX / 2, __ATOMIC_SEQ_CST);
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		go = 1;
		run(NULL);
		_exit(hits == 2 ? 0 : 1);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	make_some();
	CHECK_OK(patch_fini());
}

static void many_at_once(void *unused)
{
	static pthread_t threads[MANY];

	(void)unused;
	start();
	for (int i = 0; i < MANY; i++)
		REQUIRE(pthread_create(&threads[i], NULL, run, NULL) == 0);
	wait_until(&begun, MANY);
	__atomic_store_n(&go, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < MANY; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(hits, 2 * MANY);
	CHECK_EQ(missed(), 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("waits", waits, NULL);
	harness_isolated("waits, with signals", waits, (void *)1);
	harness_isolated("gives up", gives_up, NULL);
	harness_isolated("forks", forks, NULL);
	harness_isolated("many at once", many_at_once, NULL);
	return harness_end();
}
