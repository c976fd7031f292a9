/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc/self/task says about the threads of this process. It is read by raw system calls into memory on the stack;
 * no thread is stopped or signalled.
 */
#include "sys/tasks.h"

#include "base/format.h"
#include "base/parse.h"
#include "base/syscall.h"
#include "sys/mem_read.h"
#include "sys/own_proc.h"

#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

#define TASKS_OWN "/proc/self/task"

/*
 * The number of links of a directory of threads: its own, its parent's, and one for each thread (fs/proc/base.c,
 * proc_task_getattr()). 0: /proc is not there.
 */
static unsigned long tasks_links(const char *directory)
{
	struct stat status;
	long error = raw_syscall(SYS_newfstatat, AT_FDCWD, directory, &status, 0);

	if (error != 0)
		error = raw_syscall(SYS_stat, directory, &status);
	return error == 0 ? status.st_nlink : 0;
}

static size_t tasks_count_in(const char *directory)
{
	unsigned long links = tasks_links(directory);

	return links > 2 ? links - 2 : 0;
}

size_t tasks_count(void)
{
	return tasks_count_in(TASKS_OWN);
}

bool tasks_is_single(void)
{
	return tasks_count() == 1;
}

struct tasks_entry {
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* Read a file, each of which is one record that comes whole, and end it with a zero byte. Its length, or -errno. */
static long tasks_read_open(long fd, char *buffer, size_t size)
{
	long got;

	if (fd < 0)
		return fd;
	got = raw_syscall(SYS_read, fd, buffer, size - 1);
	raw_syscall(SYS_close, fd);
	buffer[got < 0 ? 0 : got] = '\0';
	return got;
}

#define TASKS_PATH 64

static char *tasks_write_path(char path[TASKS_PATH], const char *directory, pid_t tid, const char *file)
{
	*format_string(format_number(format_string(path, directory), (uint64_t)tid, 10), file) = '\0';
	return path;
}

/* A file in the thread's directory, which is in `directory`. */
static long tasks_read_in(const char *directory, pid_t tid, const char *file, char *buffer, size_t size)
{
	char path[TASKS_PATH];

	return tasks_read_open(raw_open(tasks_write_path(path, directory, tid, file), O_RDONLY | O_CLOEXEC), buffer,
			       size);
}

/* The directory of threads, while one thread, with the library lock or in patch_init(), visits them: a shorter way. */
static long visited = -EBADF;

/* The program may close any descriptor: what is not found there is looked for by its whole path. */
static long tasks_read_file(pid_t tid, const char *file, char *buffer, size_t size)
{
	char path[TASKS_PATH];
	long fd = visited;

	if (fd >= 0)
		fd = raw_syscall(SYS_openat, fd, tasks_write_path(path, "", tid, file), O_RDONLY | O_CLOEXEC, 0);
	if (fd >= 0)
		return tasks_read_open(fd, buffer, size);
	return tasks_read_in(TASKS_OWN "/", tid, file, buffer, size);
}

/* Of the calling thread: the first one's is gone once that has ended. */
static const char *tasks_own_line(const char *key, char *status, size_t size)
{
	long length = tasks_read_open(own_proc_open("status", O_RDONLY | O_CLOEXEC), status, size);

	return length > 0 ? parse_find_line(status, key) : NULL;
}

size_t tasks_descriptors(void)
{
	char status[2048];
	const char *line = tasks_own_line("FDSize:", status, sizeof(status));
	uint64_t count = 0;

	if (line != NULL)
		parse_decimal(line, &count);
	return (size_t)count;
}

/*
 * A thread has a number in each namespace that it is in, from that of the mounted /proc to its own, which the kernel's
 * calls take. All threads of a process are in the same. Two are the same namespace, mostly.
 */
static bool numbers_differ;

/* The numbers of a line "NSpid:". Returns how many there are, and the last one. */
static size_t tasks_parse_numbers(const char *line, uint64_t *last)
{
	size_t count = 0;

	*last = 0;
	for (const char *at = line; at != NULL && *at >= '0' && *at <= '9'; ++count) {
		at = parse_decimal(at, last);
		at += *at == '\t';
	}
	return count;
}

pid_t tasks_self(void)
{
	const pid_t self = (pid_t)raw_syscall(SYS_gettid);
	char status[2048];
	const char *line = tasks_own_line("NSpid:", status, sizeof(status));
	uint64_t number;

	numbers_differ = tasks_parse_numbers(line, &number) > 1;
	/* It may be another thread of the process that has the number there. */
	if (numbers_differ && number != (uint64_t)self) {
		tasks_read_open(raw_open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC), status, sizeof(status));
		line = parse_find_line(status, "NSpid:");
	}
	if (line == NULL)
		return self;
	parse_decimal(line, &number);
	return (pid_t)number;
}

