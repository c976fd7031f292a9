/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A storm of SIGUSR1 and timer signals whose handlers enable, disable, commit and run probed functions, while the
 * threads they interrupt do the same: no call fails or hangs, no result is wrong, all bytes come back.
 */
#include "targets.h"

#include <pthread.h>
#include <sys/time.h>

#define THREADS 3
#define COMMITS_IN_HANDLERS 3000

static patch_t patches[3];
static const struct target *used[3];
static unsigned int handler_commits, handler_failures, wrong, hits, stop;
static patch_status first_failure;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void note(patch_status status)
{
	if (status != PATCH_OK && !__atomic_fetch_add(&handler_failures, 1, __ATOMIC_RELAXED))
		first_failure = status;
}

static void call_all(unsigned int seed)
{
	for (int u = 0; u < 3; u++)
		if (used[u]->function(seed % 15 + 1, seed) != used[u]->model(seed % 15 + 1, seed))
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}

static void handler(int signo)
{
	unsigned int n = __atomic_fetch_add(&handler_commits, 1, __ATOMIC_RELAXED);
	int saved = errno;

	(void)signo;
	call_all(n);
	note(n & 1 ? patch_enable(patches[n % 3]) : patch_disable(patches[n % 3]));
	note(patch_commit());
	call_all(n + 1);
	errno = saved;
}

static void *runner(void *argument)
{
	unsigned int n = (unsigned int)(uintptr_t)argument;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		call_all(n++);
		if (n % 8 == 0) {
			note(n & 8 ? patch_enable(patches[n / 8 % 3]) : patch_disable(patches[n / 8 % 3]));
			note(patch_commit());
		}
	}
	return NULL;
}

int main(void)
{
	static const char *const names[] = { "t_loop_singles", "t_call_last", "t_redzone_short" };
	struct itimerval timer = { { 0, 700 }, { 0, 700 } };
	struct itimerval no_timer = { { 0, 0 }, { 0, 0 } };
	struct text_copy before[3];
	struct sigaction action;
	pthread_t threads[THREADS];

	harness_start();
	for (int u = 0; u < 3; u++) {
		used[u] = target_named(names[u]);
		before[u] = text_of_target(used[u]);
	}
	REQUIRE_OK(patch_init(NULL, 0));
	for (int u = 0; u < 3; u++)
		REQUIRE_OK(make_probe(target_start(used[u]) + (u == 0 ? 3 : 0), procedure, NULL,
				      PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patches[u]));
	CHECK_OK(patch_commit());
	memset(&action, 0, sizeof(action));
	action.sa_handler = handler;
	action.sa_flags = SA_RESTART;
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
	for (uintptr_t n = 0; n < THREADS; n++)
		REQUIRE(pthread_create(&threads[n], NULL, runner, (void *)(n * 1000)) == 0);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (unsigned int n = 0; __atomic_load_n(&handler_commits, __ATOMIC_RELAXED) < COMMITS_IN_HANDLERS; n++) {
		struct timespec pause = { 0, 100 * 1000 };

		pthread_kill(threads[n % THREADS], SIGUSR1);
		CONTEXT("%u commits in handlers", __atomic_load_n(&handler_commits, __ATOMIC_RELAXED));
		nanosleep(&pause, NULL);
	}
	setitimer(ITIMER_REAL, &no_timer, NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	CHECK_EQ(wrong, 0);
	if (handler_failures)
		FAIL("%u calls failed, the first with %s", handler_failures, patch_status_string(first_failure));
	CHECK(hits > 0);
	CHECK_OK(patch_fini());
	for (int u = 0; u < 3; u++)
		CHECK_TEXT_SAME(&before[u]);
	return harness_end();
}
