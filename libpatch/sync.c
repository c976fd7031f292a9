/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sync.h"

#include "inject.h"

#include <linux/membarrier.h>

static _Atomic uint64_t count;
static uint64_t fences;

int core_sync_register(void)
{
	long result = raw_syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);

	return result < 0 ? (int)result : 0;
}

int core_sync(void)
{
	long result;
	int injected = INJECT(INJECT_SYNC);

	if (injected)
		return -injected;
	result = raw_syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	if (result < 0)
		return (int)result;
	atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
	return 0;
}

int memory_fence(void)
{
	long result = raw_syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);

	if (result < 0)
		return (int)result;
	++fences;
	return 0;
}

uint64_t memory_fence_count(void)
{
	return core_sync_count() + fences;
}

uint64_t core_sync_count(void)
{
	return atomic_load_explicit(&count, memory_order_relaxed);
}
