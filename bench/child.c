/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int report = -1;

/* One line, and shorter than a pipe's atomic size: threads may report. */
static void say(const char *row, const char *which, const char *unit, double value, const char *reason)
{
	char line[512];
	int length = snprintf(line, sizeof(line), "%s\t%s\t%s\t%.9g\t%s\n", row, which, unit, value, reason);

	if (length > 0 && (size_t)length < sizeof(line) && write(report, line, (size_t)length) != length)
		_exit(1);
}

void child_add(const char *row, const char *which, const char *unit, double value)
{
	say(row, which, unit, value, "-");
}

void child_skip(const char *row, const char *which, const char *reason)
{
	say(row, which, "-", 0, reason);
}

static void take(const char *group, char *line)
{
	char *field[5];

	for (size_t i = 0; i < 5; i++)
		field[i] = strsep(&line, "\t");
	if (field[4] == NULL)
		return;
	if (strcmp(field[4], "-"))
		series_skip(group, field[0], field[1], field[4]);
	else
		series_add(group, field[0], field[1], field[2], strtod(field[3], NULL));
}

/* True: all there is was read. */
static bool collect(const char *group, int from, unsigned int timeout)
{
	const uint64_t end = now_ns() + timeout * UINT64_C(1000000000);
	static char text[1 << 16];
	size_t used = 0;

	for (;;) {
		uint64_t now = now_ns();
		struct pollfd poller = {.fd = from, .events = POLLIN};
		ssize_t length;
		char *newline;

		if (now >= end || (poll(&poller, 1, (int)((end - now) / 1000000) + 1) < 0 && errno != EINTR))
			return false;
		if (!poller.revents)
			continue;
		length = read(from, text + used, sizeof(text) - used);
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			return length == 0;
		used += (size_t)length;
		while ((newline = memchr(text, '\n', used))) {
			*newline = '\0';
			take(group, text);
			used -= (size_t)(newline + 1 - text);
			memmove(text, newline + 1, used);
		}
	}
}

bool child_run(const char *group, void (*fn)(void *argument), void *argument, unsigned int timeout)
{
	int status = 0, ends[2];
	bool complete;
	pid_t pid;

	fflush(NULL);
	if (pipe(ends) < 0)
		return false;
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		report = ends[1];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(argument);
		_exit(0);
	}
	close(ends[1]);
	complete = pid > 0 && collect(group, ends[0], timeout);
	close(ends[0]);
	if (pid > 0 && !complete)
		kill(pid, SIGKILL);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return complete && status == 0;
}
