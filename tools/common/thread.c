/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "common/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*run)(void *))
{
	sigset_t blocked, before;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGTRAP);
	sigdelset(&blocked, SIGILL);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGBUS);
	/* It begins with its creator's mask: glibc before 2.32 has no attribute for it. */
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}
