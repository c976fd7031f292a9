/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "text.h"

#include "heap.h"
#include "inject.h"
#include "process.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* Joining two writes of one page costs reading and rewriting what lies between them. */
#define RUN_MAX 65536

static enum text_way way;
static _Atomic uint64_t write_count;
static uint8_t run_bytes[RUN_MAX] __attribute__((aligned(64)));

struct text_staged {
	struct text_staged *next;
	struct text_staged **link;
	uintptr_t address;
	uint32_t length;
	uint8_t bytes[];
};

static struct text_staged *staged_list;
static size_t staged_count;
static uint64_t flush_epoch;

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
	long fd = raw_syscall(SYS_open, "/proc/thread-self/mem", O_RDONLY | O_CLOEXEC, 0);
	long got;

	if (fd < 0)
		return fd;
	got = raw_syscall(SYS_pread64, fd, buffer, size, address);
	raw_syscall(SYS_close, fd);
	return got == -EIO ? -EFAULT : got;
}

size_t text_read(uintptr_t address, void *buffer, size_t size, int *error)
{
	struct iovec local = { buffer, size };
	struct iovec remote = { (void *)address, size };
	long got = raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, &remote, 1, 0);

	if (got < 0 && got != -EFAULT)
		got = read_proc_mem(address, buffer, size);
	/* Some kernels read nothing when the end is not mapped. */
	if (got == -EFAULT && ALIGN_DOWN(address, PAGE_SIZE) != ALIGN_DOWN(address + size - 1, PAGE_SIZE))
		return text_read(address, buffer, ALIGN_UP(address + 1, PAGE_SIZE) - address, error);
	*error = got < 0 ? (int)-got : EFAULT;
	return got < 0 ? 0 : (size_t)got;
}

/* ---- the three ways --------------------------------------------------------------------------------------------- */

static int write_proc_mem(int fd, uintptr_t address, const uint8_t *bytes, size_t length)
{
	while (length > 0) {
		long done = raw_syscall(SYS_pwrite64, fd, bytes, length, address);

		if (done <= 0)
			return done < 0 ? (int)-done : EIO;
		address += done;
		bytes += done;
		length -= done;
	}
	return 0;
}

static int write_mprotect(uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);
	size_t size = ALIGN_UP(address + length, PAGE_SIZE) - page;
	long result = raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_WRITE | PROT_EXEC);

	if (result < 0)
		return (int)-result;
	memcpy((void *)address, bytes, length);
	/* Execute permission is there all the time. A mapping left writable would be allowed, too: no error. */
	if (!writable)
		raw_syscall(SYS_mprotect, page, size, PROT_READ | PROT_EXEC);
	return 0;
}

static int write_page_swap(uintptr_t address, const uint8_t *bytes, size_t length)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);
	size_t size = ALIGN_UP(address + length, PAGE_SIZE) - page;
	uint8_t *copy = heap_map(size);
	long result;
	int error;

	if (copy == NULL)
		return ENOMEM;
	/* Not by memcpy: somebody may have unmapped it. */
	if (text_read(page, copy, size, &error) != size) {
		raw_syscall(SYS_munmap, copy, size);
		return error;
	}
	memcpy(copy + (address - page), bytes, length);
	result = raw_syscall(SYS_mprotect, copy, size, PROT_READ | PROT_EXEC);
	if (result == 0)
		result = raw_syscall(SYS_mremap, copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, page);
	if (result < 0) {
		raw_syscall(SYS_munmap, copy, size);
		return (int)-result;
	}
	return 0;
}

static int write_run(int fd, uintptr_t address, const uint8_t *bytes, size_t length, bool writable)
{
	int injected = INJECT(INJECT_TEXT_WRITE);

	if (injected)
		return injected;
	atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
	switch (way) {
	case TEXT_PROC_MEM:
		return write_proc_mem(fd, address, bytes, length);
	case TEXT_MPROTECT:
		return write_mprotect(address, bytes, length, writable);
	case TEXT_PAGE_SWAP:
		/* What the program writes to the page meanwhile would be lost. */
		return writable ? ENOTSUP : write_page_swap(address, bytes, length);
	default:
		return ENOTSUP;
	}
}

/* ---- batches ---------------------------------------------------------------------------------------------------- */

static void sift_down(struct text_write *writes, size_t root, size_t count)
{
	for (;;) {
		size_t child = 2 * root + 1;
		struct text_write swap;

		if (child >= count)
			return;
		if (child + 1 < count && writes[child + 1].address > writes[child].address)
			++child;
		if (writes[root].address >= writes[child].address)
			return;
		swap = writes[root];
		writes[root] = writes[child];
		writes[child] = swap;
		root = child;
	}
}

static void reverse(struct text_write *writes, size_t count)
{
	for (size_t i = 0, k = count - 1; i < k; ++i, --k) {
		struct text_write swap = writes[i];

		writes[i] = writes[k];
		writes[k] = swap;
	}
}

/* Heapsort: in place, no recursion. Batches mostly come sorted, up or down: those take one pass. */
static void sort(struct text_write *writes, size_t count)
{
	size_t i = 1;

	if (count > 1 && writes[0].address > writes[count - 1].address)
		reverse(writes, count);
	while (i < count && writes[i - 1].address <= writes[i].address)
		++i;
	if (i >= count)
		return;
	for (i = count / 2; i-- > 0;)
		sift_down(writes, i, count);
	for (i = count; i-- > 1;) {
		struct text_write swap = writes[0];

		writes[0] = writes[i];
		writes[i] = swap;
		sift_down(writes, 0, i);
	}
}

