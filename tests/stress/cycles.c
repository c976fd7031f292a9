/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Make, enable, commit, unmake, commit, with ever new user data and another procedure each time, while threads run
 * through the probe, sleep in it, and come and go: no user data is used once its destroy function was called, each is
 * called once, and memory does not grow with the number of cycles, by the library's account and by the kernel's. Then,
 * how long a commit takes while many threads are parked in a probe.
 *
 * cycles [seconds [cycles]]      without cycles: as many as there is time for; 20,000 at least
 */
#include "targets.h"

#include <pthread.h>

#define RUNNERS 2
#define SLEEPERS 2
#define PARKED 100
#define EARLY 10000

static unsigned int stop;
static uint64_t destroyed, misused;

/* Its pool is the account of what may still be in use: far more than threads can hold. */
struct data {
	uint32_t alive;
	uint32_t hits;
};
#define POOL 4096
static struct data pool[POOL];
static uint64_t made;

static struct data *next_data(void)
{
	struct data *data;

	do
		data = &pool[made++ % POOL];
	while (__atomic_load_n(&data->alive, __ATOMIC_ACQUIRE));
	__atomic_store_n(&data->alive, 1, __ATOMIC_RELEASE);
	return data;
}

static void destroy(void *user_data)
{
	struct data *data = user_data;

	if (__atomic_exchange_n(&data->alive, 0, __ATOMIC_ACQ_REL) != 1)
		__atomic_fetch_add(&misused, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED);
}

static void use(struct data *data)
{
	if (!__atomic_load_n(&data->alive, __ATOMIC_ACQUIRE))
		__atomic_fetch_add(&misused, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&data->hits, 1, __ATOMIC_RELAXED);
}

static __thread bool sleeps;

static void one(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	use(context->user_data);
	if (sleeps) {
		struct timespec nap = { 0, 50000 };

		nanosleep(&nap, NULL);
		use(context->user_data);
	}
}

static void other(struct patch_exec_context *context, uint8_t post)
{
	one(context, post);
	use(context->user_data);
}

static void *runner(void *argument)
{
	sleeps = argument != NULL;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
		t_five_singles(1, 2);
	}
	return NULL;
}

static void *brief(void *argument)
{
	for (int i = 0; i < 10; i++)
		t_five_bytes(1, 2);
	return argument;
}

/* Threads that come and go. */
static void *starter(void *argument)
{
	pthread_t thread;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		struct timespec nap = { 0, 2000000 };

		REQUIRE(pthread_create(&thread, NULL, brief, NULL) == 0);
		pthread_join(thread, NULL);
		nanosleep(&nap, NULL);
	}
	return argument;
}

static patch_t make(uintptr_t address, int type)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(type, made & 1 ? one : other, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED);
	patch_t patch = NULL;

	model.probe.user_data = next_data();
	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_enable(patch));
	return patch;
}

static void cycle(void)
{
	static patch_t neighbour;
	patch_t patch = make((uintptr_t)t_five_bytes, PATCH_EXEC_MODEL_PROBE);

	/* One on a window that is never empty, too. */
	if (neighbour != NULL)
		REQUIRE_OK(patch_unmake(neighbour));
	neighbour = make((uintptr_t)t_five_singles + made / 2 % 4, PATCH_EXEC_MODEL_PROBE_AROUND);
	REQUIRE_OK(patch_commit());
	REQUIRE_OK(patch_unmake(patch));
	REQUIRE_OK(patch_commit());
}

static struct patch_statistics statistics(void)
{
	struct patch_statistics now;

	memset(&now, 0, sizeof(now));
	CHECK_OK(patch_statistics(&now, sizeof(now)));
	return now;
}

static long resident(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long size = 0, pages = 0;

	if (file != NULL && fscanf(file, "%ld %ld", &size, &pages) != 2)
		pages = 0;
	if (file != NULL)
		fclose(file);
	return pages * 4;
}

