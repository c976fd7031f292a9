/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * As toggle, with signals: SIGUSR1 and a timer hit threads at random instants, on boundaries of displaced ranges, in
 * trampolines, in procedures, in the middle of a commit; their handlers run probed functions, enable, disable and
 * commit. More threads than processors, which yield, so that they are preempted everywhere.
 *
 * signals [seconds [threads]]
 */
#include "stress.h"

#include <sys/time.h>

#define HANDLER_SITES 64

static struct site handler_sites[HANDLER_SITES];
static unsigned int handler_site_count;
static uint64_t handler_runs, handler_toggles;

static void on_signal(int signo)
{
	uint64_t seed = 0x9e3779b97f4a7c15u * (__atomic_add_fetch(&handler_runs, 1, __ATOMIC_RELAXED) + 7);
	struct site *site = &handler_sites[stress_random(&seed) % handler_site_count];
	int saved = errno;

	(void)signo;
	for (int n = 0; n < 4; n++) {
		size_t t = stress_random(&seed) % TARGET_COUNT;

		stress_call(t, (seed & ~(uint64_t)0xff) | 3, stress_random(&seed));
	}
	/* handlers race for the same patches: state is whatever came last, and both are fine */
	stress_note(seed & 1 ? patch_enable(site->patch) : patch_disable(site->patch),
		    "enable or disable in a handler");
	stress_note(patch_commit(), "patch_commit in a handler");
	__atomic_fetch_add(&handler_toggles, 1, __ATOMIC_RELAXED);
	stress_call(stress_random(&seed) % TARGET_COUNT, 5, 7);
	errno = saved;
}

int main(int argc, char **argv)
{
	unsigned int seconds = 5, threads = 2 * (unsigned int)sysconf(_SC_NPROCESSORS_ONLN) + 3;
	uint64_t seed = 0x853c49e6748fea9b, toggles = 0, commits = 0, sent = 0;
	struct itimerval timer = { { 0, 900 }, { 0, 900 } }, no_timer = { { 0, 0 }, { 0, 0 } };
	pthread_t thread[STRESS_MAX_THREADS];
	struct sigaction action;
	double start, elapsed;

	stress_arguments(argc, argv, &seconds, &threads);
	harness_start_seconds(seconds + 120);
	stress_prepare();
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int s = 0; s < site_count; s++)
		stress_note(stress_make(&sites[s], PATCH_ENABLED), "patch_make");
	/* patches that only handlers toggle, second ones at addresses that the controller changes, too */
	for (unsigned int s = 0; s < site_count && handler_site_count < HANDLER_SITES; s += 11) {
		handler_sites[handler_site_count] = sites[s];
		stress_note(stress_make(&handler_sites[handler_site_count++], PATCH_DISABLED), "patch_make");
	}
	CHECK_EQ(stress.failed_calls, 0);
	CHECK_OK(patch_commit());
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
	for (uintptr_t n = 0; n < threads; n++)
		REQUIRE(pthread_create(&thread[n], NULL, stress_thread, (void *)n) == 0);
	REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	start = stress_now();
	while ((elapsed = stress_now() - start) < (double)seconds && harness_failures == 0) {
		CONTEXT("%.1f s, %llu commits", elapsed, (unsigned long long)commits);
		for (int n = 0; n < 8; n++) {
			pthread_kill(thread[stress_random(&seed) % threads], SIGUSR1);
			sent++;
			toggles += stress_change(&seed);
			commits++;
		}
		if (stress.wrong_results > 100 || stress.wrong_pc > 100 || stress.failed_calls > 100)
			break;
	}
	elapsed = stress_now() - start;
	REQUIRE(setitimer(ITIMER_REAL, &no_timer, NULL) == 0);
	__atomic_store_n(&stress.stop, 1, __ATOMIC_RELAXED);
	for (unsigned int n = 0; n < threads; n++)
		pthread_join(thread[n], NULL);
	signal(SIGUSR1, SIG_IGN);
	printf("%llu signals sent, %llu handlers ran, %llu toggles in handlers\n", (unsigned long long)sent,
	       (unsigned long long)handler_runs, (unsigned long long)handler_toggles);
	CHECK(handler_toggles > 0);
	stress_report(toggles, commits, elapsed, threads);
	for (unsigned int n = 0; n < handler_site_count; n++)
		CHECK_OK(patch_unmake(handler_sites[n].patch));
	stress_end();
	return harness_end();
}
