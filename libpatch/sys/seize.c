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

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

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

/* As long as threads that can stop may be kept from a processor: none of them has stopped for that long. */
#define LONGEST_STOP_NS INT64_C(1000000000)
/* Between looks at what no event tells of. */
#define NAP_NS 1000000
/*
 * Threads that are interrupted at once: where many want a processor, each of them would else have to be waited for as
 * long as all others run. Not more: the first to stop may stand until the last one was interrupted.
 */
#define AT_ONCE 32

/* Those that were interrupted, and are not done with: their places in the list, and their numbers in system calls. */
struct seize_open {
	size_t places[AT_ONCE];
	pid_t numbers[AT_ONCE];
	size_t count;
};

/* Which is let alone if it cannot be. */
static void seize_interrupt(const struct seize *seize, size_t place, struct seize_open *open)
{
	/* As /proc has it, the number may be that of another process here, which must not be touched. */
	const pid_t number = tasks_number_in_calls(seize->threads[place]);

	if (number == 0 || seize_trace(PTRACE_SEIZE, number, 0, NULL) != 0 ||
	    seize_trace(PTRACE_INTERRUPT, number, 0, NULL) != 0)
		return;
	open->places[open->count] = place;
	open->numbers[open->count++] = number;
}

static void seize_close(struct seize_open *open, size_t i)
{
	--open->count;
	open->places[i] = open->places[open->count];
	open->numbers[i] = open->numbers[open->count];
}

/* A thread has stopped, or ended. It may be one that was not waited for any more, which goes on. */
static void seize_finish(const struct seize *seize, struct seize_open *open, pid_t number, int status)
{
	size_t i = 0;
	long signo;

	while (i < open->count && open->numbers[i] != number)
		++i;
	if (i < open->count && WIFSTOPPED(status))
		seize->done[open->places[i]] = seize->act(seize, number);
	if (i < open->count)
		seize_close(open, i);
	/* It may have stopped for a signal of its own, which it gets. */
	signo = status >> 16 == EVENT_STOP ? 0 : WSTOPSIG(status);
	if (WIFSTOPPED(status))
		seize_trace(PTRACE_DETACH, number, 0, (const void *)signo);
}

/*
 * One that waits for a child of vfork() does not stop before that has ended, or runs another program, which may be
 * never. From PTRACE_INTERRUPT on none begins to wait so (kernel/fork.c: no process is copied with a signal pending).
 */
static void seize_close_hopeless(const struct seize *seize, struct seize_open *open)
{
	for (size_t i = open->count; i-- > 0;)
		if (tasks_waits_for_child(seize->threads[open->places[i]]))
			seize_close(open, i);
}

/* Returns how many have stopped, or ended, since it was called last; -ECHILD: there is none that could. */
static long seize_finish_stopped(const struct seize *seize, struct seize_open *open)
{
	long found, finished = 0;
	int status = 0;

	for (; (found = raw_syscall(SYS_wait4, -1, &status, __WALL | WNOHANG, NULL)) > 0; ++finished)
		seize_finish(seize, open, (pid_t)found, status);
	return found < 0 ? found : finished;
}

/*
 * Until a thread stops, which raises SIGCHLD, or for some time. It sleeps: threads that are to stop may have the
 * processor only when this one has not, as where it has a real-time priority.
 */
static void seize_nap(void)
{
	const uint64_t awaited = UINT64_C(1) << (SIGCHLD - 1);
	const struct timespec nap = { 0, NAP_NS };
	const long signo = raw_syscall(SYS_rt_sigtimedwait, &awaited, NULL, &nap, sizeof(awaited));

	/* Where a filter refuses it. */
	if (signo < 0 && signo != -EAGAIN)
		raw_syscall(SYS_nanosleep, &nap, NULL);
}

/*
 * Nor does a thread stop that waits in the kernel for memory that the program is to provide (userfaultfd(2)), maybe by
 * the very thread that waits for us, or for a file system that does not answer: the kernel lets go of it when the
 * tracer ends.
 */
__attribute__((noinline, noreturn)) static void seize_child(const struct seize *seize)
{
	/* Which is the child's own: ignored, SIGCHLD would not be raised. */
	const uint64_t default_action[4] = { 0 };
	struct seize_open open = { .count = 0 };
	int64_t begin = raw_clock(CLOCK_MONOTONIC), napped = 0;
	size_t next = 0;
	long finished;

	raw_syscall(SYS_rt_sigaction, SIGCHLD, default_action, NULL, sizeof(uint64_t));
	while (raw_waited(begin, napped) < LONGEST_STOP_NS) {
		while (next < seize->count && open.count < AT_ONCE)
			seize_interrupt(seize, next++, &open);
		finished = seize_finish_stopped(seize, &open);
		if (finished < 0)
			open.count = 0;
		if (open.count == 0 && next == seize->count)
			break;
		if (finished > 0) {
			begin = raw_clock(CLOCK_MONOTONIC);
			napped = 0;
		}
		if (finished == 0) {
			seize_nap();
			napped += NAP_NS;
			seize_close_hopeless(seize, &open);
		}
	}
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
