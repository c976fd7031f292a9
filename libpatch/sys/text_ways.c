/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three ways of writing to pages that are not writable, and which of them work here. text.h tells them apart, and
 * text.c decides when which one is used.
 */
#include "sys/text_ways.h"

#include "arch/translator.h"
#include "base/heap.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "sys/mem_read.h"
#include "sys/own_proc.h"
#include "sys/tasks.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/*
 * Descriptors are handed out from the lowest number up: the program's files hardly ever have numbers as high as this.
 */
#define HIGH_DESCRIPTOR 900

bool text_may_be_writable_executable;
const char *text_way_refusal;

/* 0 or -errno. */
static long text_mem_identify(long fd, uint64_t *device, uint64_t *inode)
{
	struct stat status = { 0 };
	long error = raw_syscall(SYS_fstat, fd, &status);

	/* As libc asks: a filter may know one of the two only. */
	if (error != 0 && error != -EBADF)
		error = raw_syscall(SYS_newfstatat, fd, "", &status, AT_EMPTY_PATH);
	*device = status.st_dev;
	*inode = status.st_ino;
	return error;
}

/*
 * The program may have closed the descriptor, and may have got its number for a file of its own. Where the kernel has
 * ceased to tell (a filter came), the descriptor is taken for ours.
 */
static bool text_mem_is_ours(const struct text_mem *mem)
{
	uint64_t device, inode;
	long error = mem->fd >= 0 ? text_mem_identify(mem->fd, &device, &inode) : mem->fd;

	return error == 0 ? device == mem->device && inode == mem->inode : mem->fd >= 0 && error != -EBADF;
}

void text_mem_close(struct text_mem *mem)
{
	if (text_mem_is_ours(mem))
		raw_syscall(SYS_close, mem->fd);
	mem->fd = -EBADF;
}

/*
 * While there are other threads, to enlarge the table of descriptors the kernel waits for a grace period of RCU, some
 * ticks (fs/file.c, expand_fdtable()). So the number is the last one of the table, if that is lower. The program has
 * not had it before, unless it has had as many files as there was room for, and not one more: then the table doubles.
 */
static long text_mem_high_number(void)
{
	size_t room = tasks_is_single() ? 0 : tasks_descriptors();

	return room > 0 ? (long)MIN(room - 1, HIGH_DESCRIPTOR) : HIGH_DESCRIPTOR;
}

/* Take over a descriptor that was just opened, or -errno, and move it to a high number. */
static void text_mem_adopt(struct text_mem *mem, long fd)
{
	static long number;
	long high;

	mem->fd = fd;
	if (mem->fd < 0)
		return;
	if (text_mem_identify(mem->fd, &mem->device, &mem->inode) != 0) {
		raw_syscall(SYS_close, mem->fd);
		mem->fd = -ENOTSUP;
		return;
	}
	if (number == 0)
		number = text_mem_high_number();
	high = raw_syscall(SYS_fcntl, mem->fd, F_DUPFD_CLOEXEC, number);
	/* The program's files have come as far: the table may have grown. */
	if (high != number)
		number = 0;
	if (high >= 0) {
		raw_syscall(SYS_close, mem->fd);
		mem->fd = high;
	}
}

static void text_mem_open(struct text_mem *mem)
{
	text_mem_adopt(mem, own_proc_open("mem", O_RDWR | O_CLOEXEC));
}

int text_write_proc_mem(struct text_mem *mem, uintptr_t address, const uint8_t *bytes, size_t length)
{
	long done;

	if (!text_mem_is_ours(mem))
		text_mem_open(mem);
	if (mem->fd < 0)
		return (int)-mem->fd;
	done = raw_syscall(SYS_pwrite64, mem->fd, bytes, length, address);
	if (done < 0)
		return (int)-done;
	return (size_t)done == length ? 0 : EIO;
}

static int text_write_mprotect(uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);
	size_t size = ALIGN_UP(address + length, PAGE_SIZE) - page;
	long result = raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_WRITE | PROT_EXEC);

	if (result < 0)
		return (int)-result;
	memcpy((void *)address, bytes, length);
	/*
	 * The page stays executable all the time. The program allows pages that are writable and executable, so a
	 * failure to take write permission away is no error; a second try is for failures that pass, such as ENOMEM.
	 */
	if (!writable && raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_EXEC) != 0)
		raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_EXEC);
	return 0;
}

/* Move the pages at `copy` to `page`. Returns 0 or -errno. */
static long text_move_over(uintptr_t page, uintptr_t copy, size_t size)
{
	long result = raw_syscall(SYS_mremap, copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page);

	return result < 0 ? result : 0;
}

