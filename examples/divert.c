/* SPDX-License-Identifier: MIT */
/*
 * Replace a function, and call the original from the replacement: every malloc() of the program counts its bytes, in
 * whatever library the call is. The replacement is an ordinary function with malloc()'s type.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <libpatch/patch.h>

static atomic_ulong calls, bytes;
static void *original; /* what patch_make() says */

static void *counting_malloc(size_t size)
{
	void *(*real_malloc)(size_t) = (void *(*)(size_t))(uintptr_t)original;

	calls++;
	bytes += size;
	return real_malloc(size);
}

static void *allocate(void *unused)
{
	for (size_t size = 1; size <= 1000; size++) {
		char *volatile memory = malloc(size);

		if (memory != NULL)
			memory[size - 1] = 1;
		free(memory);
	}
	return unused;
}

/* Two threads call malloc() 1,000 times each, for 500,500 bytes together. Returns whether that was counted. */
static int run(int counted)
{
	pthread_t threads[2];
	unsigned long calls_before = calls, bytes_before = bytes;

	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, allocate, NULL) != 0)
			return 0;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("%lu calls, %lu bytes\n", calls - calls_before, bytes - bytes_before);
	/* What the C library allocates for threads and for printf() is counted as well. */
	return counted ? calls - calls_before >= 2000 && bytes - bytes_before >= 2 * 500500 : calls == calls_before;
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_SYMBOL};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_DIVERT};
	patch_t patch;
	int good;

	where.symbol.name = "libc.so.6:malloc";
	what.divert.target = (void *)(uintptr_t)counting_malloc;
	what.divert.original = &original;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL)) {
		struct patch_error error;

		patch_last_error(&error);
		printf("%s: %s\n", error.irritant, error.message);
		return 1;
	}
	good = run(0) && !patch_enable(patch) && !patch_commit() && run(1) && !patch_disable(patch) &&
	       !patch_commit() && run(0);
	return good && !patch_fini() ? 0 : 1;
}
