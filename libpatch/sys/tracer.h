/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child with the same memory and the same stack, as vfork() makes one, that traces threads of its parent: the calling
 * thread sleeps until the child has ended, and nothing that it traced stays so.
 */
#ifndef LIBPATCH_SYS_TRACER_H
#define LIBPATCH_SYS_TRACER_H

#include "base/compiler.h"

#include <sys/types.h>

/*
 * Run it in such a child, which calls nothing of libc's. Needs all signals blocked in the calling thread, for as long
 * as it takes.
 */
void tracer_run(void (*run)(void *), void *data);

/*
 * The rest is for the child. ptrace(2), of a thread by the number that system calls have for it: what that returns, or
 * -errno.
 */
long tracer_call(long request, pid_t number, long address, const void *data);
/* The thread, which is named as in tasks.h, is to stop. Its number for the others; 0: it must not be traced. */
pid_t tracer_interrupt(pid_t tid);
/*
 * Has that one stopped or ended, or any (-1), that has not been told of yet? Its number; 0: none; below 0: none is
 * traced.
 */
struct tracer_event {
	bool stopped;
	bool with_process; /* by job control */
	int signo; /* for a signal of its own, which it is to get, or 0 */
};
long tracer_look(pid_t number, struct tracer_event *event);
/* It goes on, by itself, if it has stopped. */
void tracer_let_go(pid_t number, const struct tracer_event *event);
/*
 * It goes on, until it is interrupted again. False: it has ended, or its process has stopped, without which it does not
 * go on.
 */
bool tracer_go_on(pid_t number, const struct tracer_event *event);
bool tracer_interrupt_again(pid_t number);
/*
 * Will the thread, which has not been told of, never stop? One that waits for a child of vfork() does not before that
 * has ended, or runs another program, which may be never. From tracer_interrupt() on none begins to wait so
 * (kernel/fork.c: no process is copied with a signal pending). False, too, where it is to be told of now: a new thread
 * that has stopped in front of its first instruction seems to be in the call that has made it, whose arguments are not
 * there any more.
 */
bool tracer_is_hopeless(pid_t tid, pid_t number);

/*
 * How long threads are waited for that can stop, but may be kept from a processor: a second. Nor does one stop that
 * waits in the kernel for memory that the program is to provide (userfaultfd(2)), maybe by the very thread that waits
 * for us, or for a file system that does not answer: the kernel lets go of it when the tracer ends.
 */
struct tracer_patience {
	int64_t begin;
	int64_t napped;
};
void tracer_begin_to_wait(struct tracer_patience *patience);
bool tracer_is_patient(const struct tracer_patience *patience);
/*
 * Until a thread stops, or for a moment. It sleeps: threads that are to stop may have the processor only when this one
 * has not, as where it has a real-time priority.
 */
void tracer_nap(struct tracer_patience *patience);

#endif