/*
 * Where memory may not become executable (PR_SET_MDWE, and filters that do the same), memory that is executable from
 * the start is filled through /proc/self/mem.
 */
static bool text_move_executable_over(uintptr_t page, const uint8_t *contents, size_t size)
{
	long copy = raw_syscall(SYS_mmap, NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct text_mem mem = { .fd = -EBADF };
	bool moved;

	if (copy < 0)
		return false;
	moved = text_write_proc_mem(&mem, (uintptr_t)copy, contents, size) == 0 &&
		text_move_over(page, (uintptr_t)copy, size) == 0;
	text_mem_close(&mem);
	if (!moved)
		heap_unmap((uintptr_t)copy, size);
	return moved;
}

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1U
#endif

/*
 * Where memory can be made executable by neither means, or pages cannot be moved, a file without a name is mapped over
 * the pages, which threads see as one step as well.
 */
static bool text_map_file_over(uintptr_t page, const uint8_t *contents, size_t size)
{
	struct text_mem file = { .fd = -EBADF };
	bool mapped;

	text_mem_adopt(&file, raw_syscall(SYS_memfd_create, "libpatch", MFD_CLOEXEC));
	mapped = text_mem_is_ours(&file) &&
		 raw_syscall(SYS_pwrite64, file.fd, contents, size, 0) == (long)size && text_mem_is_ours(&file) &&
		 raw_syscall(SYS_mmap, page, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file.fd, 0) ==
			 (long)page;
	text_mem_close(&file);
	return mapped;
}

static int text_write_page_swap(uintptr_t address, const uint8_t *bytes, size_t length)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);
	size_t size = ALIGN_UP(address + length, PAGE_SIZE) - page;
	uint8_t *copy = heap_map(size);
	long result;
	int error;

	if (copy == NULL) {
		result = heap_take_refusal();
		return result != 0 ? (int)-result : ENOMEM;
	}
	heap_disown(size);
	/* Not by memcpy(): the program may have unmapped the page. */
	if (mem_read(page, copy, size, &error) != size) {
		heap_unmap((uintptr_t)copy, size);
		return error;
	}
	memcpy(copy + (address - page), bytes, length);
	result = raw_syscall(SYS_mprotect, copy, size, PROT_READ | PROT_EXEC);
	if (result == 0)
		result = text_move_over(page, (uintptr_t)copy, size);
	else if (text_move_executable_over(page, copy, size))
		result = 1;
	if (result < 0 && text_map_file_over(page, copy, size))
		result = 1;
	if (result != 0)
		heap_unmap((uintptr_t)copy, size);
	return result < 0 ? (int)-result : 0;
}

int text_way_write(enum text_way by, struct text_mem *mem, uintptr_t address, const uint8_t *bytes, size_t length,
		    bool writable)
{
	int error = ENOTSUP;

	/*
	 * Pages that the program has made unreadable for the moment keep their protection, which the other ways would
	 * set.
	 */
	if (by != TEXT_PROC_MEM && !mem_is_readable(address, address + length))
		return EACCES;
	if (by == TEXT_PROC_MEM)
		error = text_write_proc_mem(mem, address, bytes, length);
	else if (by == TEXT_MPROTECT)
		error = text_write_mprotect(address, bytes, length, writable);
	/* Where the program can write to the page, what it writes while the copy is made would be lost. */
	else if (by == TEXT_PAGE_SWAP && !writable)
		error = text_write_page_swap(address, bytes, length);
	/* Whatever it has come to: what failed may have been written in part. */
	arch_code_changed(address, length);
	return error;
}

bool text_way_works(enum text_way by)
{
	long page = raw_syscall(SYS_mmap, NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct text_mem mem = { .fd = -EBADF };
	bool result;

	if (page < 0) {
		text_way_refusal = "the kernel refuses executable memory, which generated code needs";
		heap_note_refusal(page);
		return false;
	}
	result = INJECT(INJECT_TEXT_WRITE) == 0 &&
		 text_way_write(by, &mem, page, (const uint8_t *)"\xCC", 1, false) == 0 &&
		 *(volatile uint8_t *)page == 0xCC;
	text_mem_close(&mem);
	heap_unmap((uintptr_t)page, PAGE_SIZE);
	return result;
}

/* The best way from `first` on that text_way_works. */
enum text_way text_way_choose(enum text_way first)
{
	for (enum text_way by = first; by <= TEXT_PAGE_SWAP; ++by)
		if ((by != TEXT_MPROTECT || text_may_be_writable_executable) && text_way_works(by))
			return by;
	return TEXT_NONE;
}
