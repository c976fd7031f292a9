/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The side that gives orders. */
#define _GNU_SOURCE
#include "hit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static void become(const struct worker *worker, int in, int out)
{
	const char *source = getenv("LIBPATCH_BENCH_SOURCE");
	char path[4096];

	signal(SIGPIPE, SIG_DFL);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(1);
	/* The pipes of others among them: those end when the last descriptor is closed. */
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
	if (!worker->script) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(worker_serve(worker->program));
	}
	/* It ends what it started when its standard input ends, not when the terminal says so. */
	setpgid(0, 0);
	snprintf(path, sizeof(path), "%s/%s", source ? source : ".", worker->script);
	execl("/bin/sh", "sh", path, options.peers, (char *)NULL);
	_exit(127);
}

bool worker_start(struct worker *worker)
{
	int to[2], from[2];

	fflush(NULL);
	/* Of a worker that died: worker_run() says so. */
	signal(SIGPIPE, SIG_IGN);
	if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
		return false;
	worker->pid = fork();
	if (worker->pid == 0)
		become(worker, to[0], from[1]);
	close(to[0]);
	close(from[1]);
	worker->orders = fdopen(to[1], "w");
	worker->answers = fdopen(from[0], "r");
	return worker->pid > 0 && worker->orders && worker->answers;
}

static bool ask(struct worker *worker, char *answer, int size)
{
	if (!worker->orders || fflush(worker->orders) || !fgets(answer, size, worker->answers))
		return false;
	answer[strcspn(answer, "\n")] = '\0';
	return true;
}

bool worker_prepare(struct worker *worker, const char *row, char *reason, int size)
{
	snprintf(reason, (size_t)size, "its process ended");
	if (!worker->orders || fprintf(worker->orders, "prepare %s\n", row) < 0 || !ask(worker, reason, size))
		return false;
	if (strcmp(reason, "ok") == 0)
		return true;
	if (strncmp(reason, "skip ", 5) == 0)
		memmove(reason, reason + 5, strlen(reason + 5) + 1);
	return false;
}

double worker_run(struct worker *worker, const char *row, unsigned int threads, uint64_t n, int cpu)
{
	char answer[256];

	if (!worker->orders ||
	    fprintf(worker->orders, "run %s %u %llu %d\n", row, threads, (unsigned long long)n, cpu) < 0 ||
	    !ask(worker, answer, sizeof(answer)))
		return -1;
	return strtod(answer, NULL);
}

void worker_stop(struct worker *worker)
{
	if (worker->orders)
		fclose(worker->orders);
	if (worker->answers)
		fclose(worker->answers);
	worker->orders = worker->answers = NULL;
	while (worker->pid > 0 && waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR)
		;
	worker->pid = 0;
}
