/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "runner.h"

#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <x86intrin.h>

static struct {
	pthread_t thread;
	void (*call)(void);
	unsigned int stop;     /* atomic, as the others */
	uint64_t asked, told;  /* number of the last look wanted, and answered */
	struct runner_state state;
} runner;

/*
 * The clock is the processor's counter, read at each call; the kernel is asked for the thread's time only when somebody
 * looks.
 */
static void *run(void *argument)
{
	uint64_t calls = 0, told = 0, longest = 0, last = __rdtsc();
	const uint64_t start_counter = last, start = now_ns();

	(void)argument;
	while (!__atomic_load_n(&runner.stop, __ATOMIC_RELAXED)) {
		uint64_t now, asked;

		runner.call();
		calls++;
		now = __rdtsc();
		if (now - last > longest)
			longest = now - last;
		asked = __atomic_load_n(&runner.asked, __ATOMIC_RELAXED);
		if (asked != told) {
			double ratio = (double)(now_ns() - start) / (double)(__rdtsc() - start_counter);

			runner.state = (struct runner_state){calls, thread_ns(), (uint64_t)((double)longest * ratio)};
			told = asked;
			__atomic_store_n(&runner.told, told, __ATOMIC_RELEASE);
			longest = 0;
			now = __rdtsc();
		}
		last = now;
	}
	return NULL;
}

bool runner_start(void (*call)(void))
{
	runner.call = call;
	runner.stop = 0;
	runner.asked = runner.told = 0;
	return !pthread_create(&runner.thread, NULL, run, NULL);
}

void runner_look(struct runner_state *state)
{
	const uint64_t asked = runner.asked + 1;

	__atomic_store_n(&runner.asked, asked, __ATOMIC_RELEASE);
	while (__atomic_load_n(&runner.told, __ATOMIC_ACQUIRE) != asked)
		sched_yield();
	*state = runner.state;
}

void runner_stop(void)
{
	__atomic_store_n(&runner.stop, 1, __ATOMIC_RELAXED);
	pthread_join(runner.thread, NULL);
}
