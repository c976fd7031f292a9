/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * run-test COMMAND...: run one test in a session of its own. It is ended, and what it did is told, after TEST_TIMEOUT
 * seconds of its own time (own_time.h). The exit status is the test's.
 */
#include "own_time.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STANDARD_LIMIT 600

static pid_t start(char **command, const sigset_t *mask)
{
	pid_t pid = fork();
	int input;

	if (pid != 0)
		return pid;
	setsid();
	sigprocmask(SIG_SETMASK, mask, NULL);
	input = open("/dev/null", O_RDONLY);
	dup2(input, STDIN_FILENO);
	close(input);
	execvp(command[0], command);
	perror(command[0]);
	_exit(127);
}

static int result_of(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	const struct timespec period = { .tv_sec = OWN_TIME_PERIOD };
	const char *value = getenv("TEST_TIMEOUT");
	double limit = value && *value ? strtod(value, NULL) : STANDARD_LIMIT;
	struct own_time own;
	sigset_t awaited, before;
	int status, signo;
	pid_t pid;

	if (argc < 2) {
		fprintf(stderr, "usage: %s COMMAND...\n", argv[0]);
		return 2;
	}
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGCHLD);
	sigaddset(&awaited, SIGHUP);
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGTERM);
	sigprocmask(SIG_BLOCK, &awaited, &before);
	pid = start(argv + 1, &before);
	if (pid < 0) {
		perror("fork");
		return 99; /* for automake: an error that is not the test's */
	}
	own_time_start(&own, true, pid);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		signo = sigtimedwait(&awaited, NULL, &period);
		if (signo == SIGCHLD)
			continue;
		own_time_look(&own);
		if (signo < 0 && own.charged < limit && own.by_clock < limit * OWN_TIME_PATIENCE)
			continue;
		if (signo < 0) {
			fprintf(stderr, "ended after %.0f s of its own time, %.0f s by the clock:\n", own.charged,
				own.by_clock);
			own_time_report(&own);
		}
		own_time_kill(&own);
		waitpid(pid, &status, 0);
		return signo < 0 ? 1 : 128 + signo;
	}
	return result_of(status);
}
