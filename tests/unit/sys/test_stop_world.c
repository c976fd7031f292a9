/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While all other threads are stopped none of them executes anything, also of those that are started all the time, and
 * there is one thread; behind that all go on. Where one cannot be stopped, nothing is run.
 */
#include "base/syscall.h"
#include "sys/stop_world.h"
#include "sys/tasks.h"
#include "trap/owned_signals.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define COUNTERS 4
#define STARTERS 4
#define THREADS (COUNTERS + STARTERS)
#define ROUNDS 8

static _Atomic uint64_t counts[THREADS];
static _Atomic bool over;

static void *count(void *counter)
{
	while (!over)
		++*(_Atomic uint64_t *)counter;
	return counter;
}

static void *count_once(void *counter)
{
	for (int i = 0; i < 1000 && !over; ++i)
		++*(_Atomic uint64_t *)counter;
	return counter;
}

static void *start_others(void *counter)
{
	pthread_t thread;

	while (!over)
		if (pthread_create(&thread, NULL, count_once, counter) == 0)
			pthread_join(thread, NULL);
	return counter;
}

static pthread_t threads[THREADS];

static void start_all(void)
{
	for (int i = 0; i < THREADS; ++i)
		cr_assert_eq(pthread_create(&threads[i], NULL, i < COUNTERS ? count : start_others, &counts[i]), 0);
	for (int i = 0; i < THREADS; ++i)
		while (counts[i] == 0)
			sched_yield();
}

static void end_all(void)
{
	over = true;
	for (int i = 0; i < THREADS; ++i)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
}

static bool stop_and_run(void (*run)(void *), void *data)
{
	uint64_t before = signals_block();
	bool ran = stop_world_and_run(run, data);

	signals_set_mask(before);
	return ran;
}

struct seen {
	bool ran;
	bool single;
	bool moved;
};

/* In the child: no assertions here. */
static void look(void *data)
{
	struct seen *seen = data;
	uint64_t before[THREADS];

	for (int i = 0; i < THREADS; ++i)
		before[i] = counts[i];
	/* Every processor has been free for whoever would run. */
	for (int i = 0; i < 2000; ++i)
		raw_syscall(SYS_sched_yield);
	for (int i = 0; i < THREADS; ++i)
		seen->moved |= counts[i] != before[i];
	seen->single = tasks_is_single();
	seen->ran = true;
}

/* Does everybody go on? */
static void wait_for_all(void)
{
	uint64_t before[THREADS];

	for (int i = 0; i < THREADS; ++i)
		before[i] = counts[i];
	for (int i = 0; i < THREADS; ++i)
		while (counts[i] == before[i])
			sched_yield();
}

/* All threads have ended before anything is asserted. */
Test(stop_world, nobody_executes_anything, .timeout = 100)
{
	int stopped = 0, single = 0, moved = 0;

	start_all();
	for (int round = 0; round < ROUNDS; ++round) {
		struct seen seen = { 0 };

		stopped += stop_and_run(look, &seen) && seen.ran;
		single += seen.single;
		moved += seen.moved;
		wait_for_all();
	}
	end_all();
	cr_assert_eq(stopped, ROUNDS);
	cr_assert_eq(single, ROUNDS);
	cr_assert_eq(moved, 0, "somebody ran, %d times", moved);
}

Test(stop_world, alone)
{
	struct seen seen = { 0 };

	cr_assert(stop_and_run(look, &seen));
	cr_assert(seen.ran && seen.single && !seen.moved);
}

/* ---- one that waits for a child of vfork() ----------------------------------------------------------------------- */

static int to_child[2], to_parent[2];

static void *wait_for_child(void *unused)
{
	char byte = 0;
	pid_t child = vfork();

	if (child == 0) {
		if (write(to_parent[1], &byte, 1) == 1)
			byte = read(to_child[0], &byte, 1) == 1;
		_exit(!byte);
	}
	return unused;
}

Test(stop_world, a_child_that_shares_the_text, .timeout = 100)
{
	struct seen seen = { 0 }, later = { 0 };
	bool stopped, stopped_later;
	pthread_t thread;
	char byte = 0;

	cr_assert(pipe(to_child) == 0 && pipe(to_parent) == 0);
	start_all();
	cr_assert_eq(pthread_create(&thread, NULL, wait_for_child, NULL), 0);
	cr_assert_eq(read(to_parent[0], &byte, 1), 1);
	stopped = stop_and_run(look, &seen);
	cr_assert_eq(write(to_child[1], &byte, 1), 1);
	pthread_join(thread, NULL);
	stopped_later = stop_and_run(look, &later);
	end_all();
	cr_assert(!stopped && !seen.ran);
	cr_assert(stopped_later && later.ran && !later.moved);
}
