/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Core synchronisation: after core_sync() returns 0, no core executes this process's text as it was before the call
 * (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE; kernel/sched/membarrier.c).
 */
#ifndef LIBPATCH_SYS_MEMBARRIER_H
#define LIBPATCH_SYS_MEMBARRIER_H

#include "base/compiler.h"

/*
 * Register the process, which is once. 0 or -errno: -ENOSYS and -EINVAL from kernels without it, -EPERM under some
 * seccomp filters. In a process with other threads the kernel waits for a grace period of RCU, some ticks
 * (kernel/sched/membarrier.c, sync_runqueues_membarrier_state()).
 */
int core_sync_register(void);
bool core_sync_is_registered(void);
/* Would the kernel register it? Waits for nothing. 0 or -errno, as above. */
int core_sync_query(void);

/* 0 or -errno. Costs 0.6 us alone, about 10 us with another core busy; the first one registers the process. */
int core_sync(void);

/*
 * The other half of the ordering of hooks, which have no barrier of their own: the caller sees whatever any thread of
 * the process did, in program order, before the call; and any thread sees, in whatever it does after the call, what the
 * caller did before it. core_sync() is a memory fence, too. Returns 0 or -errno. Called with the library lock held.
 */
int memory_fence(void);
/* Fences that were made, core syncs included. */
uint64_t memory_fence_count(void);

/* Calls that succeeded. */
uint64_t core_sync_count(void);

#endif
