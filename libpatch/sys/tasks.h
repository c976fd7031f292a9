/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The threads of this process, as /proc/self/task has them, which also gives them their numbers: where /proc is that of
 * an outer namespace of processes, these are others than those that system calls take and return. All functions are
 * async-signal-safe and take no lock.
 */
#ifndef LIBPATCH_SYS_TASKS_H
#define LIBPATCH_SYS_TASKS_H

#include "base/compiler.h"

#include <sys/types.h>

/* Has the process one thread? False, too, when that cannot be found out. */
bool tasks_is_single(void);

/* How many threads the process has; 0: it cannot be found out. */
size_t tasks_count(void);

/* The calling thread. Called before the other functions that take a number, wherever a look at threads begins. */
pid_t tasks_self(void);
/* The number by which system calls know a thread; 0: there is none. */
pid_t tasks_number_in_calls(pid_t tid);

/* Has it a filter of system calls (seccomp(2)), or can that not be told? */
bool tasks_is_filtered(pid_t tid);

/* How many descriptors the process has a table for, used or not; 0: it cannot be found out. */
size_t tasks_descriptors(void);

/*
 * Visit every thread of the process until `visit` returns false. Threads that begin or end meanwhile may be missed.
 * False: /proc cannot be read.
 */
typedef bool tasks_visit_fn(pid_t tid, void *data);
bool tasks_visit(tasks_visit_fn *visit, void *data);
/* The same of the process that has the thread, and how many threads it has. */
bool tasks_visit_of(pid_t tid, tasks_visit_fn *visit, void *data);
size_t tasks_count_of(pid_t tid);
/* Asked of a thread that is visited: may it run the program's code, now or later? */
bool tasks_may_run(pid_t tid);
/*
 * The signals that one thread blocks, if any of `signals`, which are below 32, is among them; else 0, as when there is
 * no such thread. Workers of io_uring, KVM and vhost, which never run the program's code, block none. False: they
 * cannot be known.
 */
bool tasks_blocked(pid_t tid, uint64_t signals, uint64_t *blocked);
/* Is it such a worker? */
bool tasks_is_worker(pid_t tid);

/* The thread's number and its name: "123 (worker)". */
#define TASKS_TEXT 48
void tasks_describe(pid_t tid, char text[TASKS_TEXT]);

/*
 * Time for which a thread has run: it grows only when the kernel's tick finds it running, or where the kernel measures
 * it exactly (kernel/sched/cputime.c). False: not known.
 */
bool tasks_time(pid_t tid, uint64_t *ns);

/* How often a thread that could go on has had a processor, and lost it to another one. False: not known. */
bool tasks_switches(pid_t tid, uint64_t *count);

/*
 * The system call that a thread waits in: its number, its arguments, the stack pointer, and the address behind its
 * instruction. `call` is negative when the thread waits in the kernel outside of one, without arguments and at `pc`.
 * TASKS_RUNS: it does not wait, or the kernel does not tell. TASKS_GONE: there is no such thread. (/proc/PID/syscall,
 * fs/proc/base.c.)
 */
#define TASKS_RUNS (1L << 32)
#define TASKS_GONE (2L << 32)
struct tasks_wait {
	long call;
	union {
		struct {
			uint64_t arguments[6];
			uint64_t stack;
			uint64_t pc;
		};
		uint64_t words[8];
	};
};
/* Returns `call`. */
long tasks_waits_in(pid_t tid, struct tasks_wait *wait);
/* Until a child that has borrowed the thread's memory lets go of it, as vfork() does? */
bool tasks_is_wait_for_child(const struct tasks_wait *wait);
/* Does the thread wait so? May be asked by such a child, too. */
bool tasks_waits_for_child(pid_t tid);

#endif