/* Not /proc/self/task/: asked by a process that has borrowed the memory, too. */
pid_t tasks_number_in_calls(pid_t tid)
{
	char status[2048];
	uint64_t number = 0;

	if (!numbers_differ)
		return tid;
	if (tasks_read_in("/proc/", tid, "/status", status, sizeof(status)) > 0)
		tasks_parse_numbers(parse_find_line(status, "NSpid:"), &number);
	return (pid_t)number;
}

/* include/linux/sched.h: a worker of io_uring; and one of any kind, as of KVM and vhost, from Linux 6.4 on. */
#define PF_IO_WORKER 0x10
#define PF_USER_WORKER 0x4000

/* Does the length, or -errno, of a file in the directory of a thread say that the thread has ended? */
static bool tasks_is_gone(long length)
{
	return length == -ESRCH || (length == -ENOENT && tasks_links(TASKS_OWN) != 0);
}

/*
 * What is told of a thread in one line, of which only two numbers are taken (proc_pid_stat(5)). It takes the kernel
 * half as long as /status, but has no signals above 31.
 */
struct tasks_stat {
	char state;
	uint64_t flags;
	uint64_t blocked;
};

static void tasks_parse_stat(const char *text, long length, struct tasks_stat *stat)
{
	unsigned int field = 2;

	*stat = (struct tasks_stat){ 0 };
	/* The second field, in parentheses, may have any characters in it. */
	while (length > 0 && text[length - 1] != ')')
		--length;
	if (length <= 0)
		return;
	stat->state = text[length + (text[length] == ' ')];
	for (const char *at = text + length; *at != '\0' && field < 32; ++at) {
		if (*at != ' ')
			continue;
		++field;
		if (field == 9)
			parse_decimal(at + 1, &stat->flags);
		else if (field == 32)
			parse_decimal(at + 1, &stat->blocked);
	}
}

/*
 * Does it run in the kernel only, and block everything? Until Linux 5.16 PF_USER_WORKER was the flag of a thread that
 * had loaded modules of the kernel.
 */
static bool tasks_stat_is_workers(const struct tasks_stat *stat)
{
	const uint64_t all = UINT64_C(0x7fffffff) & ~(UINT64_C(1) << (SIGKILL - 1)) & ~(UINT64_C(1) << (SIGSTOP - 1));

	return (stat->flags & PF_IO_WORKER) != 0 || ((stat->flags & PF_USER_WORKER) != 0 && stat->blocked == all);
}

bool tasks_blocked(pid_t tid, uint64_t signals, uint64_t *blocked)
{
	char text[2048];
	long length = tasks_read_file(tid, "/stat", text, sizeof(text));
	struct tasks_stat stat;
	const char *line;

	*blocked = 0;
	tasks_parse_stat(text, length, &stat);
	/* A worker's flags say so; its name does only once it runs. */
	if ((stat.blocked & signals) == 0 || tasks_stat_is_workers(&stat))
		return length > 0 || tasks_is_gone(length);
	length = tasks_read_file(tid, "/status", text, sizeof(text));
	line = length > 0 ? parse_find_line(text, "SigBlk:") : NULL;
	if (line != NULL)
		parse_hexadecimal(line, blocked);
	return line != NULL || tasks_is_gone(length);
}

bool tasks_is_worker(pid_t tid)
{
	char text[2048];
	struct tasks_stat stat;

	tasks_parse_stat(text, tasks_read_file(tid, "/stat", text, sizeof(text)), &stat);
	return tasks_stat_is_workers(&stat);
}

/* Not a worker, nor one that has ended and is there until somebody has been told. */
bool tasks_may_run(pid_t tid)
{
	char text[2048];
	struct tasks_stat stat;

	tasks_parse_stat(text, tasks_read_file(tid, "/stat", text, sizeof(text)), &stat);
	return stat.state != '\0' && stat.state != 'Z' && stat.state != 'X' && !tasks_stat_is_workers(&stat);
}

bool tasks_is_filtered(pid_t tid)
{
	char text[2048];
	long length = tasks_read_file(tid, "/status", text, sizeof(text));
	/* Kernels without filters have no such line. */
	const char *line = length > 0 ? parse_find_line(text, "Seccomp:") : NULL;

	return line != NULL ? *line != '0' : length <= 0 && !tasks_is_gone(length);
}

void tasks_describe(pid_t tid, char text[TASKS_TEXT])
{
	char *at = format_string(format_number(text, (uint64_t)tid, 10), " (");
	long length = tasks_read_file(tid, "/comm", at, (size_t)(text + TASKS_TEXT - at - 1));

	at += length > 0 ? length : 0;
	/* A name ends with a newline. */
	at -= at[-1] == '\n';
	*at++ = ')';
	*at = '\0';
}