static double seconds_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void run_cycles(unsigned int seconds, uint64_t wanted)
{
	double start = seconds_now();
	pthread_t threads[RUNNERS + SLEEPERS + 1];
	struct patch_statistics early = { 0 }, late;
	long early_resident = 0;
	uint64_t cycles;

	for (uintptr_t i = 0; i < RUNNERS + SLEEPERS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, runner, (void *)(i < SLEEPERS ? 1UL : 0UL)) == 0);
	REQUIRE(pthread_create(&threads[RUNNERS + SLEEPERS], NULL, starter, NULL) == 0);
	for (cycles = 0; wanted != 0 ? cycles < wanted : cycles < 2 * EARLY || seconds_now() - start < seconds;
	     cycles++) {
		cycle();
		if (cycles == EARLY) {
			early = statistics();
			early_resident = resident();
		}
		if (harness_failures != 0)
			break;
	}
	late = statistics();
	harness_say("cycles: %llu in %.1f s; resident %ld KiB after %d, %ld KiB at the end; heap %llu, code %llu + "
		    "%llu; "
		    "%llu pending, %llu threads known\n",
		    (unsigned long long)cycles, seconds_now() - start, early_resident, EARLY, resident(),
		    (unsigned long long)late.heap_bytes, (unsigned long long)late.code_bytes,
		    (unsigned long long)late.retired_bytes, (unsigned long long)late.pending,
		    (unsigned long long)late.threads);
	CHECK_EQ(late.heap_bytes, early.heap_bytes);
	CHECK_EQ(late.code_bytes, early.code_bytes);
	CHECK_EQ(late.arenas, early.arenas);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < RUNNERS + SLEEPERS + 1; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(statistics().pending, 0);
	CHECK_EQ(destroyed, made - 1); /* the neighbour is there */
	CHECK_EQ(misused, 0);
}

static unsigned int parked;

static void park(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&parked, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		struct timespec nap = { 1, 0 };

		nanosleep(&nap, NULL);
	}
}

static void *parker(void *argument)
{
	t_cmov(1, 2);
	return argument;
}

static int ascending(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void time_commits(void)
{
	static double taken[201];
	pthread_t threads[PARKED];
	patch_t victim, patch;

	stop = 0;
	REQUIRE_OK(make_probe((uintptr_t)t_cmov, park, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &victim));
	REQUIRE_OK(patch_commit());
	for (size_t i = 0; i < PARKED; i++)
		REQUIRE(pthread_create(&threads[i], NULL, parker, NULL) == 0);
	while (__atomic_load_n(&parked, __ATOMIC_SEQ_CST) < PARKED)
		sched_yield();
	for (int i = 0; i < 201; i++) {
		double start = seconds_now();

		/* The first time it is the one that they are parked in; it stays pending from then on. */
		if (i == 0) {
			CHECK_OK(patch_disable(victim));
		} else {
			CHECK_OK(patch_disable(patch));
		}
		CHECK_OK(patch_commit());
		taken[i] = seconds_now() - start;
		if (i > 0)
			CHECK_OK(patch_unmake(patch));
		REQUIRE_OK(
			make_probe((uintptr_t)t_five_bytes, one, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
	}
	qsort(taken + 1, 200, sizeof(taken[0]), ascending);
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	harness_say("cycles: with %d threads parked in the probe, disable and commit took %.0f us; with that pending, "
		    "another "
		    "one %.0f us (median; least %.0f, most %.0f)\n",
		    PARKED, taken[0] * 1e6, taken[101] * 1e6, taken[1] * 1e6, taken[200] * 1e6);
	__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < PARKED; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(patch_synchronize(-1));
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? (unsigned int)strtoul(argv[1], NULL, 0) :
					  harness_seconds("LIBPATCH_STRESS_SECONDS", 5);
	uint64_t cycles = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;

	if (cycles != 0 && cycles < 2 * EARLY)
		cycles = 2 * EARLY;

	harness_start_seconds(seconds + 120);
	REQUIRE_OK(patch_init(NULL, 0));
	run_cycles(seconds, cycles);
	time_commits();
	CHECK_OK(patch_fini());
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, made);
	return harness_end();
}
