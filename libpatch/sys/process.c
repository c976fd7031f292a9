/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sys/process.h"

#include "base/parse.h"
#include "base/syscall.h"

#include <sys/mman.h>
#include <sys/stat.h>

struct process_own libpatch_process_own;
static bool wipes;

static struct process_own *const own = &libpatch_process_own;

static pid_t self(void)
{
	return (pid_t)raw_syscall(SYS_getpid);
}

void process_begin(void)
{
	/* Linux 4.14 (mm/madvise.c). */
	if (!wipes)
		wipes = raw_syscall(SYS_madvise, own, sizeof(*own), MADV_WIPEONFORK) == 0;
	process_forked();
}

void process_forked(void)
{
	atomic_store(&own->owner, self());
}

bool process_wipes(void)
{
	return wipes;
}

bool process_is_new(void)
{
	return atomic_load(&own->owner) != self();
}

bool process_is_borrowed(void)
{
	pid_t known = atomic_load(&own->owner);
	pid_t now = self();

	/* A fork that libc was not asked for: a copy of the memory all the same. */
	if (known == 0)
		atomic_store(&own->owner, now);
	return known != 0 && known != now;
}

/* Of the directory of threads: its own, its parent's, and one for each (fs/proc/base.c, proc_task_getattr()). 0: not there. */
static unsigned long task_links(void)
{
	struct stat status;
	long error = raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &status, 0);

	if (error != 0)
		error = raw_syscall(SYS_stat, "/proc/self/task", &status);
	return error == 0 ? status.st_nlink : 0;
}

size_t process_thread_count(void)
{
	unsigned long links = task_links();

	return links > 2 ? links - 2 : 0;
}

bool process_has_one_thread(void)
{
	return process_thread_count() == 1;
}

/* ---- what threads block ----------------------------------------------------------------------------------------- */

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* The length, or -errno. */
static long read_all(const char *path, char *buffer, size_t size)
{
	long fd = raw_open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	long got = 0;

	if (fd < 0)
		return fd;
	while (length < size - 1) {
		got = raw_syscall(SYS_read, fd, buffer + length, size - 1 - length);
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	raw_syscall(SYS_close, fd);
	buffer[length] = '\0';
	return got < 0 ? got : (long)length;
}

static long read_of_thread(const char *tid, const char *file, char *buffer, size_t size)
{
	static const char before[] = "/proc/self/task/";
	char path[sizeof(before) + 32];
	size_t at = 0;

	for (size_t i = 0; before[i] != '\0'; ++i)
		path[at++] = before[i];
	for (size_t i = 0; tid[i] != '\0' && i < 20; ++i)
		path[at++] = tid[i];
	for (size_t i = 0; i == 0 || file[i - 1] != '\0'; ++i)
		path[at++] = file[i];
	return read_all(path, buffer, size);
}

/* include/linux/sched.h: a worker of io_uring, which runs in the kernel only, and blocks everything. */
#define PF_IO_WORKER 0x10

/* By its flags: it has its name only once it runs. */
static bool is_kernel_worker(const char *tid)
{
	char stat[512];
	long length = read_of_thread(tid, "/stat", stat, sizeof(stat));
	uint64_t flags = 0;
	unsigned int field = 2;

	/* The second field, in parentheses, may have any characters in it; flags are the ninth (proc_pid_stat(5)). */
	while (length > 0 && stat[length - 1] != ')')
		--length;
	for (; length > 0 && stat[length] != '\0' && field < 9; ++length)
		field += stat[length] == ' ';
	if (length > 0)
		parse_decimal(stat + length, &flags);
	return (flags & PF_IO_WORKER) != 0;
}

/* By what reading a file of its directory came to. */
static bool is_gone(long length)
{
	return length == -ESRCH || (length == -ENOENT && task_links() != 0);
}

/* Of one that has ended: none. */
static bool read_blocked(const char *tid, uint64_t *blocked)
{
	char status[2048];
	long length = read_of_thread(tid, "/status", status, sizeof(status));
	const char *line = length > 0 ? parse_find_line(status, "SigBlk:") : NULL;

	*blocked = 0;
	if (line != NULL)
		parse_hexadecimal(line, blocked);
	if (*blocked != 0 && is_kernel_worker(tid))
		*blocked = 0;
	return line != NULL || is_gone(length);
}

struct digits {
	char text[16];
};

static struct digits digits_of(pid_t tid)
{
	struct digits digits = { "" };
	size_t length = 1;

	for (unsigned int rest = (unsigned int)tid / 10; rest != 0; rest /= 10)
		++length;
	for (unsigned int rest = (unsigned int)tid; length > 0; rest /= 10)
		digits.text[--length] = (char)('0' + rest % 10);
	return digits;
}

bool process_blocked(pid_t tid, uint64_t *blocked)
{
	return read_blocked(digits_of(tid).text, blocked);
}

bool process_user_time(pid_t tid, uint64_t *ns)
{
	/* include/linux/posix-timers_types.h: of a thread, CPUCLOCK_VIRT. */
	clockid_t clock = (clockid_t)(~(unsigned int)tid << 3 | 4 | 1);
	struct timespec time;

	if (raw_syscall(SYS_clock_gettime, clock, &time) != 0)
		return false;
	*ns = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
	return true;
}

long process_waits_in(pid_t tid)
{
	const struct digits digits = digits_of(tid);
	char text[256];
	long length = read_of_thread(digits.text, "/syscall", text, sizeof(text));
	uint64_t number;

	/* Some systems have no such file. */
	if (is_gone(length) && is_gone(read_of_thread(digits.text, "/stat", text, sizeof(text))))
		return PROCESS_GONE;
	if (length > 0 && text[0] == '-')
		return -1;
	if (length <= 0 || text[0] < '0' || text[0] > '9')
		return PROCESS_RUNS;
	parse_decimal(text, &number);
	return (long)number;
}

bool process_threads(process_visit_fn *visit, void *data)
{
	long fd = raw_open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char entries[1024];
	bool go_on = true, known = true;
	long size = 0;

	if (fd < 0)
		return false;
	while (go_on && (size = raw_syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
		for (long at = 0; go_on && at < size;) {
			const struct entry *entry = (const struct entry *)(entries + at);
			uint64_t blocked;
			uint64_t tid;

			at += entry->length;
			parse_decimal(entry->name, &tid);
			if (tid == 0)
				continue;
			known &= read_blocked(entry->name, &blocked);
			go_on = visit((pid_t)tid, blocked, data);
		}
	}
	raw_syscall(SYS_close, fd);
	return size >= 0 && known;
}
