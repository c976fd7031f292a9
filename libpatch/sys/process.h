/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which process this is, and its threads. All functions are async-signal-safe and take no lock.
 */
#ifndef LIBPATCH_SYS_PROCESS_H
#define LIBPATCH_SYS_PROCESS_H

#include "base/compiler.h"

#include <stdatomic.h>
#include <sys/types.h>

/* Once, before the others. */
void process_begin(void);

/* In the child of a fork: what the others compare with. */
void process_forked(void);
/* Is this the child of a fork that process_forked() has not been called in? */
bool process_is_new(void);

/* Words that are 0 in the child of a fork, however that was made, if the kernel has such memory (process_wipes()). */
struct process_own {
	_Atomic pid_t owner;          /* the process whose memory this is */
	_Atomic int lock;             /* the library lock */
	_Atomic int registering;      /* the lock of lock_release() */
	_Atomic int initialising;     /* a thread is in patch_init() */
	_Atomic int without_handlers; /* handlers.c */
} __attribute__((aligned(PAGE_SIZE)));
extern struct process_own libpatch_process_own;
bool process_wipes(void);

/*
 * Is this a child that runs in its parent's memory until it executes a program: vfork(), posix_spawn(), clone(CLONE_VM)?
 * What it does to its signals is its own, but what it writes to memory is not.
 */
bool process_is_borrowed(void);

/* Has the process one thread? False, too, when that cannot be found out. */
bool process_has_one_thread(void);

/* How many it has; 0: it cannot be found out. */
size_t process_thread_count(void);

/*
 * Visit every thread of the process with the signals that it blocks, as /proc/self/task/TID/status has them, until `visit`
 * returns false. Threads that begin or end meanwhile may be missed. Workers of io_uring, which never run the program's code,
 * are left out. False: /proc cannot be read, or not all of it.
 */
typedef bool process_visit_fn(pid_t tid, uint64_t blocked, void *data);
bool process_threads(process_visit_fn *visit, void *data);
/* The signals that one thread blocks; none when there is no such thread. False: they cannot be known. */
bool process_blocked(pid_t tid, uint64_t *blocked);

/*
 * Time for which a thread has executed the program's code: it grows only when the kernel's tick finds it at that, or where the
 * kernel measures it exactly (kernel/sched/cputime.c, account_user_time()). False: not known.
 */
bool process_user_time(pid_t tid, uint64_t *ns);

/*
 * What a thread waits in: a system call, by its number, or the kernel otherwise, negative. PROCESS_RUNS: in nothing, or it cannot
 * be told. PROCESS_GONE: there is no such thread. (/proc/PID/syscall, fs/proc/base.c.)
 */
#define PROCESS_RUNS (1L << 32)
#define PROCESS_GONE (2L << 32)
long process_waits_in(pid_t tid);

#endif
