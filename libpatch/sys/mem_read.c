/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading memory of this process that may not be mapped: the kernel copies it, so that a bad address is an error and no
 * fault. Nothing here writes memory of the program.
 */
#include "sys/mem_read.h"

#include "base/syscall.h"
#include "sys/own_proc.h"

#include <string.h>
#include <sys/uio.h>

/*
 * Reads by /proc: where a seccomp filter refuses process_vm_readv(), and pages without read permission, which the
 * kernel reads by force here, as a rule. Both ways name the calling thread, not the process (own_proc.h).
 */
static long mem_read_by_file(uintptr_t address, void *buffer, size_t size)
{
	long fd = own_proc_open("mem", O_RDONLY | O_CLOEXEC);
	long got;

	if (fd < 0)
		return fd;
	got = raw_syscall(SYS_pread64, fd, buffer, size, address);
	raw_syscall(SYS_close, fd);
	return got == -EIO ? -EFAULT : got;
}

static uintptr_t trusted_lower;
static uintptr_t trusted_upper;

static long mem_read_by_call(uintptr_t address, void *buffer, size_t size)
{
	struct iovec local = { buffer, size };
	struct iovec remote = { (void *)address, size };

	return raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, &remote, 1, 0);
}

/*
 * Why nothing can be read at the address: EFAULT when nothing is mapped there, which the kernel tells whatever the
 * protection of what is mapped. Where the kernel cannot be asked, memory counts as mapped: what is taken for gone
 * wrongly is harmful, what is kept is not.
 */
static int mem_reason(uintptr_t address)
{
	unsigned char resident;

	return raw_syscall(SYS_mincore, ALIGN_DOWN(address, PAGE_SIZE), PAGE_SIZE, &resident) == -ENOMEM ? EFAULT :
													  EACCES;
}

/* What is on one page: bytes read, or -errno. */
static long mem_read_page(uintptr_t address, void *buffer, size_t size, bool by_force)
{
	long got = mem_read_by_call(address, buffer, size);

	if (got > 0 || (got == -EFAULT && (!by_force || mem_reason(address) == EFAULT)))
		return got;
	got = mem_read_by_file(address, buffer, size);
	return got == -EFAULT ? -mem_reason(address) : got;
}

/* It takes a tenth of the time of gettid() and process_vm_readv(), and most functions are on one page. */
bool mem_is_readable(uintptr_t lower, uintptr_t upper)
{
	if (lower >= trusted_lower && upper <= trusted_upper)
		return true;
	for (uintptr_t page = ALIGN_DOWN(lower, PAGE_SIZE); page < upper; page += PAGE_SIZE)
		if (!raw_is_readable(page))
			return false;
	return true;
}

void mem_trust(uintptr_t lower, uintptr_t upper)
{
	if (lower < upper && lower >= trusted_lower && upper <= trusted_upper)
		return;
	trusted_lower = 0;
	trusted_upper = 0;
	if (lower >= upper || !mem_is_readable(lower, upper))
		return;
	trusted_lower = lower;
	trusted_upper = upper;
}

static size_t mem_read_as(uintptr_t address, void *buffer, size_t size, bool by_force, int *error)
{
	size_t done = 0;
	long got;

	if (address >= trusted_lower && address < trusted_upper && size <= trusted_upper - address) {
		memcpy(buffer, (const void *)address, size);
		return size;
	}
	got = mem_read_by_call(address, buffer, size);
	if (got > 0)
		done = got;
	/* The rest page by page: some kernels read nothing at all when the end of the range cannot be read. */
	while (done < size) {
		uintptr_t at = address + done;

		got = mem_read_page(at, (uint8_t *)buffer + done, MIN(size - done, PAGE_SIZE - at % PAGE_SIZE),
				    by_force);
		if (got <= 0) {
			*error = got < 0 ? (int)-got : EFAULT;
			break;
		}
		done += got;
	}
	return done;
}

size_t mem_read(uintptr_t address, void *buffer, size_t size, int *error)
{
	return mem_read_as(address, buffer, size, true, error);
}

size_t mem_read_readable(uintptr_t address, void *buffer, size_t size)
{
	int ignored;

	return mem_read_as(address, buffer, size, false, &ignored);
}
