/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading memory of this process that may not be mapped: the kernel copies it, so that a bad address is an error and no
 * fault. Nothing here writes memory of the program.
 */
#include "sys/mem_read.h"

#include "base/syscall.h"

#include <string.h>
#include <sys/uio.h>

/*
 * Reads by /proc, for where a seccomp filter refuses process_vm_readv(). Both ways name the calling thread, not the
 * process: /proc/self and the process id are those of the main thread, which has no memory any more once it has ended
 * by pthread_exit().
 */
static long mem_read_by_file(uintptr_t address, void *buffer, size_t size)
{
	long fd = raw_open("/proc/thread-self/mem", O_RDONLY | O_CLOEXEC);
	long got;

	if (fd < 0)
		return fd;
	got = raw_syscall(SYS_pread64, fd, buffer, size, address);
	raw_syscall(SYS_close, fd);
	return got == -EIO ? -EFAULT : got;
}

static uintptr_t trusted_lower;
static uintptr_t trusted_upper;

void mem_trust(uintptr_t lower, uintptr_t upper)
{
	trusted_lower = lower;
	trusted_upper = upper;
}

size_t mem_read(uintptr_t address, void *buffer, size_t size, int *error)
{
	struct iovec local = { buffer, size };
	struct iovec remote = { (void *)address, size };
	long got;

	if (address >= trusted_lower && address < trusted_upper && size <= trusted_upper - address) {
		memcpy(buffer, (const void *)address, size);
		return size;
	}
	got = raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, &remote, 1, 0);
	if (got < 0 && got != -EFAULT)
		got = mem_read_by_file(address, buffer, size);
	/* Some kernels read nothing when the end of the range is not mapped: read up to the end of the first page. */
	if (got == -EFAULT && ALIGN_DOWN(address, PAGE_SIZE) != ALIGN_DOWN(address + size - 1, PAGE_SIZE))
		return mem_read(address, buffer, ALIGN_UP(address + 1, PAGE_SIZE) - address, error);
	*error = got < 0 ? (int)-got : EFAULT;
	return got < 0 ? 0 : (size_t)got;
}