/* May the run that ends at `end` take in the next write? Adjacent ones always, others within the same page. */
static bool joins(uintptr_t start, uintptr_t end, bool exact, const struct text_write *next)
{
	if (next->address + next->length - start > RUN_MAX)
		return false;
	if (next->address == end)
		return true;
	return !exact && !next->exact && ALIGN_DOWN(end - 1, PAGE_SIZE) == ALIGN_DOWN(next->address, PAGE_SIZE);
}

/* Perform writes[0 .. result) as one run. */
static size_t apply_run(int fd, struct text_write *writes, size_t count)
{
	uintptr_t start = writes[0].address;
	uintptr_t end = start + writes[0].length;
	size_t n = 1;
	int error;

	while (n < count && joins(start, end, writes[n - 1].exact, &writes[n])) {
		end = writes[n].address + writes[n].length;
		++n;
	}

	if (n == 1) {
		error = write_run(fd, start, writes[0].bytes, writes[0].length, writes[0].exact);
	} else if (text_read(start, run_bytes, end - start, &error) == end - start) {
		for (size_t i = 0; i < n; ++i)
			memcpy(run_bytes + (writes[i].address - start), writes[i].bytes, writes[i].length);
		error = write_run(fd, start, run_bytes, end - start, writes[0].exact);
	}
	for (size_t i = 0; i < n; ++i)
		writes[i].error = error;
	return n;
}

size_t text_apply(struct text_write *writes, size_t count)
{
	size_t failed = 0;
	long fd = -1;

	if (count == 0)
		return 0;
	sort(writes, count);
	if (way == TEXT_PROC_MEM) {
		fd = raw_syscall(SYS_open, "/proc/thread-self/mem", O_RDWR | O_CLOEXEC, 0);
		if (fd < 0) {
			for (size_t i = 0; i < count; ++i)
				writes[i].error = (int)-fd;
			return count;
		}
	}
	for (size_t i = 0; i < count;) {
		size_t n = apply_run((int)fd, writes + i, count - i);

		if (writes[i].error != 0)
			failed += n;
		i += n;
	}
	if (fd >= 0)
		raw_syscall(SYS_close, fd);
	return failed;
}

/* ---- staging ---------------------------------------------------------------------------------------------------- */

struct text_staged *text_stage(uintptr_t address, const void *bytes, uint32_t length)
{
	struct text_staged *staged = heap_alloc(sizeof(*staged) + length);

	if (staged == NULL)
		return NULL;
	staged->address = address;
	staged->length = length;
	memcpy(staged->bytes, bytes, length);
	staged->next = staged_list;
	staged->link = &staged_list;
	if (staged_list != NULL)
		staged_list->link = &staged->next;
	staged_list = staged;
	++staged_count;
	return staged;
}

void text_unstage(struct text_staged *staged)
{
	*staged->link = staged->next;
	if (staged->next != NULL)
		staged->next->link = staged->link;
	--staged_count;
	heap_free(staged, sizeof(*staged) + staged->length);
}

int text_flush(void)
{
	size_t size = staged_count * sizeof(struct text_write);
	struct text_write *writes;
	size_t n = 0;
	int error = 0;

	if (staged_count == 0)
		return 0;
	writes = heap_alloc(size);
	if (writes == NULL)
		return ENOMEM;
	for (struct text_staged *staged = staged_list; staged != NULL; staged = staged->next) {
		writes[n].address = staged->address;
		writes[n].bytes = staged->bytes;
		writes[n].length = staged->length;
		++n;
	}
	if (text_apply(writes, n) != 0) {
		for (size_t i = 0; i < n && error == 0; ++i)
			error = writes[i].error;
	} else {
		while (staged_list != NULL)
			text_unstage(staged_list);
		++flush_epoch;
	}
	heap_free(writes, size);
	return error;
}

uint64_t text_flush_epoch(void)
{
	return flush_epoch;
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

static bool works(enum text_way candidate, volatile uint8_t *page)
{
	struct text_write write = { .address = (uintptr_t)page, .bytes = (const uint8_t *)"\xCC", .length = 1 };

	way = candidate;
	return text_apply(&write, 1) == 0 && *page == 0xCC;
}

patch_status text_init(bool allow_writable_executable)
{
	static const enum text_way ways[] = { TEXT_PROC_MEM, TEXT_MPROTECT, TEXT_PAGE_SWAP };
	enum text_way found = TEXT_NONE;

	for (size_t i = 0; i < ARRAY_SIZE(ways) && found == TEXT_NONE; ++i) {
		long page;

		if (ways[i] == TEXT_MPROTECT && !allow_writable_executable)
			continue;
		page = raw_syscall(SYS_mmap, NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				   0);
		if (page < 0)
			break;
		if (works(ways[i], (volatile uint8_t *)page))
			found = ways[i];
		raw_syscall(SYS_munmap, page, PAGE_SIZE);
	}
	way = found;
	return found == TEXT_NONE ? PATCH_ENOTSUP : PATCH_OK;
}
