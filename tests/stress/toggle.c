/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads run every awkward function over and over, checking each result and register, while a controller toggles,
 * releases and makes probes on all of their instructions as fast as it can: alone, all at once, in random subsets.
 *
 * toggle [seconds [threads]]
 */
#include "stress.h"

int main(int argc, char **argv)
{
	unsigned int seconds = 5, threads = 4;
	uint64_t seed = 0x2545f4914f6cdd1d, toggles = 0, commits = 0;
	pthread_t thread[STRESS_MAX_THREADS];
	double start, elapsed;

	stress_arguments(argc, argv, &seconds, &threads);
	harness_start_seconds(seconds + 120);
	stress_prepare();
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int s = 0; s < site_count; s++)
		stress_note(stress_make(&sites[s], PATCH_ENABLED), "patch_make");
	CHECK_EQ(stress.failed_calls, 0);
	for (uintptr_t n = 0; n < threads; n++)
		REQUIRE(pthread_create(&thread[n], NULL, stress_thread, (void *)n) == 0);
	start = stress_now();
	while ((elapsed = stress_now() - start) < (double)seconds && harness_failures == 0) {
		CONTEXT("%.1f s, %llu commits", elapsed, (unsigned long long)commits);
		for (int n = 0; n < 32; n++) {
			toggles += stress_change(&seed);
			commits++;
		}
		if (stress.wrong_results > 100 || stress.wrong_pc > 100 || stress.failed_calls > 100)
			break;
	}
	elapsed = stress_now() - start;
	__atomic_store_n(&stress.stop, 1, __ATOMIC_RELAXED);
	for (unsigned int n = 0; n < threads; n++)
		pthread_join(thread[n], NULL);
	stress_report(toggles, commits, elapsed, threads);
	stress_end();
	return harness_end();
}
