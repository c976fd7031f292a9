/* SPDX-License-Identifier: MIT */
/* Count how often a function runs. Nothing is called for a hit: the counter is increased where the function begins. */
#include <stdio.h>

#include <libpatch/patch.h>

__attribute__((noinline)) static unsigned int fibonacci(unsigned int n)
{
	__asm__ volatile("" : "+r"(n)); /* else the compiler knows the result and calls nothing */
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

int main(void)
{
	static uint64_t calls; /* aligned to 8, and there for as long as the program runs */
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)fibonacci};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_COUNT};
	patch_t patch;
	unsigned int result;

	what.count.counter = &calls;
	what.count.kind = PATCH_COUNT_ATOMIC;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit()) {
		struct patch_error error;

		patch_last_error(&error);
		fprintf(stderr, "%s: %s %s\n", error.origin, error.message, error.irritant);
		return 1;
	}
	result = fibonacci(20);
	printf("fibonacci(20) is %u, for which %llu calls were made\n", result, (unsigned long long)calls);
	return result == 6765 && calls > 1 ? 0 : 1;
}
