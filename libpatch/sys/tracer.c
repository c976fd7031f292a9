/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The child makes system calls of its own. What it has not let go of when it ends, the kernel does.
 */
#include "sys/tracer.h"

#include "base/syscall.h"
#include "sys/tasks.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

/* Of the kernel, which libc's header may not have. */
#define EVENT_STOP 128

long tracer_call(long request, pid_t number, long address, const void *data)
{
	return raw_syscall(SYS_ptrace, request, number, address, data);
}

pid_t tracer_interrupt(pid_t tid)
{
	/* As /proc has it, the number may be that of another process here, which must not be touched. */
	const pid_t number = tasks_number_in_calls(tid);

	if (number == 0 || tracer_call(PTRACE_SEIZE, number, 0, NULL) != 0 ||
	    tracer_call(PTRACE_INTERRUPT, number, 0, NULL) != 0)
		return 0;
	return number;
}

long tracer_look(pid_t number, struct tracer_event *event)
{
	int status = 0;
	const long found = raw_syscall(SYS_wait4, number, &status, __WALL | WNOHANG, NULL);

	event->stopped = found > 0 && WIFSTOPPED(status);
	event->with_process = event->stopped && status >> 16 == EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
	event->signo = !event->stopped || status >> 16 == EVENT_STOP ? 0 : WSTOPSIG(status);
	return found;
}

void tracer_let_go(pid_t number, const struct tracer_event *event)
{
	if (event->stopped)
		tracer_call(PTRACE_DETACH, number, 0, (const void *)(intptr_t)event->signo);
}

bool tracer_go_on(pid_t number, const struct tracer_event *event)
{
	return event->stopped && !event->with_process &&
	       tracer_call(PTRACE_CONT, number, 0, (const void *)(intptr_t)event->signo) == 0;
}

bool tracer_interrupt_again(pid_t number)
{
	return tracer_call(PTRACE_INTERRUPT, number, 0, NULL) == 0;
}

bool tracer_is_hopeless(pid_t tid, pid_t number)
{
	const int how = WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL;
	siginfo_t info = { .si_pid = 0 };

	/* Behind that: is there anything to be told? It stays to be told. */
	return tasks_waits_for_child(tid) && raw_syscall(SYS_waitid, P_PID, number, &info, how, NULL) == 0 &&
	       info.si_pid == 0;
}

#define LONGEST_STOP_NS INT64_C(1000000000)
/* Between looks at what no event tells of. */
#define NAP_NS 1000000

void tracer_begin_to_wait(struct tracer_patience *patience)
{
	*patience = (struct tracer_patience){ .begin = raw_clock(CLOCK_MONOTONIC) };
}

bool tracer_is_patient(const struct tracer_patience *patience)
{
	return raw_waited(patience->begin, patience->napped) < LONGEST_STOP_NS;
}

void tracer_nap(struct tracer_patience *patience)
{
	const uint64_t awaited = UINT64_C(1) << (SIGCHLD - 1);
	const struct timespec nap = { 0, NAP_NS };
	/* Each stop raises it. */
	const long signo = raw_syscall(SYS_rt_sigtimedwait, &awaited, NULL, &nap, sizeof(awaited));

	/* Where a filter refuses it. */
	if (signo < 0 && signo != -EAGAIN)
		raw_syscall(SYS_nanosleep, &nap, NULL);
	patience->napped += NAP_NS;
}

__attribute__((noinline, noreturn)) static void tracer_child(void (*run)(void *), void *data)
{
	/* Which is the child's own: ignored, SIGCHLD would not be raised. */
	const uint64_t default_action[4] = { 0 };

	raw_syscall(SYS_rt_sigaction, SIGCHLD, default_action, NULL, sizeof(uint64_t));
	run(data);
	for (;;)
		raw_syscall(SYS_exit, 0);
}

void tracer_run(void (*run)(void *), void *data)
{
	long child;

	/* Yama: a child may trace its parent only when that says so. */
	raw_syscall(SYS_prctl, PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	/* No signal at its end: the program's wait() does not see it. */
	child = raw_syscall_inline(SYS_clone, CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, 0);
	if (child == 0)
		tracer_child(run, data);
	if (child > 0)
		raw_syscall(SYS_wait4, child, NULL, __WALL, NULL);
	raw_syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
}
