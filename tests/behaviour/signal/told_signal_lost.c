/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel gives a SIGTRAP for the process to a thread that blocks it, while another one waits for it: by sigwait(),
 * or with a mask that lets it through. That thread gets it, wherever on its way into the call or out of it it is, and
 * neither this signal nor one that is sent to the thread itself is lost, when another thread takes one of them first.
 */
#include "targets.h"

#include "base/inject.h"
#include "base/syscall.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

static _Atomic int waiting_at; /* the thread that is kept right before its call; it goes on when this is 0 */
static _Atomic bool keep;
static _Atomic int first; /* a thread that a signal of its own comes to while it is told another one */
static _Atomic bool interrupts; /* another signal comes while a call takes what it was told */
static _Atomic int returned; /* calls that have */
static _Atomic bool returned_early;
static _Atomic int handled;
static int epoll;

static int tid_of_thread(void)
{
	return (int)raw_syscall(SYS_gettid);
}

/* In a system call with this number? */
static bool is_in(int tid, long number)
{
	char path[64], line[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, line, sizeof(line) - 1) < 0)
			line[0] = '\0';
		close(fd);
	}
	return line[0] >= '0' && line[0] <= '9' && atoi(line) == number;
}

static _Atomic bool refuses; /* a filter, as it were, what a thread is told by */
static _Atomic bool refuses_next;

static int at_point(enum inject_point point)
{
	if (point == INJECT_SYSCALL && refuses_next) {
		refuses_next = false;
		return EPERM;
	}
	if (point == INJECT_WAIT && keep) {
		keep = false;
		waiting_at = tid_of_thread();
		while (waiting_at != 0)
			raw_syscall(SYS_sched_yield);
	}
	if (point == INJECT_TELL && first != 0) {
		int tid = first;

		/* It takes that one, and leaves; but not before this thread has sent what it is about to send. */
		first = 0;
		raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid), tid, SIGTRAP);
		waiting_at = 0;
		while (returned == 0 && !is_in(tid, SYS_futex))
			raw_syscall(SYS_sched_yield);
		returned_early = returned != 0;
		refuses_next = refuses;
	}
	if (point == INJECT_TAKEN && interrupts) {
		interrupts = false;
		raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid), tid_of_thread(), SIGUSR1);
	}
	return 0;
}

static void on_usr1(int signo)
{
	(void)signo;
}

static void on_trap(int signo)
{
	(void)signo;
	handled++;
}

static void start(void)
{
	sigset_t set;

	REQUIRE_OK(patch_init(NULL, 0));
	libpatch_inject = at_point;
	REQUIRE(signal(SIGTRAP, on_trap) == SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

/* ---- ways to wait ----------------------------------------------------------------------------------------------- */

static void by_sigwait(const sigset_t *traps, const sigset_t *none)
{
	int signo;

	(void)none;
	REQUIRE(sigwait(traps, &signo) == 0);
	CHECK_EQ(signo, SIGTRAP);
}

static void by_sigwaitinfo(const sigset_t *traps, const sigset_t *none)
{
	siginfo_t info;

	(void)none;
	CHECK_EQ(sigwaitinfo(traps, &info), SIGTRAP);
	CHECK_EQ(info.si_pid, getpid());
	CHECK(info.si_code == SI_USER || info.si_code == SI_TKILL);
}

static void by_sigtimedwait(const sigset_t *traps, const sigset_t *none)
{
	const struct timespec long_time = { .tv_sec = 1000 };

	(void)none;
	CHECK_EQ(sigtimedwait(traps, NULL, &long_time), SIGTRAP);
}

#define IS_HANDLED(call)                                                                                               \
	do {                                                                                                           \
		(void)traps;                                                                                           \
		CHECK_EQ(call, -1);                                                                                    \
		CHECK_EQ(errno, EINTR);                                                                                \
		CHECK_EQ(handled, 1);                                                                                  \
	} while (0)

static void by_sigsuspend(const sigset_t *traps, const sigset_t *none)
{
	IS_HANDLED(sigsuspend(none));
}

static void by_ppoll(const sigset_t *traps, const sigset_t *none)
{
	IS_HANDLED(ppoll(NULL, 0, NULL, none));
}

static void by_pselect(const sigset_t *traps, const sigset_t *none)
{
	IS_HANDLED(pselect(0, NULL, NULL, NULL, NULL, none));
}

static void by_epoll(const sigset_t *traps, const sigset_t *none)
{
	struct epoll_event event;

	IS_HANDLED(epoll_pwait(epoll, &event, 1, -1, none));
}

static const struct way {
	const char *name;
	void (*wait)(const sigset_t *traps, const sigset_t *none);
	long number;
} ways[] = {
	{ "sigwait", by_sigwait, SYS_rt_sigtimedwait },
	{ "sigwaitinfo", by_sigwaitinfo, SYS_rt_sigtimedwait },
	{ "sigtimedwait", by_sigtimedwait, SYS_rt_sigtimedwait },
	{ "sigsuspend", by_sigsuspend, SYS_rt_sigsuspend },
	{ "ppoll", by_ppoll, SYS_ppoll },
	{ "pselect", by_pselect, SYS_pselect6 },
	{ "epoll_pwait", by_epoll, SYS_epoll_pwait },
};

static void *wait_for_one(void *way)
{
	sigset_t traps, none;

	sigemptyset(&none);
	sigemptyset(&traps);
	sigaddset(&traps, SIGTRAP);
	((const struct way *)way)->wait(&traps, &none);
	returned++;
	return NULL;
}

static pthread_t make_waiter(const struct way *way)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, wait_for_one, (void *)way) == 0);
	return thread;
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

