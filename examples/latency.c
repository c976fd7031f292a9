/* SPDX-License-Identifier: MIT */
/*
 * The latency of a function, recursion and threads included: PROBE_RETURN calls back when it is entered and when it is
 * left. What began is kept on a stack of the thread's, with the stack pointer: a call that was left by longjmp() or an
 * exception has no end, and is below the next one that ends.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <libpatch/patch.h>

#define DEEPEST 256

static __thread struct {
	patch_reg stack_pointer;
	uint64_t time;
} calls[DEEPEST];
static __thread unsigned int depth;
static uint64_t histogram[64]; /* [n]: calls that took from 2^n to 2^(n+1) nanoseconds */

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void measure(struct patch_exec_context *context, uint8_t post)
{
	uint64_t time = now();

	if (!post) {
		if (depth < DEEPEST) {
			calls[depth].stack_pointer = context->stack_pointer;
			calls[depth++].time = time;
		}
		return;
	}
	while (depth > 0 && calls[depth - 1].stack_pointer < context->stack_pointer)
		--depth;
	if (depth > 0 && calls[depth - 1].stack_pointer == context->stack_pointer) {
		time -= calls[--depth].time;
		__atomic_fetch_add(&histogram[63 - __builtin_clzll(time | 1)], 1, __ATOMIC_RELAXED);
	}
}

__attribute__((noinline)) long fibonacci(long n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void *run(void *argument)
{
	long (*volatile call)(long) = fibonacci;

	return call((long)argument) == 144 ? NULL : argument;
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_SYMBOL, .symbol.name = "main:fibonacci"};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE_RETURN, .probe.procedure = measure};
	unsigned long long all = 0;
	pthread_t thread;
	patch_t patch;

	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit() || pthread_create(&thread, NULL, run, (void *)12))
		return 1;
	if (run((void *)12) != NULL || pthread_join(thread, NULL))
		return 1;
	for (int n = 0; n < 64; all += histogram[n++])
		if (histogram[n] != 0)
			printf("%12llu ns and more: %llu\n", 1ULL << n, (unsigned long long)histogram[n]);
	printf("%llu calls\n", all);
	return all == 0;
}
