/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files in /tmp, opened for each write: the name leads to the file that was made, or nothing is written.
 */
#include "sys/output_file.h"

#include "base/format.h"
#include "base/syscall.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* A descriptor, or -errno: also where the file is another user's, or has another name. */
static long output_file_open(const char *path, int flags, struct stat *status)
{
	long fd = raw_syscall(SYS_openat, AT_FDCWD, path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	long error;

	if (fd < 0)
		return fd;
	error = raw_syscall(SYS_fstat, fd, status);
	if (error == 0 && (!S_ISREG(status->st_mode) || status->st_nlink != 1 ||
			   status->st_uid != (uid_t)raw_syscall(SYS_geteuid)))
		error = -EEXIST;
	if (error == 0)
		return fd;
	raw_syscall(SYS_close, fd);
	return error;
}

/* The file that was made, or -errno. */
static long output_file_reopen(const struct output_file *file, int flags, uint64_t *size)
{
	struct stat status;
	long fd = output_file_open(file->path, flags, &status);

	*size = fd < 0 ? 0 : (uint64_t)status.st_size;
	if (fd < 0 || (status.st_dev == file->device && status.st_ino == file->inode))
		return fd;
	raw_syscall(SYS_close, fd);
	return -ESTALE;
}

long output_file_create(struct output_file *file, const char *prefix, const char *suffix, bool shared)
{
	struct stat status;
	char *end = format_string(file->path, "/tmp/");
	long fd;

	end = format_string(end, prefix);
	*end++ = '-';
	end = format_number(end, (uint64_t)raw_syscall(SYS_getpid), 10);
	*end++ = '.';
	end = format_string(end, suffix);
	*end = '\0';
	fd = output_file_open(file->path, O_WRONLY | O_CREAT | (shared ? 0 : O_EXCL), &status);
	if (fd < 0)
		return fd;
	raw_syscall(SYS_close, fd);
	file->device = status.st_dev;
	file->inode = status.st_ino;
	return 0;
}

/* The kernel ends a process whose file grows beyond the limit, by SIGXFSZ. */
static bool output_file_may_grow_to(uint64_t size)
{
	struct rlimit limit;

	return raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 && size <= limit.rlim_cur;
}

long output_file_append(const struct output_file *file, const struct iovec *parts, size_t count)
{
	uint64_t before, size = 0;
	long fd = output_file_reopen(file, O_WRONLY | O_APPEND, &before);
	long written = -EFBIG;

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < count; ++i)
		size += parts[i].iov_len;
	if (output_file_may_grow_to(before + size))
		written = raw_syscall(SYS_writev, fd, parts, count);
	raw_syscall(SYS_close, fd);
	if (written < 0)
		return written;
	return (uint64_t)written == size ? 0 : -ENOSPC;
}

long output_file_show(const struct output_file *file)
{
	uint64_t size;
	long fd = output_file_reopen(file, O_RDONLY, &size);
	long result;

	if (fd < 0)
		return fd;
	result = raw_syscall(SYS_mmap, NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	raw_syscall(SYS_close, fd);
	return result < 0 ? result : 0;
}

void output_file_remove(const struct output_file *file)
{
	uint64_t size;
	long fd = output_file_reopen(file, O_RDONLY, &size);

	if (fd < 0)
		return;
	raw_syscall(SYS_unlinkat, AT_FDCWD, file->path, 0);
	raw_syscall(SYS_close, fd);
}
