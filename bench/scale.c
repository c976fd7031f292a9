/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How costs grow: per patch, from ten patches to a million, all of them installed by one commit; and with 1 to 256
 * threads that run through one patched function, the time of their hits together, and how long a commit takes beside
 * them.
 */
#include "bench.h"
#include "hit.h"
#include "patch.h"
#include "sites.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP "scale"

extern worker_function bench_ours_entry, bench_ours_count_plain, bench_bare_entry;

/* ---- patches ---- */

struct patches_case {
	size_t count;
	double seconds;
};

static void patches_in_child(void *argument)
{
	const struct patches_case *now = argument;
	const uint64_t end = now_ns() + (uint64_t)(now->seconds * 1e9);
	struct patch_statistics statistics;
	uint64_t start, middle, finish;
	struct sites sites;
	const char *reason = sites_of_instructions(&sites, now->count);
	size_t made = 0;
	char which[40];

	snprintf(which, sizeof(which), "%zu patches", now->count);
	if (!reason && !bench_init())
		reason = bench_last_error();
	if (reason) {
		child_skip("every instruction: make", which, reason);
		return;
	}
	start = now_ns();
	for (size_t i = 0; i < sites.count; i++) {
		patch_t patch;

		made += bench_make(sites.addresses[i], KIND_GPR, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch);
		if (i % 1024 == 0 && now_ns() > end) {
			char text[80];

			snprintf(text, sizeof(text), "only %zu in %.0f s", i, now->seconds);
			child_skip("every instruction: make", which, text);
			return;
		}
	}
	middle = now_ns();
	patch_commit();
	finish = now_ns();
	memset(&statistics, 0, sizeof(statistics));
	patch_statistics(&statistics, sizeof(statistics));
	child_add("every instruction: make", which, "us/patch", (double)(middle - start) / 1e3 / (double)made);
	child_add("every instruction: commit", which, "us/patch", (double)(finish - middle) / 1e3 / (double)made);
	child_add("every instruction: regions", which, "in all", (double)statistics.regions);
	child_add("every instruction: memory", which, "bytes/patch",
		  (double)(statistics.heap_bytes + statistics.code_bytes + statistics.pad_bytes) / (double)made);
	child_add("every instruction: refused", which, "in all", (double)(sites.count - made));
}

/* ---- threads ---- */

static void hits(const char *name, worker_function *function, const char *which, unsigned int threads)
{
	const struct worker_row row = {.name = name, .function = function};
	const uint64_t n = options.quick ? 100 : 20000 + 1000000 / threads;
	uint64_t start;

	/* The first turn starts threads. */
	if (worker_measure(&row, threads, 1, -1) < 0) {
		child_skip(name, which, "no thread");
		return;
	}
	start = now_ns();
	worker_measure(&row, threads, n, -1);
	child_add(name, which, "ns/hit", (double)(now_ns() - start) / (double)(threads * (n + n / 16 + 1)));
}

static unsigned int stop, running;

static void *run(void *argument)
{
	(void)argument;
	__atomic_add_fetch(&running, 1, __ATOMIC_ACQ_REL);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		bench_call(bench_ours_entry, 100);
	return NULL;
}

static void commits(const char *which, unsigned int threads, patch_t patch)
{
	const unsigned int repetitions = options.quick ? 4 : 40;
	const uint64_t end = now_ns() + UINT64_C(10000000000);
	pthread_t thread[WORKER_THREADS_MAX];
	unsigned int started = 0;

	while (started < threads && !pthread_create(&thread[started], NULL, run, NULL))
		started++;
	while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) < started)
		usleep(100);
	for (unsigned int i = 0; i < repetitions && now_ns() < end; i++) {
		uint64_t start = now_ns(), own = thread_ns();

		i % 2 ? patch_enable(patch) : patch_disable(patch);
		patch_commit();
		child_add("threads: commit", which, "us", (double)(now_ns() - start) / 1e3);
		child_add("threads: commit, processor time", which, "us", (double)(thread_ns() - own) / 1e3);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
}

static void threads_in_child(void *argument)
{
	const unsigned int threads = *(const unsigned int *)argument;
	patch_t patch, count;
	bool counted;
	char which[40];

	snprintf(which, sizeof(which), "%u thread%s", threads, threads == 1 ? "" : "s");
	if (!bench_init() ||
	    !bench_make((uintptr_t)bench_ours_entry, KIND_GPR, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch)) {
		child_skip("threads: probe", which, bench_last_error());
		return;
	}
	counted = !bench_kind_missing(KIND_COUNT_PLAIN) &&
		  bench_make((uintptr_t)bench_ours_count_plain, KIND_COUNT_THREAD, PATCH_TRAP_POLICY_ALLOW,
			     PATCH_ENABLED, &count);
	patch_commit();
	for (int i = 0; i < (options.quick ? 1 : 10); i++) {
		hits("threads: bare", bench_bare_entry, which, threads);
		hits("threads: probe", bench_ours_entry, which, threads);
		if (counted)
			hits("threads: count", bench_ours_count_plain, which, threads);
	}
	commits(which, threads, patch);
}

/* ---- all together ---- */

void group_scale(void)
{
	static const unsigned int threads[] = {1, 2, 4, 16, 64, 256};
	const size_t most = options.quick ? 1000 : 1000000;

	for (size_t count = 10; count <= most && row_wanted("every instruction: make"); count *= 10) {
		struct patches_case now = {count, options.quick ? 20 : 90};

		for (int i = 0; i < (options.quick || count > 10000 ? 1 : 5); i++)
			if (!child_run(GROUP, patches_in_child, &now, 150)) {
				char which[40];

				snprintf(which, sizeof(which), "%zu patches", count);
				series_fail(GROUP, "every instruction: make", which, "its process did not end well");
			}
	}
	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads) && row_wanted("threads: probe"); i++) {
		char which[40];

		if (options.quick && threads[i] > 4)
			continue;
		snprintf(which, sizeof(which), "%u thread%s", threads[i], threads[i] == 1 ? "" : "s");
		if (!child_run(GROUP, threads_in_child, (void *)(uintptr_t)&threads[i], 60))
			series_fail(GROUP, "threads: probe", which, "its process did not end well");
		series_relate(GROUP, "threads: probe", which, "threads: bare", NULL);
	}
}