bool tasks_time(pid_t tid, uint64_t *ns)
{
	/* include/linux/posix-timers_types.h: of a thread, CPUCLOCK_PROF. */
	pid_t number = tasks_number_in_calls(tid);
	clockid_t clock = (clockid_t)(~(unsigned int)number << 3 | 4);
	int64_t now = number != 0 ? raw_clock(clock) : -ESRCH;

	*ns = (uint64_t)now;
	return now >= 0;
}

bool tasks_switches(pid_t tid, uint64_t *count)
{
	char text[2048];
	long length = tasks_read_file(tid, "/status", text, sizeof(text));
	const char *line = length > 0 ? parse_find_line(text, "nonvoluntary_ctxt_switches:") : NULL;

	*count = 0;
	if (line != NULL)
		parse_decimal(line, count);
	return line != NULL;
}

/*
 * The number, six arguments, the stack pointer and the program counter; each but the first begins with 0x. Outside of a
 * call the number is -1, and there are no arguments.
 */
static bool tasks_parse_wait(const char *text, long length, struct tasks_wait *wait)
{
	const bool outside = length > 0 && text[0] == '-';
	size_t words = outside ? ARRAY_SIZE(wait->arguments) : 0;
	uint64_t number;

	*wait = (struct tasks_wait){ .call = TASKS_RUNS };
	if (!outside && (length <= 0 || text[0] < '0' || text[0] > '9'))
		return false;
	parse_decimal(text, &number);
	wait->call = outside ? -1 : (long)number;
	for (const char *at = text; *at != '\0' && words < ARRAY_SIZE(wait->words); ++at)
		if (*at == 'x')
			parse_hexadecimal(at + 1, &wait->words[words++]);
	return true;
}

long tasks_waits_in(pid_t tid, struct tasks_wait *wait)
{
	char text[256];
	long length = tasks_read_file(tid, "/syscall", text, sizeof(text));

	if (tasks_parse_wait(text, length, wait))
		return wait->call;
	/* Some systems have no such file. */
	if (tasks_is_gone(length) && tasks_is_gone(tasks_read_file(tid, "/stat", text, sizeof(text))))
		wait->call = TASKS_GONE;
	return wait->call;
}

/* The first word of what clone3() is given, which is in the memory that is ours, too. */
static uint64_t tasks_clone3_flags(uint64_t arguments)
{
	uint64_t flags = 0;

	mem_read_readable(arguments, &flags, sizeof(flags));
	return flags;
}

bool tasks_is_wait_for_child(const struct tasks_wait *wait)
{
	switch (wait->call) {
	case SYS_vfork:
		return true;
	case SYS_clone:
		return wait->arguments[0] & CLONE_VFORK;
	case SYS_clone3:
		return tasks_clone3_flags(wait->arguments[0]) & CLONE_VFORK;
	default:
		return false;
	}
}

bool tasks_waits_for_child(pid_t tid)
{
	char text[256];
	struct tasks_wait wait;

	/* Not /proc/self/task/, where a process that has borrowed the memory does not find it. */
	tasks_parse_wait(text, tasks_read_in("/proc/", tid, "/syscall", text, sizeof(text)), &wait);
	return tasks_is_wait_for_child(&wait);
}

static bool tasks_visit_in(const char *directory, tasks_visit_fn *visit, void *data)
{
	long fd = raw_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char entries[1024];
	bool go_on = true;
	long size = 0;

	if (fd < 0)
		return false;
	visited = fd;
	while (go_on && (size = raw_syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
		for (long at = 0; go_on && at < size;) {
			const struct tasks_entry *entry = (const struct tasks_entry *)(entries + at);
			uint64_t tid;

			at += entry->length;
			parse_decimal(entry->name, &tid);
			if (tid != 0)
				go_on = visit((pid_t)tid, data);
		}
	}
	visited = -EBADF;
	raw_syscall(SYS_close, fd);
	return size >= 0;
}

bool tasks_visit(tasks_visit_fn *visit, void *data)
{
	return tasks_visit_in(TASKS_OWN, visit, data);
}

size_t tasks_count_of(pid_t tid)
{
	char path[TASKS_PATH];

	return tasks_count_in(tasks_write_path(path, "/proc/", tid, "/task"));
}

bool tasks_visit_of(pid_t tid, tasks_visit_fn *visit, void *data)
{
	char path[TASKS_PATH];

	return tasks_visit_in(tasks_write_path(path, "/proc/", tid, "/task"), visit, data);
}
