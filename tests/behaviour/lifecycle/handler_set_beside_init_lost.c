/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While patch_init() puts its handlers in front of the program's, another thread sets one, right before the kernel has
 * the library's: it is neither lost nor overwritten, of any signal. Nor if the thread sets another one for a time, and
 * then what it was told was there.
 */
#include "targets.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1
#endif

static volatile int got, others;
static _Atomic int listener = -1;

static void mine(int signo)
{
	(void)signo;
	got++;
}

static void other(int signo)
{
	(void)signo;
	others++;
}

struct choice {
	int signo;
	bool has_handler; /* before */
	/* Of what the library has set, which the thread then sets again. */
	enum { NOT_TOLD, TOLD, TOLD_EARLY } told;
};

static const struct choice *choice;
static struct sigaction before;
static volatile int calls; /* of the thread in patch_init(), which set an action */

static void set(void (*handler)(int), struct sigaction *before)
{
	const struct sigaction action = { .sa_handler = handler };

	REQUIRE(sigaction(choice->signo, &action, before) == 0);
}

/* Is in front of each call of the other thread that sets an action. */
static void *sets(void *unused)
{
	struct seccomp_notif notification;
	struct seccomp_notif_resp answer;
	bool told = false;

	while (listener == -1)
		usleep(100);
	for (;;) {
		memset(&notification, 0, sizeof(notification));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) {
			if (errno == EINTR)
				continue;
			return unused;
		}
		if (notification.data.args[0] != (uint64_t)choice->signo) {
			if (choice->told != NOT_TOLD && notification.data.args[0] == SIGILL && calls != 0 && !told) {
				/* The thread's calls are not the library's yet, and it is told of the library's. */
				told = true;
				set(other, &before);
				if (choice->told == TOLD)
					REQUIRE(sigaction(choice->signo, &before, NULL) == 0);
			}
		} else if (calls++ == 0) {
			set(mine, NULL);
		}
		memset(&answer, 0, sizeof(answer));
		answer.id = notification.id;
		answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0)
			return unused;
	}
}

/* The calling thread's calls that set an action. */
static int listen_for_actions(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	};
	const struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void *nothing(void *unused)
{
	return unused;
}

static void sets_beside_init(void *argument)
{
	struct sigaction action = { .sa_handler = other }, now;
	pthread_t thread, last;
	int fd;

	choice = argument;
	if (choice->has_handler)
		REQUIRE(sigaction(choice->signo, &action, NULL) == 0);
	REQUIRE(pthread_create(&thread, NULL, sets, NULL) == 0);
	fd = listen_for_actions();
	if (fd < 0)
		SKIP("no listener for system calls (seccomp): %s", strerror(errno));
	listener = fd;
	CHECK_OK(patch_init(NULL, 0));
	CHECK(calls >= 2);
	if (choice->told == TOLD_EARLY)
		REQUIRE(sigaction(choice->signo, &before, NULL) == 0);
	REQUIRE(sigaction(choice->signo, NULL, &now) == 0);
	CHECK(now.sa_handler == mine);
	REQUIRE(pthread_create(&last, NULL, nothing, NULL) == 0);
	REQUIRE(pthread_join(last, NULL) == 0);
	raise(choice->signo);
	CHECK_EQ(got, 1);
	CHECK_EQ(others, 0);
}

int main(void)
{
	static const int signals[] = { SIGTRAP, SIGILL, SIGUSR1 };
	char name[64];

	harness_start();
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		for (int k = 0; k < 6; k++) {
			struct choice now = { signals[i], k % 2 != 0, k / 2 };

			/* There is nothing to put a handler in front of; SIGTRAP is the library's before SIGILL. */
			if (now.signo == SIGUSR1 ? !now.has_handler : now.signo == SIGILL && now.told != NOT_TOLD)
				continue;
			if (now.signo == SIGUSR1 && now.told != NOT_TOLD)
				continue;
			snprintf(name, sizeof(name), "signal %d, %s, %d", now.signo,
				 now.has_handler ? "a handler" : "no handler", now.told);
			harness_isolated(name, sets_beside_init, &now);
		}
	return harness_end();
}
