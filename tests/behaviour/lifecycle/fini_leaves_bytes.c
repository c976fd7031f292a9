/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_fini() with everything enabled and threads running: the whole text of the executable and of every library is
 * what it was before patch_init(), and the program goes on.
 */
#include "targets.h"

#include <dlfcn.h>
#include <pthread.h>

#define MAPPINGS 64
#define THREADS 3

static struct mapping {
	uintptr_t start, end;
	char path[192];
	uint8_t *copy;
} mappings[MAPPINGS];

static unsigned int mapping_count, stop, wrong;
static uint64_t hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

/* Executable mappings of files, with their bytes. */
static void save_text(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];

	REQUIRE(maps != NULL);
	while (fgets(line, sizeof(line), maps) && mapping_count < MAPPINGS) {
		struct mapping *mapping = &mappings[mapping_count];
		unsigned long start, end;
		char permissions[8];

		mapping->path[0] = '\0';
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %191s", &start, &end, permissions, mapping->path) < 4)
			continue;
		if (permissions[2] != 'x' || mapping->path[0] != '/')
			continue;
		mapping->start = start;
		mapping->end = end;
		mapping->copy = malloc(end - start);
		REQUIRE(mapping->copy != NULL);
		memcpy(mapping->copy, (const void *)start, end - start);
		mapping_count++;
	}
	fclose(maps);
}

static unsigned int compare_text(bool report)
{
	unsigned int changed = 0;

	for (unsigned int m = 0; m < mapping_count; m++) {
		const struct mapping *mapping = &mappings[m];

		for (size_t i = 0; i < mapping->end - mapping->start; i++) {
			uint8_t now = ((const volatile uint8_t *)mapping->start)[i];

			if (now == mapping->copy[i])
				continue;
			if (report)
				FAIL("%s+%#zx is %02x, was %02x", mapping->path, i, now, mapping->copy[i]);
			changed++;
		}
	}
	return changed;
}

static void *run(void *argument)
{
	unsigned int n = 0;

	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		const struct target *target = &targets[n % TARGET_COUNT];
		uint64_t a = n % 19 + 1, b = n;

		n++;
		if (!target_runs_here(target))
			continue;
		if (target->function(a, b) != target->model(a, b) && !(target->flags & TARGET_VOID))
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(void)
{
	static const char *const names[] = { "qsort", "bsearch", "strtol", "strtod", "atoi", "a64l", "l64a", "getenv",
					     "rand", "rand_r", "div", "inet_ntoa", "asctime_r", "gmtime_r", "mktime",
					     "basename", "strsep", "strfry", "hsearch_r", "tsearch", "wcstol",
					     "getopt_long", "glob", "regcomp", "fnmatch", "lfind", "ecvt_r", "swab" };
	pthread_t threads[THREADS];
	unsigned int made = 0, libc_made = 0;
	patch_t patch;

	harness_start();
	save_text();
	REQUIRE(mapping_count >= 2);
	CHECK_EQ(compare_text(true), 0);
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		struct instructions list = target_decode(&targets[t]);

		for (unsigned int n = 0; n < list.count; n++)
			made += make_probe(list.address[n], procedure, NULL,
					   (int)(n + t) % 3 == 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW,
					   PATCH_ENABLED, &patch) == PATCH_OK;
	}
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		void *address = dlsym(RTLD_DEFAULT, names[n]);

		if (address)
			libc_made += make_probe((uintptr_t)address, procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
						PATCH_ENABLED, &patch) == PATCH_OK;
	}
	CHECK(made > 300);
	CHECK(libc_made > 20);
	for (int n = 0; n < THREADS; n++)
		REQUIRE(pthread_create(&threads[n], NULL, run, NULL) == 0);
	CHECK_OK(patch_commit());
	CHECK(compare_text(false) > 300);
	CHECK_EQ(strtol("123", NULL, 10), 123);
	while (__atomic_load_n(&hits, __ATOMIC_RELAXED) < 20000)
		sched_yield();
	CHECK_OK(patch_fini());
	CHECK_EQ(compare_text(true), 0);
	hits = 0;
	{
		struct timespec pause = { 0, 50 * 1000 * 1000 };

		nanosleep(&pause, NULL);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	CHECK_EQ(wrong, 0);
	hits = 0;
	t_push_push(1, 2);
	CHECK_EQ(strtol("123", NULL, 10), 123);
	CHECK_EQ(hits, 0);
	CHECK_EQ(compare_text(true), 0);
	printf("%u probes, %u in libc, %u mappings\n", made, libc_made, mapping_count);
	return harness_end();
}
