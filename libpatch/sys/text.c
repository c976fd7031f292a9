/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sys/text.h"

#include "base/heap.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "sys/process.h"
#include "base/sort.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* Joining writes costs reading and rewriting what lies between them, and saves system calls. */
#define RUN_MAX 65536
/* Descriptors are handed out from the lowest number up: up here the program's files hardly ever come by. */
#define HIGH_DESCRIPTOR 900

static enum text_way way;
static bool writable_executable;
static const char *refusal;
static _Atomic uint64_t write_count;
static uint8_t run_bytes[RUN_MAX] __attribute__((aligned(64)));

enum text_way text_way(void)
{
	return way;
}

void text_set_way(enum text_way chosen)
{
	way = chosen;
}

static enum text_way way_before;

void text_begin_whole(void)
{
	way_before = way;
	if (!process_has_one_thread())
		way = TEXT_PAGE_SWAP;
}

void text_end_whole(void)
{
	way = way_before;
}

uint64_t text_write_count(void)
{
	return atomic_load_explicit(&write_count, memory_order_relaxed);
}

/*
 * All by the calling thread, not the process: /proc/self and the process id are those of the main thread, which has no
 * memory any more once it has ended by pthread_exit(). Where process_vm_readv() is filtered:
 */
static long read_proc_mem(uintptr_t address, void *buffer, size_t size)
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

void text_trust(uintptr_t lower, uintptr_t upper)
{
	trusted_lower = lower;
	trusted_upper = upper;
}

size_t text_read(uintptr_t address, void *buffer, size_t size, int *error)
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
		got = read_proc_mem(address, buffer, size);
	/* Some kernels read nothing when the end is not mapped. */
	if (got == -EFAULT && ALIGN_DOWN(address, PAGE_SIZE) != ALIGN_DOWN(address + size - 1, PAGE_SIZE))
		return text_read(address, buffer, ALIGN_UP(address + 1, PAGE_SIZE) - address, error);
	*error = got < 0 ? (int)-got : EFAULT;
	return got < 0 ? 0 : (size_t)got;
}

/* ---- the three ways --------------------------------------------------------------------------------------------- */

/* /proc/self/mem, open for one batch, or between text_begin() and text_end(); or another file of ours. */
struct mem {
	long fd; /* or -errno */
	uint64_t device;
	uint64_t inode;
};

/* 0 or -errno. */
static long identify(long fd, uint64_t *device, uint64_t *inode)
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

/* Somebody may have closed the descriptor, and the program may have got its number for a file of its own. */
static bool is_ours(const struct mem *mem)
{
	uint64_t device, inode;
	long error = mem->fd >= 0 ? identify(mem->fd, &device, &inode) : mem->fd;

	/* Where the kernel has stopped to tell, it is not known to be anybody else's. */
	return error == 0 ? device == mem->device && inode == mem->inode : mem->fd >= 0 && error != -EBADF;
}

/* What is not ours is not ours to close. */
static void close_mem(struct mem *mem)
{
	if (is_ours(mem))
		raw_syscall(SYS_close, mem->fd);
	mem->fd = -EBADF;
}

/* A descriptor that was just opened, or -errno. */
static void adopt(struct mem *mem, long fd)
{
	long high;

	mem->fd = fd;
	if (mem->fd < 0)
		return;
	if (identify(mem->fd, &mem->device, &mem->inode) != 0) {
		raw_syscall(SYS_close, mem->fd);
		mem->fd = -ENOTSUP;
		return;
	}
	high = raw_syscall(SYS_fcntl, mem->fd, F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR);
	if (high >= 0) {
		raw_syscall(SYS_close, mem->fd);
		mem->fd = high;
	}
}

static void open_mem(struct mem *mem)
{
	adopt(mem, raw_open("/proc/thread-self/mem", O_RDWR | O_CLOEXEC));
}

