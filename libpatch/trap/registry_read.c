/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The read side of the registry: readers count themselves in and out, striped, in the manner of the kernel's sleepable
 * RCU (kernel/rcu/srcutree.c), and a writer looks whether those of an epoch have left. No thread waits for another one.
 */
#include "trap/registry.h"

#include "trap/registry_parts.h"

#define STRIPES 64
/* Stacks of two threads are this far apart (PTHREAD_STACK_MIN). */
#define STACK_LEAST 16384

struct stripe {
	_Atomic uint64_t locks[2];
	_Atomic uint64_t unlocks[2];
} __attribute__((aligned(64)));

static struct stripe stripes[STRIPES];
/* Grace periods begun; its low bit tells new readers which counters to use. */
static _Atomic uint64_t epoch;

registry_token registry_read_lock(void)
{
	unsigned int stripe;
	unsigned int index = atomic_load_explicit(&epoch, memory_order_relaxed) & 1;

	/* Any number that differs between threads that trap at once, which may have no storage. */
	stripe = (unsigned int)hash_index((uintptr_t)__builtin_frame_address(0) / STACK_LEAST, STRIPES);
	/* seq_cst: the count is visible before anything is looked up. Pairs with the fence in registry_drained(). */
	atomic_fetch_add(&stripes[stripe].locks[index], 1);
	return stripe << 1 | index;
}

void registry_read_unlock(registry_token token)
{
	/* seq_cst: nothing looked up is used after this. Pairs with the fence in registry_drained(). */
	atomic_fetch_add(&stripes[token >> 1].unlocks[token & 1], 1);
}

/* Has every reader that counted itself in `index` left? Unlocks are summed first, so that a lock is never missed. */
static bool registry_drained(unsigned int index)
{
	uint64_t unlocks = 0;
	uint64_t locks = 0;

	for (size_t i = 0; i < STRIPES; ++i)
		unlocks += atomic_load(&stripes[i].unlocks[index]);
	atomic_thread_fence(memory_order_seq_cst);
	for (size_t i = 0; i < STRIPES; ++i)
		locks += atomic_load(&stripes[i].locks[index]);
	return unlocks == locks;
}

uint64_t registry_epoch(void)
{
	return atomic_load_explicit(&epoch, memory_order_relaxed);
}

uint64_t registry_advance_epoch(void)
{
	uint64_t now = registry_epoch();

	for (int i = 0; i < 2 && registry_drained((now & 1) ^ 1); ++i)
		atomic_store(&epoch, ++now);
	return now;
}
