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

struct seize;
/* What is done with a thread that is stopped, whose memory is ours, too. */
typedef bool seize_act_fn(const struct seize *seize, pid_t number);

struct seize {
	const pid_t *threads;
	bool *done;
	size_t count;
	seize_act_fn *act;
	/* seize_change() */
	uint64_t signals;
	intptr_t word;
	/* seize_is_at() */
	seize_place_fn *is_place;
};

static long seize_trace(long request, pid_t number, long address, const void *data)
{
	return raw_syscall(SYS_ptrace, request, number, address, data);
}

static bool seize_change(const struct seize *seize, pid_t number)
{
	/* Neither memcheck nor gcc -O0 knows that the kernel writes them. */
	struct user_regs_struct registers = { 0 };
	uint64_t mask = 0, now;

	if (seize_trace(PTRACE_GETREGS, number, 0, &registers) != 0 ||
	    seize_trace(GETSIGMASK, number, sizeof(mask), &mask) != 0)
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
	return seize_trace(SETSIGMASK, number, sizeof(now), &now) == 0;
}

static bool seize_is_at(const struct seize *seize, pid_t number)
{
	struct user_regs_struct registers = { 0 };

	return seize_trace(PTRACE_GETREGS, number, 0, &registers) == 0 && seize->is_place(registers.rip);
}

/* As long as threads that can stop may be kept from a processor. */
#define LONGEST_STOP_NS INT64_C(1000000000)
/* Where the clock cannot be read. */
#define LONGEST_STOP_LOOKS 100000
/*
 * Threads that are interrupted at once: where many want a processor, each of them would else have to be waited for as
 * long as all others run. Not more: the first to stop may stand until the last one was interrupted.
 */
#define BATCH 32

/* The number by which system calls know the thread; 0: it is let alone. */
static pid_t seize_interrupt(pid_t tid)
{
	/* As /proc has it, the number may be that of another process here, which must not be touched. */
	const pid_t number = tasks_number_in_calls(tid);

	if (number == 0 || seize_trace(PTRACE_SEIZE, number, 0, NULL) != 0 ||
	    seize_trace(PTRACE_INTERRUPT, number, 0, NULL) != 0)
		return 0;
	return number;
}

/*
 * Has the thread, which /proc and system calls may know by two numbers, stopped, or will not? One that waits for a
 * child of vfork() does not stop before that has ended, or runs another program, which may be never. From
 * PTRACE_INTERRUPT on none begins to wait so (kernel/fork.c: no process is copied with a signal pending).
 */
static bool seize_finish(const struct seize *seize, size_t i, pid_t number)
{
	int status = 0;
	long signo, found = raw_syscall(SYS_wait4, number, &status, __WALL | WNOHANG, NULL);

	if (found == 0)
		return tasks_waits_for_child(seize->threads[i]);
	if (found != number || !WIFSTOPPED(status))
		return true;
	seize->done[i] = seize->act(seize, number);
	/* It may have stopped for a signal of its own, which it gets. */
	signo = status >> 16 == EVENT_STOP ? 0 : WSTOPSIG(status);
	seize_trace(PTRACE_DETACH, number, 0, (const void *)signo);
	return true;
}

/*
 * Nor does a thread stop that waits in the kernel for memory that the program is to provide (userfaultfd(2)), maybe by
 * the very thread that waits for us, or for a file system that does not answer: the kernel lets go of it when the
 * tracer ends.
 */
static void seize_batch(const struct seize *seize, size_t first, size_t count)
{
	const int64_t begin = raw_clock(CLOCK_MONOTONIC);
	pid_t numbers[BATCH];
	size_t left = count;

	for (size_t i = 0; i < count; ++i)
		numbers[i] = seize_interrupt(seize->threads[first + i]);
	for (long looks = 0; left > 0; ++looks) {
		left = 0;
		for (size_t i = 0; i < count; ++i) {
			if (numbers[i] != 0 && seize_finish(seize, first + i, numbers[i]))
				numbers[i] = 0;
			left += numbers[i] != 0;
		}
		if (begin < 0 ? looks == LONGEST_STOP_LOOKS : raw_clock(CLOCK_MONOTONIC) - begin > LONGEST_STOP_NS)
			break;
		if (left > 0)
			raw_syscall(SYS_sched_yield);
	}
}

__attribute__((noinline, noreturn)) static void seize_child(struct seize *seize)
{
	for (size_t i = 0; i < seize->count; i += BATCH)
		seize_batch(seize, i, MIN(seize->count - i, BATCH));
	for (;;)
		raw_syscall(SYS_exit, 0);
}

static void seize_all(struct seize *seize)
{
	long child;

	for (size_t i = 0; i < seize->count; ++i)
		seize->done[i] = false;
	/* Yama: a child may trace its parent only when that says so. */
	raw_syscall(SYS_prctl, PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	/* No signal at its end: the program's wait() does not see it. */
	child = raw_syscall(SYS_clone, CLONE_VM | CLONE_VFORK, 0, NULL, NULL, 0);
	if (child == 0)
		seize_child(seize);
	if (child > 0)
		raw_syscall(SYS_wait4, child, NULL, __WALL, NULL);
	raw_syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
}

void seize_and_unblock(const pid_t *threads, bool *done, size_t count, uint64_t signals, intptr_t word)
{
	seize_all(&(struct seize){ .threads = threads, .done = done, .count = count, .act = seize_change,
				   .signals = signals, .word = word });
}

void seize_and_look(const pid_t *threads, bool *done, size_t count, seize_place_fn *is_place)
{
	seize_all(&(struct seize){ .threads = threads, .done = done, .count = count, .act = seize_is_at,
				   .is_place = is_place });
}