/* All or, where not every page is there, with EIO, part of it. */
static int write_proc_mem(struct mem *mem, uintptr_t address, const uint8_t *bytes, size_t length)
{
	long done;

	if (!is_ours(mem))
		open_mem(mem);
	if (mem->fd < 0)
		return (int)-mem->fd;
	done = raw_syscall(SYS_pwrite64, mem->fd, bytes, length, address);
	if (done < 0)
		return (int)-done;
	return (size_t)done == length ? 0 : EIO;
}

static int write_mprotect(uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);
	size_t size = ALIGN_UP(address + length, PAGE_SIZE) - page;
	long result = raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_WRITE | PROT_EXEC);

	if (result < 0)
		return (int)-result;
	memcpy((void *)address, bytes, length);
	/*
	 * Execute permission is there all the time. A mapping left writable would be allowed, too: no error. But not for a
	 * failure that passes.
	 */
	if (!writable && raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_EXEC) != 0)
		raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_EXEC);
	return 0;
}

/* 0 or -errno: the pages at `copy` are at `page` then. */
static long move_over(uintptr_t page, uintptr_t copy, size_t size)
{
	long result = raw_syscall(SYS_mremap, copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page);

	return result < 0 ? result : 0;
}

/* Where memory may not become executable (PR_SET_MDWE, and filters that do the same), it can be so from the start. */
static bool move_executable_over(uintptr_t page, const uint8_t *contents, size_t size)
{
	long copy = raw_syscall(SYS_mmap, NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem mem = { .fd = -EBADF };
	bool moved;

	if (copy < 0)
		return false;
	moved = write_proc_mem(&mem, (uintptr_t)copy, contents, size) == 0 && move_over(page, (uintptr_t)copy, size) == 0;
	close_mem(&mem);
	if (!moved)
		heap_unmap((uintptr_t)copy, size);
	return moved;
}

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1U
#endif

/* Where neither is allowed, or pages cannot be moved: a file without a name. To threads this is one step as well. */
static bool map_file_over(uintptr_t page, const uint8_t *contents, size_t size)
{
	struct mem file = { .fd = -EBADF };
	bool mapped;

	adopt(&file, raw_syscall(SYS_memfd_create, "libpatch", MFD_CLOEXEC));
	mapped = is_ours(&file) && raw_syscall(SYS_pwrite64, file.fd, contents, size, 0) == (long)size && is_ours(&file) &&
		 raw_syscall(SYS_mmap, page, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file.fd, 0) == (long)page;
	close_mem(&file);
	return mapped;
}

static int write_page_swap(uintptr_t address, const uint8_t *bytes, size_t length)
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
	/* Not by memcpy: somebody may have unmapped it. */
	if (text_read(page, copy, size, &error) != size) {
		heap_unmap((uintptr_t)copy, size);
		return error;
	}
	memcpy(copy + (address - page), bytes, length);
	result = raw_syscall(SYS_mprotect, copy, size, PROT_READ | PROT_EXEC);
	if (result == 0)
		result = move_over(page, (uintptr_t)copy, size);
	else if (move_executable_over(page, copy, size))
		result = 1;
	if (result < 0 && map_file_over(page, copy, size))
		result = 1;
	if (result != 0)
		heap_unmap((uintptr_t)copy, size);
	return result < 0 ? (int)-result : 0;
}

