/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * By the thread's number, and where that is not the one that /proc has, as in another namespace of processes, by the
 * kernel's link to it. Async-signal-safe.
 */
#include "sys/own_proc.h"

#include "base/format.h"
#include "base/syscall.h"

static const char *own_proc_by_number(char path[OWN_PROC_PATH], const char *file)
{
	char *at = format_number(format_string(path, "/proc/self/task/"), (uint64_t)raw_syscall(SYS_gettid), 10);

	*format_string(format_string(at, "/"), file) = '\0';
	return path;
}

static const char *own_proc_by_link(char path[OWN_PROC_PATH], const char *file)
{
	*format_string(format_string(path, "/proc/thread-self/"), file) = '\0';
	return path;
}

long own_proc_open(const char *file, int flags)
{
	char path[OWN_PROC_PATH];
	long fd = raw_open(own_proc_by_number(path, file), flags);

	return fd == -ENOENT ? raw_open(own_proc_by_link(path, file), flags) : fd;
}

const char *own_proc_path(char path[OWN_PROC_PATH], const char *file)
{
	long fd = raw_open(own_proc_by_number(path, file), O_PATH | O_CLOEXEC);

	if (fd == -ENOENT)
		return own_proc_by_link(path, file);
	if (fd >= 0)
		raw_syscall(SYS_close, fd);
	return path;
}
