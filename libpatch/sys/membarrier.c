/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Membarrier: the system call, and the one core that older kernels leave out.
 */
#include "sys/membarrier.h"

#include "base/inject.h"
#include "base/parse.h"
#include "base/syscall.h"

#include <cpuid.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <sys/utsname.h>

static _Atomic uint64_t count; /* of core_sync() */
static uint64_t fences;         /* of memory_fence() */
static bool skips_caller = true;
static atomic_bool registered;

/*
 * Does the kernel membarrier_serialise every core but the caller's own? Kernels before 5.10 do, and early versions of
 * 5.10; the caller would then go on to execute bytes that its core has prefetched. A kernel whose version cannot be
 * read is taken for one of them, because to membarrier_serialise once more is only slow.
 */
static bool membarrier_skips_caller(void)
{
	struct utsname name;
	uint64_t major, minor;
	const char *at;

	if (raw_syscall(SYS_uname, &name) < 0)
		return true;
	at = parse_decimal(name.release, &major);
	if (*at != '.')
		return true;
	parse_decimal(at + 1, &minor);
	return major < 5 || (major == 5 && minor < 11);
}

/* cpuid serialises on every x86-64. Not iret: with shadow stacks on it would need a frame there, too. */
static void membarrier_serialise(void)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0, eax, ebx, ecx, edx);
	__asm__ volatile("" : : "r"(eax), "r"(ebx), "r"(ecx), "r"(edx) : "memory");
}

int core_sync_register(void)
{
	long result = 0;

	if (!core_sync_is_registered()) {
		result = raw_syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
		skips_caller = membarrier_skips_caller();
	}
	if (result < 0)
		return (int)result;
	atomic_store(&registered, true);
	return 0;
}

bool core_sync_is_registered(void)
{
	return atomic_load(&registered);
}

int core_sync_query(void)
{
	long commands = raw_syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	if (commands < 0)
		return (int)commands;
	return commands & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE ? 0 : -EINVAL;
}

static long membarrier_make(void)
{
	int error = core_sync_register();

	return error != 0 ? error : raw_syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

int core_sync(void)
{
	long result;
	int injected = INJECT(INJECT_SYNC);

	if (injected)
		return -injected;
	result = membarrier_make();
	if (result < 0)
		return (int)result;
	if (skips_caller)
		membarrier_serialise();
	atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
	return 0;
}

int memory_fence(void)
{
	long result = membarrier_make();

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
