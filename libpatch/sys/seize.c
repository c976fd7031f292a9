/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child with the same memory and the same stack, as vfork() makes one: the calling thread sleeps until the child has
 * ended. The child makes system calls of its own, and calls nothing of libc's.
 */
#include "sys/seize.h"

#include "arch/thread_pointer.h"
#include "base/syscall.h"
#include "sys/tasks.h"
#include "sys/tls.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

/* Of the kernel, which libc's header may not have. */
#define GETSIGMASK 0x420a
#define SETSIGMASK 0x420b
#define EVENT_STOP 128

struct seize {
	const pid_t *threads;
	bool *done;
	size_t count;
	uint64_t signals;
	intptr_t word;
};

static long seize_trace(long request, pid_t tid, long address, const void *data)
{
	return raw_syscall(SYS_ptrace, request, tid, address, data);
}

/* The thread is stopped, and its memory is ours, too. */
static bool seize_change(const struct seize *seize, pid_t tid)
{
	/* Neither memcheck nor gcc -O0 knows that the kernel writes them. */
	struct user_regs_struct registers = { 0 };
	uint64_t mask = 0, now;

	if (seize_trace(PTRACE_GETREGS, tid, 0, &registers) != 0 ||
	    seize_trace(GETSIGMASK, tid, sizeof(mask), &mask) != 0)
		return false;
	now = mask & ~seize->signals;
	if (now != mask) {
		/*
		 * Of other storage nothing is known, nor whether it is there. A thread that clone() has made without
		 * any has that of who made it, which, if it is the caller, must not believe what the thread blocks.
		 */
		if (!tls_is_libcs(registers.fs_base) || registers.fs_base == arch_thread_pointer())
			return false;
		*(uint64_t *)(registers.fs_base + (uintptr_t)seize->word) |= mask & seize->signals;
	}
	/* Also when it is the same: while the thread waited it had another, which is seen until it goes on. */
	return seize_trace(SETSIGMASK, tid, sizeof(now), &now) == 0;
}

/* As long as a thread that can stop may be kept from a processor. */
#define LONGEST_STOP_NS INT64_C(1000000000)
/* Where the clock cannot be read. */
#define LONGEST_STOP_LOOKS 100000

/*
 * Until the thread stops, which /proc and system calls may know by two numbers. One that waits for a child of vfork()
 * does not stop before that has ended, or runs another program, which may be never. From PTRACE_INTERRUPT on none
 * begins to wait so (kernel/fork.c: no process is copied with a signal pending). Nor does one that waits in the kernel
 * for memory that the program is to provide (userfaultfd(2)), maybe by the very thread that waits for us, or for a file
 * system that does not answer. The kernel lets go of it when the tracer ends.
 */
static bool seize_wait(pid_t tid, pid_t number, int *status)
{
	const int64_t begin = raw_clock(CLOCK_MONOTONIC);
	long found;

	for (long looks = 0; (found = raw_syscall(SYS_wait4, number, status, __WALL | WNOHANG, NULL)) == 0; ++looks) {
		if (tasks_waits_for_child(tid) || raw_clock(CLOCK_MONOTONIC) - begin > LONGEST_STOP_NS ||
		    (begin < 0 && looks == LONGEST_STOP_LOOKS))
			return false;
		raw_syscall(SYS_sched_yield);
	}
	return found == number && WIFSTOPPED(*status);
}

static bool seize_thread(const struct seize *seize, pid_t tid)
{
	int status = 0;
	/* As /proc has it, the number may be that of another process here, which must not be touched. */
	const pid_t number = tasks_number_in_calls(tid);
	bool done;
	long signo;

	if (number == 0 || seize_trace(PTRACE_SEIZE, number, 0, NULL) != 0)
		return false;
	if (seize_trace(PTRACE_INTERRUPT, number, 0, NULL) != 0 || !seize_wait(tid, number, &status))
		return false;
	done = seize_change(seize, number);
	/* It may have stopped for a signal of its own, which it gets. */
	signo = status >> 16 == EVENT_STOP ? 0 : WSTOPSIG(status);
	seize_trace(PTRACE_DETACH, number, 0, (const void *)signo);
	return done;
}

__attribute__((noinline, noreturn)) static void seize_child(struct seize *seize)
{
	for (size_t i = 0; i < seize->count; ++i)
		seize->done[i] = seize_thread(seize, seize->threads[i]);
	for (;;)
		raw_syscall(SYS_exit, 0);
}

void seize_and_unblock(const pid_t *threads, bool *done, size_t count, uint64_t signals, intptr_t word)
{
	struct seize seize = { .threads = threads, .done = done, .count = count, .signals = signals, .word = word };
	long child;

	for (size_t i = 0; i < count; ++i)
		done[i] = false;
	/* Yama: a child may trace its parent only when that says so. */
	raw_syscall(SYS_prctl, PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	/* No signal at its end: the program's wait() does not see it. */
	child = raw_syscall(SYS_clone, CLONE_VM | CLONE_VFORK, 0, NULL, NULL, 0);
	if (child == 0)
		seize_child(&seize);
	if (child > 0)
		raw_syscall(SYS_wait4, child, NULL, __WALL, NULL);
	raw_syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
}
