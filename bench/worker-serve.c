/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "worker.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Threads wait for their next turn asleep, and for each other, at its start, awake: they start at once. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t turn;
	uint64_t number; /* of the turn */
	unsigned int threads, started;
	unsigned int ready, done; /* atomic */
	const struct worker_row *row;
	uint64_t n;
	int cpu;
	double took[WORKER_THREADS_MAX];
} work = {.lock = PTHREAD_MUTEX_INITIALIZER, .turn = PTHREAD_COND_INITIALIZER};

static double clock_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void wait_for(unsigned int *counter, unsigned int threads)
{
	unsigned int spins = 0;

	while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < threads) {
		if (++spins < 1000)
			continue;
		/* Many that yield to each other take turns for long before the one that is waited for has its own. */
		if (threads > 2)
			usleep(50);
		else
			sched_yield();
	}
}

static void wait_for_all(unsigned int *counter, unsigned int threads)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_ACQ_REL);
	wait_for(counter, threads);
}

static double call(const struct worker_row *row, uint64_t n)
{
	double start = clock_ns();

	(row->loop ? row->loop : bench_call)(row->function, n);
	return clock_ns() - start;
}

/* Processors differ in what else is to be done on them, and rows must not differ in their processors. */
static void pin(unsigned int number)
{
	static cpu_set_t allowed;
	static int count;
	cpu_set_t chosen;

	if (count == 0 && (sched_getaffinity(0, sizeof(allowed), &allowed) || (count = CPU_COUNT(&allowed)) == 0))
		return;
	number %= (unsigned int)count;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) || number-- > 0)
			continue;
		CPU_ZERO(&chosen);
		CPU_SET(cpu, &chosen);
		sched_setaffinity(0, sizeof(chosen), &chosen);
		return;
	}
}

static void take_turn(unsigned int index)
{
	if (work.cpu >= 0)
		pin((unsigned int)work.cpu + index);
	call(work.row, work.n / 16 + 1);
	wait_for_all(&work.ready, work.threads);
	work.took[index] = call(work.row, work.n);
}

static void *helper(void *argument)
{
	const unsigned int index = (unsigned int)(uintptr_t)argument;
	uint64_t last = 0;

	for (;;) {
		pthread_mutex_lock(&work.lock);
		while (work.number == last || index >= work.threads) {
			last = work.number;
			pthread_cond_wait(&work.turn, &work.lock);
		}
		last = work.number;
		pthread_mutex_unlock(&work.lock);
		take_turn(index);
		__atomic_add_fetch(&work.done, 1, __ATOMIC_ACQ_REL);
	}
	return NULL;
}

static bool start_helpers(unsigned int threads)
{
	pthread_attr_t attr;
	bool started = true;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (; started && work.started + 1 < threads; work.started += started) {
		pthread_t thread;

		started = !pthread_create(&thread, &attr, helper, (void *)(uintptr_t)(work.started + 1));
	}
	pthread_attr_destroy(&attr);
	return started;
}

double worker_measure(const struct worker_row *row, unsigned int threads, uint64_t n, int cpu)
{
	double sum = 0;

	if (threads > WORKER_THREADS_MAX || !start_helpers(threads))
		return -1;
	pthread_mutex_lock(&work.lock);
	work.row = row;
	work.n = n;
	work.cpu = cpu;
	work.threads = threads;
	work.ready = 0;
	work.done = 1;
	work.number++;
	if (threads > 1)
		pthread_cond_broadcast(&work.turn);
	pthread_mutex_unlock(&work.lock);
	take_turn(0);
	wait_for(&work.done, threads);
	for (unsigned int i = 0; i < threads; i++)
		sum += work.took[i];
	return sum / threads;
}

static const struct worker_row *find_row(const struct worker_program *program, const char *name)
{
	for (const struct worker_row *row = program->rows; row->name; row++)
		if (!strcmp(row->name, name))
			return row;
	return NULL;
}

static void obey(const struct worker_program *program, const char *order)
{
	const struct worker_row *row;
	unsigned long long n;
	unsigned int threads;
	char name[64];
	int cpu;

	if (sscanf(order, "prepare %63s", name) == 1) {
		const char *reason = "no such row";

		row = find_row(program, name);
		if (row)
			reason = program->prepare ? program->prepare(row) : NULL;
		printf(reason ? "skip %s\n" : "ok\n", reason);
	} else if (sscanf(order, "run %63s %u %llu %d", name, &threads, &n, &cpu) == 4 &&
		   (row = find_row(program, name))) {
		printf("%.1f\n", worker_measure(row, threads, n, cpu));
	} else {
		printf("skip no such order\n");
	}
	fflush(stdout);
}

int worker_serve(const struct worker_program *program)
{
	char order[256];

	/* Small and before any probe: stdio allocates its buffers now. */
	setvbuf(stdin, NULL, _IOLBF, 4096);
	while (fgets(order, sizeof(order), stdin))
		obey(program, order);
	return 0;
}
