/* SPDX-License-Identifier: MIT */
/* Switch a probe on and off while another thread runs through it all the time. Nobody is stopped for that. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <libpatch/patch.h>

static atomic_bool stop;
static atomic_ulong hits, rounds;

__attribute__((noinline)) static unsigned long step(unsigned long n)
{
	__asm__ volatile("" : "+r"(n));
	return n * 3 + 1;
}

static void on_step(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void *run(void *unused)
{
	for (unsigned long n = 1; !stop; rounds++)
		n = step(n);
	return unused;
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)step};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE};
	pthread_t thread;
	patch_t patch;
	int failed;

	what.probe.procedure = on_step;
	failed = patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) ||
		 pthread_create(&thread, NULL, run, NULL);
	for (int times = 0; !failed && times < 1000; times++) {
		unsigned long seen = hits, began = rounds;

		failed = (times % 2 ? patch_disable(patch) : patch_enable(patch)) || patch_commit();
		/* Enabled, it is hit before long; disabled, the thread goes on without it. */
		while (!failed && (times % 2 ? rounds < began + 2 : hits == seen))
			;
	}
	stop = true;
	if (!failed)
		pthread_join(thread, NULL);
	printf("%lu rounds, %lu of them with the probe\n", (unsigned long)rounds, (unsigned long)hits);
	return failed;
}
