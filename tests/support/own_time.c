/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The time that processes have had: see own_time.h. Everything comes from /proc; nothing stops or traces a process. */
#include "own_time.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct own_time_process {
	pid_t pid;
	char name[32];
	char state;
	int group, session;
	uint64_t ticks; /* with those of children that were waited for */
};

static double own_time_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool own_time_read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	return true;
}

/* A stat file of proc(5), of a process or of a thread; false when it has gone. */
static bool own_time_read_stat(const char *path, struct own_time_process *process)
{
	unsigned long long user, kernel, childrens_user, childrens_kernel;
	char text[1024], *name, *rest;

	if (!own_time_read_file(path, text, sizeof(text)))
		return false;
	name = strchr(text, '(');
	rest = strrchr(text, ')'); /* names may have brackets */
	if (!name || !rest)
		return false;
	*rest = '\0';
	snprintf(process->name, sizeof(process->name), "%s", name + 1);
	if (sscanf(rest + 1, " %c %*d %d %d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu", &process->state,
		   &process->group, &process->session, &user, &kernel, &childrens_user, &childrens_kernel) != 7)
		return false;
	process->ticks = user + kernel + childrens_user + childrens_kernel;
	return true;
}

static bool own_time_belongs(const struct own_time *own, const struct own_time_process *process)
{
	return own->id == (own->session ? process->session : process->group);
}

/* Each process of `own`. */
static void own_time_each(const struct own_time *own, void (*fn)(const struct own_time_process *process, void *data),
			  void *data)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	char path[64];

	if (!directory)
		return;
	while ((entry = readdir(directory)) != NULL) {
		struct own_time_process process = { .pid = (pid_t)strtol(entry->d_name, NULL, 10) };

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/stat", process.pid);
		if (own_time_read_stat(path, &process) && own_time_belongs(own, &process))
			fn(&process, data);
	}
	closedir(directory);
}

/* Is a thread running, waiting for a processor, or in a call that a signal cannot end? */
static bool own_time_may_run(pid_t pid)
{
	struct own_time_process thread;
	bool may_run = false;
	struct dirent *entry;
	char path[320];
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	if (!directory)
		return false;
	while (!may_run && (entry = readdir(directory)) != NULL) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, entry->d_name);
		may_run = isdigit((unsigned char)entry->d_name[0]) && own_time_read_stat(path, &thread) &&
			  (thread.state == 'R' || thread.state == 'D');
	}
	closedir(directory);
	return may_run;
}

struct own_time_sum {
	uint64_t ticks;
	bool may_run;
};

static void own_time_add(const struct own_time_process *process, void *data)
{
	struct own_time_sum *sum = data;

	sum->ticks += process->ticks;
	sum->may_run |= own_time_may_run(process->pid);
}

void own_time_start(struct own_time *own, bool session, pid_t id)
{
	memset(own, 0, sizeof(*own));
	own->session = session;
	own->id = id;
	own->looked_at = own_time_now();
}

void own_time_look(struct own_time *own)
{
	struct own_time_sum sum = { 0, false };
	double now = own_time_now(), passed, used;

	own_time_each(own, own_time_add, &sum);
	passed = now - own->looked_at;
	own->by_clock += passed;
	/* Less than before when a process ended that nobody waited for. */
	used = sum.ticks > own->ticks ? (double)(sum.ticks - own->ticks) / (double)sysconf(_SC_CLK_TCK) : 0;
	/* This process waited for a processor, too, so that nothing is known of most of a longer time. */
	if (passed > OWN_TIME_PERIOD)
		passed = OWN_TIME_PERIOD;
	own->charged += !sum.may_run || used > passed ? passed : used;
	own->ticks = sum.ticks;
	own->looked_at = now;
}

static void own_time_tell(const struct own_time_process *process, void *data)
{
	char path[64], call[256] = "\n";

	(void)data;
	snprintf(path, sizeof(path), "/proc/%d/syscall", process->pid);
	own_time_read_file(path, call, sizeof(call));
	fprintf(stderr, "  %d (%s): state %c, %.1f s of processor time, system call %s", process->pid, process->name,
		process->state, (double)process->ticks / (double)sysconf(_SC_CLK_TCK), call);
}

void own_time_report(const struct own_time *own)
{
	own_time_each(own, own_time_tell, NULL);
}

static void own_time_end(const struct own_time_process *process, void *data)
{
	(void)data;
	kill(process->pid, SIGKILL);
}

void own_time_kill(const struct own_time *own)
{
	own_time_each(own, own_time_end, NULL);
}
