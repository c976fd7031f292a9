/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every layer uses: small macros, raw system calls, per-thread state.
 *
 * Raw system calls because libc's wrappers may be interposed by the host or patched by us (I9).
 */
#ifndef LIBPATCH_BASE_BASE_H
#define LIBPATCH_BASE_BASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include <libpatch/patch.h>

#define PAGE_SIZE 4096UL
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + (a)-1, a)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* One in each byte of a word. */
#define BYTES_ONE 0x0101010101010101UL
/* Has the word a byte that is 0? Exact (Hacker's Delight, 6-1). */
static inline bool bytes_have_zero(uint64_t word)
{
	return ((word - BYTES_ONE) & ~word & BYTES_ONE << 7) != 0;
}

/* Of `count` slots, a power of two and at least 2, the one for a value (Knuth, The Art of Computer Programming 3, 6.4). */
static inline size_t hash_index(uint64_t value, size_t count)
{
	return value * 0x9E3779B97F4A7C15ULL >> (64 - __builtin_ctzl(count));
}

/* It will be read soon: of a structure all that passes over many of them look at. Any address will do. */
#define FETCH(object) fetch(object, sizeof(*(object)))

static inline void fetch(const void *object, size_t size)
{
	for (size_t at = 0; at < size; at += 64)
		__builtin_prefetch((const uint8_t *)object + at);
}

/* Thread-local without __tls_get_addr, which locks and allocates (I9). */
#define TLS_INITIAL_EXEC _Thread_local __attribute__((tls_model("initial-exec")))

#define EXPORT __attribute__((visibility("default")))

/* Longest instruction (Intel SDM vol. 2, 2.3.11). */
#define INSN_MAX 15

/*
 * What a thread tells about the hook it is in; threads.h says who reads it and why that is enough.
 *
 * guard   greatest stack pointer below which a hook must not run in this thread: the base of the running hook's frame; 0: no
 *         hook runs; GUARD_INSIDE: the thread is inside the library; GUARD_UNKNOWN: its first hook has not run yet. Generated
 *         code reads and writes it through %fs.
 * saved   the guard before GUARD_INSIDE
 */
struct hook_guard {
	uintptr_t guard;
	uintptr_t saved;
};
extern TLS_INITIAL_EXEC struct hook_guard libpatch_hook_guard;

/* Above every stack pointer. */
#define GUARD_INSIDE UINTPTR_MAX
#define GUARD_UNKNOWN (UINTPTR_MAX - 1)

/*
 * The library's own system calls, which are for the kernel and nobody else (syscalls.c), by their distance from here: it may be
 * linked statically into what it patches.
 */
#define OWN_SYSCALL                                                                                                    \
	"syscall\n"                                                                                                    \
	"771:\n"                                                                                                       \
	"	.pushsection libpatch_syscalls, \"a\"\n"                                                                    \
	"	.balign 4\n"                                                                                                 \
	"	.long 771b - 2 - .\n"                                                                                         \
	"	.popsection\n"

#ifdef LIBPATCH_INJECT
/* 0, or the errno that a test wants instead of the call (inject.h). */
int libpatch_inject_system_call(long nr);
#else
#define libpatch_inject_system_call(nr) 0
#endif

/* Result: the kernel's, -errno on failure. */
static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
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

/* A filter may know but one of the two calls: mostly the first, which is libc's. A descriptor or -errno. */
static inline long raw_open(const char *path, int flags)
{
	long fd = raw_syscall(SYS_openat, AT_FDCWD, path, flags, 0);

	return fd >= 0 ? fd : raw_syscall(SYS_open, path, flags, 0);
}

#endif