/* Sent between the last look and the call, or while the thread sleeps in it; to the process or to the thread. */
static void every_way(void *argument)
{
	(void)argument;
	start();
	REQUIRE((epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0);
	for (int round = 0; round < 4; round++) {
		for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
			pthread_t thread;
			int tid;

			CONTEXT("%s, %s, %s", ways[i].name, round & 1 ? "asleep" : "before the call",
					round & 2 ? "to the thread" : "to the process");
			handled = returned = 0;
			keep = true;
			thread = make_waiter(&ways[i]);
			while ((tid = waiting_at) == 0)
				sched_yield();
			if (round & 1) {
				waiting_at = 0;
				while (!is_in(tid, ways[i].number))
					sched_yield();
			}
			if (round & 2)
				pthread_kill(thread, SIGTRAP);
			else
				kill(getpid(), SIGTRAP);
			waiting_at = 0;
			pthread_join(thread, NULL);
		}
	}
	CHECK_OK(patch_fini());
}

/* The thread gets the one that comes to itself, and the process has the other. */
static void told_while_it_leaves(void *argument)
{
	const struct timespec no_time = { 0 };
	sigset_t traps;
	pthread_t thread;

	refuses = argument != NULL;
	start();
	keep = true;
	thread = make_waiter(&ways[0]);
	while (waiting_at == 0)
		sched_yield();
	first = waiting_at;
	kill(getpid(), SIGTRAP);
	pthread_join(thread, NULL);
	CHECK(!returned_early);
	sigemptyset(&traps);
	sigaddset(&traps, SIGTRAP);
	CHECK_EQ(sigtimedwait(&traps, NULL, &no_time), SIGTRAP);
	CHECK_EQ(handled, 0);
	CHECK_OK(patch_fini());
}

/* The same, and yet another one waits. */
static void passed_on(void *way)
{
	pthread_t threads[2];

	start();
	keep = true;
	threads[0] = make_waiter(&ways[0]);
	while (waiting_at == 0)
		sched_yield();
	first = waiting_at;
	threads[1] = make_waiter(way);
	/* The main thread waits for none: it is the one that the kernel chooses. */
	kill(getpid(), SIGTRAP);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK(!returned_early);
	CHECK_EQ(handled, ((const struct way *)way)->number == SYS_rt_sigtimedwait ? 0 : 1);
	CHECK_OK(patch_fini());
}

/* It was asleep, and takes the signal once. */
static void interrupted_while_it_takes(void *argument)
{
	sigset_t pending;
	pthread_t thread;
	int tid;

	(void)argument;
	start();
	REQUIRE(signal(SIGUSR1, on_usr1) == SIG_DFL);
	keep = interrupts = true;
	thread = make_waiter(&ways[0]);
	while ((tid = waiting_at) == 0)
		sched_yield();
	waiting_at = 0;
	while (!is_in(tid, SYS_rt_sigtimedwait))
		sched_yield();
	kill(getpid(), SIGTRAP);
	pthread_join(thread, NULL);
	CHECK(!interrupts);
	REQUIRE(sigpending(&pending) == 0);
	CHECK_EQ(sigismember(&pending, SIGTRAP), 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("every way to wait", every_way, NULL);
	harness_isolated("told while it leaves", told_while_it_leaves, NULL);
	harness_isolated("told while it leaves, and that is refused", told_while_it_leaves, (void *)&ways[0]);
	harness_isolated("passed on to one that takes it", passed_on, (void *)&ways[0]);
	harness_isolated("passed on to one that lets it through", passed_on, (void *)&ways[3]);
	harness_isolated("interrupted while it takes it", interrupted_while_it_takes, NULL);
	return harness_end();
}
