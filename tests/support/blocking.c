/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "blocking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct thread {
	pthread_t handle;
	const struct way *way;
	pid_t tid;
	int pipe[2];
	int word; /* that a futex is about */
	bool is_right;
};

struct way {
	const char *name;
	void (*wait)(struct thread *thread);
	long call; /* that it waits in; -1: whether it runs at all yet is not waited for */
	bool ended_by_signal;
	bool blocks_in_call; /* only there, by its mask */
};

static void block_all(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
}

static void wait_in_read(struct thread *thread)
{
	char byte;

	block_all();
	if (read(thread->pipe[0], &byte, 1) != 1)
		abort();
}

/* What no function of libc's blocks, too. */
static void wait_in_futex(struct thread *thread)
{
	uint64_t all = ~0ULL;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	while (!__atomic_load_n(&thread->word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &thread->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void wait_in_sigwait(struct thread *thread)
{
	sigset_t usr1;
	int signo;

	(void)thread;
	block_all();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	if (sigwait(&usr1, &signo) != 0 || signo != SIGUSR1)
		abort();
}

/* Owned signals among those that it waits for; adoption may end the call. */
static void wait_in_sigwaitinfo(struct thread *thread)
{
	siginfo_t info;
	sigset_t all;

	(void)thread;
	block_all();
	sigfillset(&all);
	while (sigwaitinfo(&all, &info) != SIGUSR1)
		if (errno != EINTR)
			abort();
}

static void wait_in_signalfd(struct thread *thread)
{
	struct signalfd_siginfo info;
	sigset_t usr1;
	int fd;

	(void)thread;
	block_all();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	fd = signalfd(-1, &usr1, SFD_CLOEXEC);
	if (read(fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo != SIGUSR1)
		abort();
	close(fd);
}

static void wait_in_ppoll(struct thread *thread)
{
	struct pollfd fd = { .fd = thread->pipe[0], .events = POLLIN };
	sigset_t all;

	sigfillset(&all);
	while (ppoll(&fd, 1, NULL, &all) != 1)
		if (errno != EINTR)
			abort();
}

/* In code that nobody knows: mov $SYS_ppoll, %eax; mov %rcx, %r10; syscall; ret. The kernel's result. */
static void wait_in_unseen_ppoll(struct thread *thread)
{
	static const uint8_t code[] = { 0xb8, 0x0f, 0x01, 0x00, 0x00, 0x49, 0x89, 0xca, 0x0f, 0x05, 0xc3 };
	struct pollfd fd = { .fd = thread->pipe[0], .events = POLLIN };
	const uint64_t all = ~0ULL;
	void *page = mmap(NULL, sizeof(code), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long (*call)(struct pollfd *fds, unsigned long count, void *timeout, const uint64_t *mask, size_t size);
	long result;

	if (page == MAP_FAILED)
		abort();
	memcpy(page, code, sizeof(code));
	memcpy(&call, &page, sizeof(call));
	if (mprotect(page, sizeof(code), PROT_READ | PROT_EXEC) != 0)
		abort();
	while ((result = call(&fd, 1, NULL, &all, sizeof(all))) == -EINTR)
		;
	if (result != 1)
		abort();
	munmap(page, sizeof(code));
}

static void wait_in_pselect(struct thread *thread)
{
	fd_set readable;
	sigset_t all;

	sigfillset(&all);
	do {
		FD_ZERO(&readable);
		FD_SET(thread->pipe[0], &readable);
	} while (pselect(thread->pipe[0] + 1, &readable, NULL, NULL, NULL, &all) != 1);
}

static void wait_in_epoll_pwait(struct thread *thread)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = epoll_create1(EPOLL_CLOEXEC);
	sigset_t all;

	sigfillset(&all);
	if (epoll_ctl(fd, EPOLL_CTL_ADD, thread->pipe[0], &event) != 0)
		abort();
	while (epoll_pwait(fd, &event, 1, -1, &all) != 1)
		if (errno != EINTR)
			abort();
	close(fd);
}

/* It waits with owned signals let through, and blocks them again behind it. */
static void wait_in_sigsuspend(struct thread *thread)
{
	sigset_t none;

	(void)thread;
	block_all();
	sigemptyset(&none);
	sigsuspend(&none);
}

static void wait_in_vfork(struct thread *thread)
{
	pid_t child;
	char byte;

	block_all();
	child = vfork();
	if (child == 0) {
		while (read(thread->pipe[0], &byte, 1) != 1)
			;
		_exit(0);
	}
	while (waitpid(child, NULL, 0) < 0)
		;
}

static const struct way ways[] = {
	{ "read", wait_in_read, SYS_read, false, false },
	{ "futex", wait_in_futex, SYS_futex, false, false },
	{ "sigwait", wait_in_sigwait, SYS_rt_sigtimedwait, true, false },
	{ "sigwaitinfo", wait_in_sigwaitinfo, SYS_rt_sigtimedwait, true, false },
	{ "signalfd", wait_in_signalfd, SYS_read, true, false },
	{ "ppoll", wait_in_ppoll, SYS_ppoll, false, true },
	{ "unseen ppoll", wait_in_unseen_ppoll, SYS_ppoll, false, true },
	{ "pselect", wait_in_pselect, SYS_pselect6, false, true },
	{ "epoll_pwait", wait_in_epoll_pwait, SYS_epoll_pwait, false, true },
	{ "sigsuspend", wait_in_sigsuspend, SYS_rt_sigsuspend, true, false },
	{ "not started", wait_in_read, -1, false, false },
	{ "vfork", wait_in_vfork, SYS_vfork, false, false },
};
#define WAYS (sizeof(ways) / sizeof(*ways))

static struct thread threads[WAYS];
static size_t count;

size_t blocking_count(void)
{
	return count;
}

bool blocking_is_thread(pid_t tid)
{
	for (size_t i = 0; i < count; i++) {
		pid_t one = __atomic_load_n(&threads[i].tid, __ATOMIC_ACQUIRE);

		if (one == tid || one == 0)
			return true;
	}
	return false;
}

bool blocking_can_be_adopted(void)
{
	return threads[0].way->call != SYS_vfork;
}

__attribute__((noinline)) int blocking_step(int a, int b)
{
	return a + b;
}

static void *run(void *argument)
{
	struct thread *thread = argument;
	sigset_t now;

	pthread_setname_np(pthread_self(), BLOCKING_THREAD);
	__atomic_store_n(&thread->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	thread->way->wait(thread);
	thread->is_right = blocking_step(1, (int)(thread - threads)) == 1 + (int)(thread - threads);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	for (int signo = SIGILL; signo <= SIGTRAP; signo++)
		thread->is_right &= sigismember(&now, signo) == !thread->way->blocks_in_call;
	return NULL;
}

static bool waits(const struct thread *thread)
{
	char path[64], text[32] = "";
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall",
		 (int)__atomic_load_n(&thread->tid, __ATOMIC_ACQUIRE));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	return length > 0 && text[0] >= '0' && text[0] <= '9' && strtol(text, NULL, 10) == thread->way->call;
}

static void start(size_t way)
{
	struct thread *thread = &threads[count++];
	pthread_attr_t attr;
	sigset_t all, before;

	thread->way = &ways[way];
	pthread_attr_init(&attr);
	if (thread->way->call < 0) {
		cpu_set_t first;

		/* It does not get to run beside the one that makes it, at least not at once. */
		CPU_ZERO(&first);
		CPU_SET((unsigned int)sched_getcpu(), &first);
		pthread_attr_setaffinity_np(&attr, sizeof(first), &first);
		sched_setaffinity(0, sizeof(first), &first);
		sigfillset(&all);
		/* The thread begins with it. pthread_attr_setsigmask_np() is not there before glibc 2.32. */
		pthread_sigmask(SIG_SETMASK, &all, &before);
	}
	if (pipe2(thread->pipe, O_CLOEXEC) != 0 || pthread_create(&thread->handle, &attr, run, thread) != 0)
		abort();
	pthread_attr_destroy(&attr);
	if (thread->way->call < 0)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	while (thread->way->call >= 0 && !waits(thread))
		sched_yield();
}

static void nothing(int signo)
{
	(void)signo;
}

__attribute__((constructor)) static void start_all(void)
{
	const char *wanted = getenv(BLOCKING_WAY);

	if (wanted == NULL)
		return;
	signal(SIGUSR1, nothing);
	for (size_t way = 0; way < WAYS; way++)
		if (strcmp(wanted, ways[way].name) == 0 ||
		    (strcmp(wanted, "all") == 0 && ways[way].call != SYS_vfork))
			start(way);
}

bool blocking_end(void)
{
	bool right = true;

	for (size_t i = 0; i < count; i++) {
		struct thread *thread = &threads[i];

		if (thread->way->ended_by_signal)
			pthread_kill(thread->handle, SIGUSR1);
		if (write(thread->pipe[1], "", 1) != 1)
			abort();
		__atomic_store_n(&thread->word, 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, &thread->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	for (size_t i = 0; i < count; i++) {
		pthread_join(threads[i].handle, NULL);
		right &= threads[i].is_right;
	}
	return right;
}