static int write_by(enum text_way by, struct mem *mem, uintptr_t address, const uint8_t *bytes, size_t length,
		    bool writable)
{
	switch (by) {
	case TEXT_PROC_MEM:
		return write_proc_mem(mem, address, bytes, length);
	case TEXT_MPROTECT:
		return write_mprotect(address, bytes, length, writable);
	case TEXT_PAGE_SWAP:
		/* What the program writes to the page meanwhile would be lost. */
		return writable ? ENOTSUP : write_page_swap(address, bytes, length);
	default:
		return ENOTSUP;
	}
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

/* On a page of our own. */
static bool works(enum text_way by)
{
	long page = raw_syscall(SYS_mmap, NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem mem = { .fd = -EBADF };
	bool result;

	if (page < 0) {
		refusal = "the kernel refuses executable memory, which generated code needs";
		heap_note_refusal(page);
		return false;
	}
	result = INJECT(INJECT_TEXT_WRITE) == 0 && write_by(by, &mem, page, (const uint8_t *)"\xCC", 1, false) == 0 &&
		 *(volatile uint8_t *)page == 0xCC;
	close_mem(&mem);
	heap_unmap((uintptr_t)page, PAGE_SIZE);
	return result;
}

/* The best way from `first` on that works. */
static enum text_way choose(enum text_way first)
{
	for (enum text_way by = first; by <= TEXT_PAGE_SWAP; ++by)
		if ((by != TEXT_MPROTECT || writable_executable) && works(by))
			return by;
	return TEXT_NONE;
}

patch_status text_init(bool allow_writable_executable)
{
	static const uint8_t byte = 0xA5;
	uint8_t seen = 0;
	int error;

	writable_executable = allow_writable_executable;
	refusal = "the kernel refuses process_vm_readv() and reading /proc/self/mem, by which text is compared";
	if (text_read((uintptr_t)&byte, &seen, 1, &error) != 1)
		return PATCH_ENOTSUP;
	refusal = "the kernel lets text be written neither through /proc/self/mem nor by other means";
	way = choose(TEXT_PROC_MEM);
	return way == TEXT_NONE ? PATCH_ENOTSUP : PATCH_OK;
}

const char *text_refusal(void)
{
	return refusal;
}

/* ---- batches ---------------------------------------------------------------------------------------------------- */

/*
 * May the run that ends at `end` take in the next write? Adjacent ones always, others when no page between them is without
 * writes. `page`: only within the same one.
 */
static bool joins(uintptr_t start, uintptr_t end, bool no_rmw, const struct text_write *next, bool page)
{
	uintptr_t last = ALIGN_DOWN(end - 1, PAGE_SIZE);

	if (next->address + next->length - start > RUN_MAX)
		return false;
	if (next->address == end)
		return true;
	return !no_rmw && !next->no_rmw && ALIGN_DOWN(next->address, PAGE_SIZE) <= last + (page ? 0 : PAGE_SIZE);
}

static struct mem mem = { .fd = -EBADF };
static bool kept;

void text_begin(void)
{
	close_mem(&mem);
	kept = true;
}

void text_end(void)
{
	kept = false;
	close_mem(&mem);
}

/*
 * A way that fails on a page of ours, too, has stopped working: a filter came, privileges went, descriptors ran out. One
 * that fails at `address` only fails for a reason of that mapping, which another way must not get around.
 */
static int write_run(enum text_way *by, uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
{
	int error = INJECT(INJECT_TEXT_WRITE);

	if (error)
		return error;
	atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
	error = write_by(*by, &mem, address, bytes, length, writable);
	while (error != 0 && *by != TEXT_NONE && *by != TEXT_PAGE_SWAP && !works(*by)) {
		enum text_way next = choose(*by + 1);

		if (next == TEXT_NONE)
			return error;
		*by = next;
		error = write_by(next, &mem, address, bytes, length, writable);
	}
	return error;
}

/* Is it in memory? What was written to a file of the program's is not. */
static bool arrived(uintptr_t address, const uint8_t *bytes, size_t length)
{
	static uint8_t seen[RUN_MAX];
	int error;

	/* Where memory cannot be read in any way, the kernel's word must do. */
	if (text_read(address, seen, length, &error) != length)
		return error != EFAULT;
	return memcmp(seen, bytes, length) == 0;
}

/*
 * Into run_bytes: what is there, and in it what is to be written. Writes that find something unexpected are marked. `again`:
 * they may have been done as part of a longer run. *sample: one that changes something.
 */
static int join(struct text_write *writes, size_t n, uintptr_t start, uintptr_t end, bool again,
		const struct text_write **sample)
{
	int error = 0;

	if (text_read(start, run_bytes, end - start, &error) != end - start)
		return error;
	for (size_t i = 0; i < n; ++i) {
		const struct text_write *write = &writes[i];
		uint8_t *bytes = run_bytes + (write->address - start);
		bool there = (again || *sample == NULL) && memcmp(bytes, write->bytes, write->length) == 0;

		if (write->expected != NULL && memcmp(bytes, write->expected, write->length) != 0 && !(again && there)) {
			writes[i].error = ESTALE;
			continue;
		}
		if (*sample == NULL && !there)
			*sample = write;
		memcpy(bytes, write->bytes, write->length);
	}
	return 0;
}

static int write_joined(enum text_way *by, struct text_write *writes, size_t n, uintptr_t start, uintptr_t end,
			bool again)
{
	const uint8_t *bytes = writes[0].bytes;
	const struct text_write *sample = NULL;
	int error = 0;

	if (n > 1 || writes[0].expected != NULL) {
		error = join(writes, n, start, end, again, &sample);
		/* As in arrived(). */
		if (error != 0 && (n > 1 || error == EFAULT))
			return error;
		if (n == 1 && writes[0].error != 0)
			return writes[0].error;
		if (n > 1)
			bytes = run_bytes;
	}
	error = write_run(by, start, bytes, end - start, writes[0].no_rmw);
	/* Where the mapping is writable, the program may be changing it. */
	if (error != 0 || *by != TEXT_PROC_MEM || writes[0].no_rmw)
		return error;
	/* It was one system call: all of it went where some did. */
	if (sample != NULL)
		return arrived(sample->address, sample->bytes, sample->length) ? 0 : EIO;
	return arrived(start, bytes, end - start) ? 0 : EIO;
}

enum extent { PAGES, ONE_PAGE, ONE_PAGE_AGAIN };

/* Perform writes[0 .. result) as one run; *failed grows by those that were not. */
static size_t apply_run(enum text_way *by, struct text_write *writes, size_t count, enum extent extent, size_t *failed)
{
	uintptr_t start = writes[0].address;
	uintptr_t end = start + writes[0].length;
	size_t n = 1;
	int error;

	writes[0].error = 0;
	while (n < count && joins(start, end, writes[n - 1].no_rmw, &writes[n], extent != PAGES)) {
		end = writes[n].address + writes[n].length;
		writes[n].error = 0;
		++n;
	}
	error = write_joined(by, writes, n, start, end, extent == ONE_PAGE_AGAIN);
	if ((error == EIO || error == EFAULT) && extent == PAGES &&
	    ALIGN_DOWN(start, PAGE_SIZE) != ALIGN_DOWN(end - 1, PAGE_SIZE)) {
		/* A page that is not there must not fail the others. */
		for (size_t i = 0; i < n;)
			i += apply_run(by, writes + i, n - i, ONE_PAGE_AGAIN, failed);
		return n;
	}
	for (size_t i = 0; i < n; ++i) {
		if (writes[i].error == 0)
			writes[i].error = error;
		*failed += writes[i].error != 0;
	}
	return n;
}

void text_touch(uintptr_t lower, uintptr_t upper)
{
	static uint8_t zeros[RUN_MAX];
	size_t length;

	for (; way == TEXT_PROC_MEM && lower < upper; lower += length) {
		length = MIN(upper - lower, sizeof(zeros));
		(void)write_proc_mem(&mem, lower, zeros, length);
	}
}

size_t text_apply(struct text_write *writes, size_t count)
{
	/* It may stop working in the middle of a batch, and is back in favour with the next. */
	enum text_way by = way;
	size_t failed = 0;

	if (count == 0)
		return 0;
	sort_by_address(writes, count, sizeof(*writes));
	for (size_t i = 0; i < count;)
		i += apply_run(&by, writes + i, count - i, by == TEXT_PAGE_SWAP ? ONE_PAGE : PAGES, &failed);
	if (!kept)
		close_mem(&mem);
	return failed;
}
