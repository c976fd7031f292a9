/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls without libc: the host may have interposed libc's wrappers, and the library may have patched them (I9).
 */
#ifndef LIBPATCH_BASE_SYSCALL_H
#define LIBPATCH_BASE_SYSCALL_H

#include "base/compiler.h"
#include "base/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

/* Linux 5.11: some libcs are older. */
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/*
 * The instruction of a system call that the library makes for itself. The section lists the addresses of all of them,
 * each as a distance from its own entry, because the library may be linked statically into the program that it patches:
 * interpose/syscall_sites.c leaves these instructions alone.
 */
#define OWN_SYSCALL \
	"syscall\n" \
	"771:\n" \
	"	.pushsection libpatch_syscalls, \"a\"\n" \
	"	.balign 4\n" \
	"	.long 771b - 2 - .\n" \
	"	.popsection\n"

/*
 * Returns what the kernel returns: -errno on failure. Tests make it fail without a call (base/inject.h). Inline also
 * without optimisation, for who makes a child on the same stack (sys/tracer.c): that must not return from a frame that
 * its parent is still in.
 */
static inline __attribute__((always_inline)) long raw_syscall_inline(long nr, long a, long b, long c, long d, long e,
								     long f)
{
	/* First: a call would change the registers. */
	long result = -libpatch_inject_system_call(nr);
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	if (result != 0)
		return result;
	__asm__ volatile(OWN_SYSCALL
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	return raw_syscall_inline(nr, a, b, c, d, e, f);
}

#define RAW_SYSCALL_PICK(_1, _2, _3, _4, _5, _6, _7, name, ...) name
#define raw_syscall_0(nr) raw_syscall6(nr, 0, 0, 0, 0, 0, 0)
#define raw_syscall_1(nr, a) raw_syscall6(nr, (long)(a), 0, 0, 0, 0, 0)
#define raw_syscall_2(nr, a, b) raw_syscall6(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define raw_syscall_3(nr, a, b, c) raw_syscall6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define raw_syscall_4(nr, a, b, c, d) raw_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define raw_syscall_5(nr, a, b, c, d, e) raw_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define raw_syscall_6(nr, a, b, c, d, e, f)                                                                            \
	raw_syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* raw_syscall(SYS_x, up to six arguments) */
#define raw_syscall(...)                                                                                               \
	RAW_SYSCALL_PICK(__VA_ARGS__, raw_syscall_6, raw_syscall_5, raw_syscall_4, raw_syscall_3, raw_syscall_2,       \
			 raw_syscall_1, raw_syscall_0)                                                                 \
	(__VA_ARGS__)

/* Linux 4.17, which older libcs do not know; older kernels take the address for a hint. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Map fresh memory at the address, where nothing is. Returns 0 or -errno; -EEXIST: something is there. */
static inline long raw_map_at(uintptr_t address, size_t size, int protection, int flags)
{
	long result = raw_syscall(SYS_mmap, address, size, protection,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0);

	if (result < 0 || (uintptr_t)result == address)
		return result < 0 ? result : 0;
	raw_syscall(SYS_munmap, result, size);
	return -EEXIST;
}

/*
 * Can the eight bytes there be read? By the cheapest call that reads and does nothing: the kernel reads the mask before
 * it looks at what is to be done with it (rt_sigprocmask(2)). True where it refuses to say. Async-signal-safe.
 */
static inline bool raw_is_readable(uintptr_t address)
{
	/* Without a mask it reads none. */
	return address != 0 && raw_syscall(SYS_rt_sigprocmask, -1, address, NULL, sizeof(uint64_t)) != -EFAULT;
}

/* What a clock says, in nanoseconds; -1: it cannot be read. */
static inline int64_t raw_clock(clockid_t clock)
{
	struct timespec now = { 0 };

	if (raw_syscall(SYS_clock_gettime, clock, &now) != 0)
		return -1;
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Since `start`, of CLOCK_MONOTONIC: where there is no clock, or none any more, so much as has been `napped`. */
static inline int64_t raw_waited(int64_t start, int64_t napped)
{
	const int64_t now = start >= 0 ? raw_clock(CLOCK_MONOTONIC) : -1;

	return now >= 0 ? now - start : napped;
}

/*
 * Returns a descriptor or -errno. A seccomp filter may know only one of the two calls; most know the first, because
 * libc makes it.
 */
static inline long raw_open(const char *path, int flags)
{
	long fd = raw_syscall(SYS_openat, AT_FDCWD, path, flags, 0);

	return fd >= 0 ? fd : raw_syscall(SYS_open, path, flags, 0);
}

#endif
