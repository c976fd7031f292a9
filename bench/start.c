/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starting: patch_init(), and the first commit behind it, in processes with other threads, busy or asleep. Each sample
 * is of a process of its own. The floor of patch_init() is the processor time that it takes where there are no threads,
 * and reading two files of /proc/self/task for each thread; that of the first commit is what the kernel takes to
 * register the process for core synchronisation.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "hit.h"
#include "patch.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUP "start"
#define UNIT "ms"

extern worker_function bench_ours_entry;

static const struct process {
	const char *name;
	unsigned int busy, asleep;
} processes[] = {
	{"no threads", 0, 0},
	{"1 busy", 1, 0},
	{"4 busy + 4 asleep", 4, 4},
	{"300 asleep", 0, 300},
	{"300 asleep + 2 busy", 2, 300},
};
#define PROCESSES (sizeof(processes) / sizeof(*processes))

static const struct process *now;
/* Shared with the children: the least processor time of patch_init() in a process without threads. */
static uint64_t *alone;

static void add(const char *row, uint64_t ns)
{
	child_add(row, now->name, UNIT, (double)ns / 1e6);
}

static void *be_busy(void *unused)
{
	for (;;)
		__asm__ volatile("");
	return unused;
}

static void *be_asleep(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static const char *start_threads(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 * 1024);
	for (unsigned int i = 0; i < now->asleep + now->busy; i++)
		if (pthread_create(&thread, &attr, i < now->asleep ? be_asleep : be_busy, NULL))
			return "no thread";
	/* All of them are where they will be. */
	usleep(20000);
	return NULL;
}

static const char *start(void)
{
	uint64_t begin = now_ns(), own = thread_ns(), end;
	patch_t patch;

	if (patch_init(NULL, 0))
		return bench_last_error();
	own = thread_ns() - own;
	add("patch_init()", now_ns() - begin);
	add("patch_init(), processor time", own);
	if (now == processes && (*alone == 0 || own < *alone))
		*alone = own;
	if (!bench_make((uintptr_t)bench_ours_entry, KIND_GPR, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch))
		return bench_last_error();
	begin = now_ns();
	if (patch_commit())
		return bench_last_error();
	end = now_ns();
	add("first commit", end - begin);
	return NULL;
}

static void read_file(const char *thread, const char *name)
{
	char path[64], text[1024];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%.16s/%s", thread, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text)) < 0)
		text[0] = '\0';
	close(fd);
}

static const char *floor_of_start(void)
{
	const uint64_t begin = now_ns(), own = thread_ns();
	DIR *directory = now->busy + now->asleep ? opendir("/proc/self/task") : NULL;
	uint64_t read;

	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		if (entry->d_name[0] == '.')
			continue;
		read_file(entry->d_name, "syscall");
		read_file(entry->d_name, "stat");
	}
	read = thread_ns() - own;
	while (thread_ns() - own < read + *alone)
		;
	add("floor of patch_init()", now_ns() - begin);
	return NULL;
}

static const char *registration(void)
{
	const uint64_t begin = now_ns();

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		return "no membarrier";
	add("registration alone", now_ns() - begin);
	return NULL;
}

static const struct row {
	const char *name;
	const char *(*run)(void);
} rows[] = {
	{"patch_init()", start},
	{"floor of patch_init()", floor_of_start},
	{"registration alone", registration},
};
#define ROWS (sizeof(rows) / sizeof(*rows))

static void in_child(void *argument)
{
	const struct row *row = argument;
	const char *reason = start_threads();

	if (!reason)
		reason = row->run();
	if (reason)
		child_skip(row->name, now->name, reason);
}

void group_start(void)
{
	const uint64_t end = now_ns() + (uint64_t)(20 * options.scale * 1e9);

	if (!row_wanted(rows[0].name))
		return;
	alone = mmap(NULL, sizeof(*alone), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (alone == MAP_FAILED)
		return;
	do {
		for (now = processes; now < processes + PROCESSES; now++)
			for (size_t i = 0; i < ROWS; i++)
				if (!child_run(GROUP, in_child, (void *)(uintptr_t)&rows[i], 30))
					series_fail(GROUP, rows[i].name, now->name, "its process did not end well");
	} while (!options.quick && now_ns() < end);
	for (now = processes; now < processes + PROCESSES; now++) {
		series_relate(GROUP, "patch_init()", now->name, "floor of patch_init()", NULL);
		series_relate(GROUP, "first commit", now->name, "registration alone", NULL);
	}
}
