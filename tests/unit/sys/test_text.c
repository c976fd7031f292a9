/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing text, in each of the three ways: what is written, what is left alone, and what is told when it fails.
 */
#include "base/inject.h"
#include "sys/mem_read.h"
#include "sys/tasks.h"
#include "sys/text.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGES 40
#define RX (PROT_READ | PROT_EXEC)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static const struct {
	enum text_way way;
	const char *name;
} ways[] = {
	{ TEXT_PROC_MEM, "/proc/self/mem" },
	{ TEXT_MPROTECT, "mprotect" },
	{ TEXT_PAGE_SWAP, "page swap" },
};

static const char *way_name;
/* What the text should hold. */
static uint8_t model[PAGES * PAGE_SIZE];
static uint32_t seed = 12345;

static uint32_t random_below(uint32_t limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % limit;
}

/* Fresh pages with known contents, an unmapped page on both sides. */
static uint8_t *map_text(size_t pages, int protection)
{
	uint8_t *text = mmap(NULL, (pages + 2) * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t i;

	cr_assert_neq(text, MAP_FAILED);
	munmap(text, PAGE_SIZE);
	munmap(text + (pages + 1) * PAGE_SIZE, PAGE_SIZE);
	text += PAGE_SIZE;
	for (i = 0; i < pages * PAGE_SIZE; i++)
		model[i] = text[i] = (uint8_t)(i * 7 + i / PAGE_SIZE);
	cr_assert_eq(mprotect(text, pages * PAGE_SIZE, protection), 0);
	return text;
}

static void unmap_text(uint8_t *text, size_t pages)
{
	munmap(text, pages * PAGE_SIZE);
}

static void use_way(size_t i)
{
	text_set_way(ways[i].way);
	way_name = ways[i].name;
}

static void expect_text(const uint8_t *text, size_t size, const char *what)
{
	size_t i;

	for (i = 0; i < size && text[i] == model[i]; i++)
		;
	cr_expect_eq(i, size, "%s, %s: at +%#zx is %#x, not %#x", way_name, what, i, i < size ? text[i] : 0,
		     i < size ? model[i] : 0);
}

static struct text_write make_write(uint8_t *text, size_t offset, const uint8_t *bytes, size_t length)
{
	memcpy(model + offset, bytes, length);
	return (struct text_write){
		.address = (uintptr_t)text + offset,
		.bytes = bytes,
		.length = (uint32_t)length,
		.error = -1,
	};
}

/* The protection of the mapping at address, as "r-xp", in `out`. */
static void protection_of(const void *address, char out[5])
{
	unsigned long lower, upper;
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	strcpy(out, "none");
	while (fgets(line, sizeof(line), maps) != NULL) {
		char protection[8];

		if (sscanf(line, "%lx-%lx %4s", &lower, &upper, protection) == 3 && (uintptr_t)address >= lower &&
		    (uintptr_t)address < upper)
			memcpy(out, protection, 5);
	}
	fclose(maps);
}

static void expect_protection(const void *address, const char *expected)
{
	char protection[5];

	protection_of(address, protection);
	cr_expect_str_eq(protection, expected, "%s: the page is %s, not %s", way_name, protection, expected);
}

static unsigned int count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

Test(text, one_write)
{
	static const uint8_t bytes[] = { 0xCC, 0x11, 0x22 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(3, RX);
		struct text_write write = make_write(text, PAGE_SIZE + 5, bytes, sizeof(bytes));

		use_way(i);
		cr_expect_eq(text_apply(&write, 1), 0, "%s", way_name);
		cr_expect_eq(write.error, 0, "%s: error %d", way_name, write.error);
		expect_text(text, 3 * PAGE_SIZE, "one write");
		expect_protection(text + PAGE_SIZE, "r-xp");
		unmap_text(text, 3);
	}
}

Test(text, nothing_to_write)
{
	cr_expect_eq(text_apply(NULL, 0), 0);
}

Test(text, across_pages)
{
	static uint8_t long_bytes[3 * PAGE_SIZE];
	static const uint8_t jump[] = { 0xE9, 0xCC, 0x01, 0x02, 0x03 };
	size_t i;

	memset(long_bytes, 0x5A, sizeof(long_bytes));
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(8, RX);
		struct text_write writes[] = {
			make_write(text, PAGE_SIZE - 1, jump, 5),
			make_write(text, 2 * PAGE_SIZE - 4, jump, 5),
			make_write(text, 3 * PAGE_SIZE, jump, 5),
			make_write(text, 3 * PAGE_SIZE + 100, long_bytes, sizeof(long_bytes)),
			make_write(text, 7 * PAGE_SIZE, jump, 1),
			make_write(text, 8 * PAGE_SIZE - 1, jump, 1),
		};

		use_way(i);
		cr_expect_eq(text_apply(writes, ARRAY_SIZE(writes)), 0);
		expect_text(text, 8 * PAGE_SIZE, "across pages");
		expect_protection(text, "r-xp");
		expect_protection(text + 8 * PAGE_SIZE - 1, "r-xp");
		unmap_text(text, 8);
	}
}

#define MANY 1200

static struct text_write many[MANY];
static uint8_t many_bytes[MANY][16];

/* Non-overlapping writes of 1 to 15 bytes all over the text, some of them adjacent. Returns how many. */
static size_t make_many(uint8_t *text, size_t size)
{
	size_t at = 0, n = 0, k;

	while (n < MANY) {
		size_t length = 1 + random_below(15);

		if (random_below(4) != 0)
			at += random_below(250);
		if (at + length > size)
			break;
		for (k = 0; k < length; k++)
			many_bytes[n][k] = (uint8_t)random_below(256);
		many[n] = make_write(text, at, many_bytes[n], length);
		many[n].cookie = (void *)(uintptr_t)many[n].address;
		at += length;
		n++;
	}
	return n;
}

static void swap_writes(struct text_write *a, struct text_write *b)
{
	struct text_write swap = *a;

	*a = *b;
	*b = swap;
}

enum order { ASCENDING, DESCENDING, SHUFFLED, NEARLY_ASCENDING, NEARLY_DESCENDING, ORDERS };

static void put_in_order(size_t count, enum order order)
{
	size_t i;

	if (order == DESCENDING || order == NEARLY_DESCENDING) {
		for (i = 0; i < count / 2; i++)
			swap_writes(&many[i], &many[count - 1 - i]);
	}
	if (order == NEARLY_ASCENDING || order == NEARLY_DESCENDING)
		swap_writes(&many[count / 3], &many[count / 2]);
	for (i = count; order == SHUFFLED && i-- > 1;)
		swap_writes(&many[i], &many[random_below((uint32_t)i + 1)]);
}

Test(text, batches_in_any_order)
{
	size_t i, k, n;
	int order;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		for (order = 0; order < ORDERS; order++) {
			uint8_t *text = map_text(PAGES, RX);

			n = make_many(text, PAGES * PAGE_SIZE);
			cr_assert_gt(n, 500);
			put_in_order(n, order);
			use_way(i);
			cr_expect_eq(text_apply(many, n), 0);
			expect_text(text, PAGES * PAGE_SIZE, "batch");
			for (k = 0; k < n; k++) {
				cr_assert_eq(many[k].error, 0);
				cr_assert_eq((uintptr_t)many[k].cookie, many[k].address);
				cr_assert(k == 0 || many[k - 1].address < many[k].address, "order %d: not sorted",
					  order);
			}
			unmap_text(text, PAGES);
		}
	}
}

/* Two writes are a case of their own for every way to sort. */
Test(text, small_batches_in_any_order)
{
	size_t count, k, round;

	use_way(0);
	for (count = 1; count < 9; count++) {
		for (round = 0; round < 40; round++) {
			uint8_t *text = map_text(1, RX);

			for (k = 0; k < count; k++) {
				many_bytes[k][0] = (uint8_t)(0xA0 + k);
				many[k] = make_write(text, k * 3, many_bytes[k], 2);
			}
			put_in_order(count, SHUFFLED);
			cr_expect_eq(text_apply(many, count), 0);
			expect_text(text, PAGE_SIZE, "small batch");
			for (k = 1; k < count; k++)
				cr_expect_lt(many[k - 1].address, many[k].address);
			unmap_text(text, 1);
		}
	}
}

/* Longer than the buffer that runs are put together in: many adjacent writes. */
Test(text, runs_longer_than_the_buffer)
{
	enum { PIECE = 4000, PIECES = PAGES * PAGE_SIZE / PIECE };
	static uint8_t piece[PIECE];
	size_t i, k;

	for (k = 0; k < PIECE; k++)
		piece[k] = (uint8_t)(k * 13);
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(PAGES, RX);

		for (k = 0; k < PIECES; k++)
			many[k] = make_write(text, k * PIECE, piece, PIECE);
		use_way(i);
		cr_expect_eq(text_apply(many, PIECES), 0);
		expect_text(text, PAGES * PAGE_SIZE, "long run");
		unmap_text(text, PAGES);
	}
}

/* ---- joining ---------------------------------------------------------------------------------------------------- */

static uint8_t *neighbour;

/* The program changes a byte between two writes while they are under way: its run is put together already. */
static int change_neighbour(enum inject_point point)
{
	if (point == INJECT_TEXT_WRITE && neighbour != NULL) {
		*neighbour = 0x77;
		neighbour = NULL;
	}
	return 0;
}

Test(text, near_writes_are_joined)
{
	static const uint8_t bytes[] = { 1, 2 };
	uint8_t *text = map_text(4, RX);
	struct text_write writes[] = {
		make_write(text, 10, bytes, 2),
		make_write(text, 100, bytes, 2),
		make_write(text, PAGE_SIZE - 3, bytes, 2),
		make_write(text, PAGE_SIZE + 1, bytes, 2), /* on the next page */
		make_write(text, 3 * PAGE_SIZE + 1, bytes, 2), /* a page without writes is in between */
	};
	uint64_t before = text_write_count();

	use_way(0);
	cr_expect_eq(text_apply(writes, ARRAY_SIZE(writes)), 0);
	cr_expect_eq(text_write_count() - before, 2, "%lu writes", text_write_count() - before);
	expect_text(text, 4 * PAGE_SIZE, "joined");
}

Test(text, exact_writes_leave_neighbours_alone)
{
	static const uint8_t bytes[] = { 1, 2 };
	uint8_t *text = map_text(1, RWX);
	struct text_write writes[] = {
		make_write(text, 10, bytes, 2),
		make_write(text, 100, bytes, 2), /* not joined to the one before */
		make_write(text, 102, bytes, 2), /* adjacent: joined */
		make_write(text, 110, bytes, 2),
	};
	uint64_t before = text_write_count();
	size_t i;

	for (i = 0; i < ARRAY_SIZE(writes); i++)
		writes[i].no_rmw = true;
	use_way(0);
	neighbour = text + 50;
	model[50] = 0x77;
	libpatch_inject = change_neighbour;
	cr_expect_eq(text_apply(writes, ARRAY_SIZE(writes)), 0);
	cr_expect_eq(text_write_count() - before, 3, "%lu writes", text_write_count() - before);
	expect_text(text, PAGE_SIZE, "exact");
}

/* One exact write is enough to keep two apart, whichever of them it is. */
Test(text, one_exact_write_of_two)
{
	static const uint8_t bytes[] = { 1, 2 };
	int which;

	for (which = 0; which < 2; which++) {
		uint8_t *text = map_text(1, RWX);
		struct text_write writes[] = { make_write(text, 10, bytes, 2), make_write(text, 100, bytes, 2) };

		writes[which].no_rmw = true;
		use_way(0);
		neighbour = text + 50;
		model[50] = 0x77;
		libpatch_inject = change_neighbour;
		cr_expect_eq(text_apply(writes, 2), 0);
		expect_text(text, PAGE_SIZE, which ? "second exact" : "first exact");
		unmap_text(text, 1);
	}
}

/*
 * A program that may write its code still may afterwards. Where a way cannot do that, it refuses and changes nothing.
 */
static void write_to_writable(size_t way)
{
	static const uint8_t bytes[] = { 0xCC };
	uint8_t *text = map_text(1, RWX);
	struct text_write write = make_write(text, 10, bytes, 1);

	write.no_rmw = true;
	use_way(way);
	if (text_apply(&write, 1) != 0) {
		cr_expect_neq(write.error, 0);
		model[10] = 70;
	}
	expect_text(text, PAGE_SIZE, "writable page");
	expect_protection(text, "rwxp");
}

Test(text, writable_pages_stay_writable_by_proc_mem)
{
	write_to_writable(0);
}

Test(text, writable_pages_stay_writable_by_mprotect)
{
	write_to_writable(1);
}

Test(text, writable_pages_stay_writable_by_page_swap)
{
	write_to_writable(2);
}

/* ---- failures --------------------------------------------------------------------------------------------------- */

static int fail_from, fail_to, fail_errno, write_calls;

/* Writes number fail_from to fail_to - 1, from 0, fail. */
static int fail_writes(enum inject_point point)
{
	if (point != INJECT_TEXT_WRITE)
		return 0;
	write_calls++;
	return write_calls > fail_from && write_calls <= fail_to ? fail_errno : 0;
}

static void fail_between(int from, int to, int error)
{
	fail_from = from;
	fail_to = to;
	fail_errno = error;
	write_calls = 0;
	libpatch_inject = fail_writes;
}

Test(text, each_write_has_its_own_error)
{
	static const uint8_t bytes[] = { 1, 2 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(5, RX);
		struct text_write writes[] = {
			make_write(text, 4 * PAGE_SIZE + 7, bytes, 2),
			make_write(text, 10, bytes, 2),
			/* Fails; joined by being in one page, so both fail; the others, a page apart, do not. */
			make_write(text, 2 * PAGE_SIZE + 10, bytes, 2),
			make_write(text, 2 * PAGE_SIZE + 20, bytes, 2),
		};

		memset(model + 2 * PAGE_SIZE, 0, PAGE_SIZE);
		memcpy(model + 2 * PAGE_SIZE, text + 2 * PAGE_SIZE, PAGE_SIZE);
		use_way(i);
		fail_between(1, 2, EACCES);
		cr_expect_eq(text_apply(writes, ARRAY_SIZE(writes)), 2);
		libpatch_inject = NULL;
		cr_expect_eq(writes[0].error, 0);
		cr_expect_eq(writes[1].error, EACCES);
		cr_expect_eq(writes[2].error, EACCES);
		cr_expect_eq(writes[3].error, 0);
		expect_text(text, 5 * PAGE_SIZE, "failed in between");
		unmap_text(text, 5);
	}
}

/* Good, unmapped, good; descriptors are closed after failures, too. */
static void write_to_unmapped(size_t way)
{
	static const uint8_t bytes[] = { 1, 2 };
	uint8_t *text = map_text(3, RX);
	struct text_write writes[] = {
		make_write(text, 10, bytes, 2),
		make_write(text, PAGE_SIZE + 10, bytes, 2),
		make_write(text, 2 * PAGE_SIZE + 10, bytes, 2),
	};
	unsigned int descriptors = count_descriptors();

	munmap(text + PAGE_SIZE, PAGE_SIZE);
	use_way(way);
	cr_expect_eq(text_apply(writes, ARRAY_SIZE(writes)), 1);
	cr_expect_eq(writes[0].error, 0);
	cr_expect_neq(writes[1].error, 0);
	cr_expect_eq(writes[2].error, 0);
	expect_text(text, PAGE_SIZE, "before the hole");
	memmove(model, model + 2 * PAGE_SIZE, PAGE_SIZE);
	expect_text(text + 2 * PAGE_SIZE, PAGE_SIZE, "behind the hole");
	expect_protection(text + PAGE_SIZE, "none");
	cr_expect_eq(count_descriptors(), descriptors);
}

Test(text, unmapped_target_by_proc_mem)
{
	write_to_unmapped(0);
}

Test(text, unmapped_target_by_mprotect)
{
	write_to_unmapped(1);
}

Test(text, unmapped_target_by_page_swap)
{
	write_to_unmapped(2);
}

/* Joining reads what lies between. */
Test(text, unmapped_target_of_joined_writes)
{
	static const uint8_t bytes[] = { 1, 2 };
	uint8_t *text = map_text(1, RX);
	struct text_write writes[] = { make_write(text, 10, bytes, 2), make_write(text, 20, bytes, 2) };

	munmap(text, PAGE_SIZE);
	use_way(0);
	cr_expect_eq(text_apply(writes, 2), 2);
	cr_expect_neq(writes[0].error, 0);
	cr_expect_neq(writes[1].error, 0);
}

Test(text, no_way)
{
	static const uint8_t bytes[] = { 1 };
	uint8_t *text = map_text(1, RX);
	struct text_write write = make_write(text, 10, bytes, 1);

	text_set_way(TEXT_NONE);
	way_name = "none";
	model[10] = text[10];
	cr_expect_eq(text_apply(&write, 1), 1);
	cr_expect_eq(write.error, ENOTSUP);
	expect_text(text, PAGE_SIZE, "no way");
}

Test(text, no_descriptor_left)
{
	static const uint8_t bytes[] = { 1 };
	uint8_t *text = map_text(2, RX);
	struct text_write writes[] = { make_write(text, 10, bytes, 1), make_write(text, PAGE_SIZE, bytes, 1) };
	struct rlimit limit, none;
	size_t failed;

	/* the next way does it */
	use_way(0);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	failed = text_apply(writes, 2);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_expect_eq(failed, 0);
	expect_text(text, 2 * PAGE_SIZE, "no descriptor");
	cr_expect_eq(text_apply(writes, 2), 0, "works again");
	expect_text(text, 2 * PAGE_SIZE, "descriptors");
}

Test(text, no_descriptor_is_kept)
{
	static const uint8_t bytes[] = { 1 };
	unsigned int before = count_descriptors();
	uint8_t buffer[16];
	size_t i, round;
	int error;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(2, RX);

		use_way(i);
		for (round = 0; round < 50; round++) {
			struct text_write write = make_write(text, round, bytes, 1);

			cr_expect_eq(text_apply(&write, 1), 0);
			fail_between(0, 1, EIO);
			cr_expect_eq(text_apply(&write, 1), 1);
			libpatch_inject = NULL;
			mem_read((uintptr_t)text - 8, buffer, sizeof(buffer), &error);
		}
		unmap_text(text, 2);
	}
	cr_expect_eq(text_init(false), PATCH_OK);
	cr_expect_eq(count_descriptors(), before, "%u descriptors, %u before", count_descriptors(), before);
}

/* ---- descriptors that change hands ------------------------------------------------------------------------------ */

#define DESCRIPTORS 2000

static int other, theirs;
static unsigned int looks, low;

static bool is_memory(int fd)
{
	char name[64], link[128];
	ssize_t length;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, link, sizeof(link));
	return length > 4 && memcmp(link, "/proc", 5) == 0 && memcmp(link + length - 4, "/mem", 4) == 0;
}

/* As high as the kernel gives without waiting for other threads. */
static int highest(void)
{
	return tasks_is_single() ? 900 : (int)MIN(tasks_descriptors() - 1, 900);
}

/* At the second write, what the first one was made by is open: it becomes another file, and the write fails. */
static int take_descriptor(enum inject_point point)
{
	int fd;

	if (point != INJECT_TEXT_WRITE || ++looks < 2)
		return 0;
	for (fd = 3; fd < DESCRIPTORS; fd++) {
		if (!is_memory(fd))
			continue;
		low += fd < highest();
		if (dup2(other, fd) == fd)
			theirs = fd;
	}
	return EIO;
}

Test(text, a_descriptor_that_became_anothers_is_not_closed)
{
	static const uint8_t bytes[] = { 1 };
	uint8_t *text = map_text(PAGES, RX);
	struct text_write writes[] = { make_write(text, 10, bytes, 1), make_write(text, 20 * PAGE_SIZE, bytes, 1) };
	struct rlimit limit = { DESCRIPTORS, DESCRIPTORS };

	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		cr_skip_test("no more than %d descriptors", DESCRIPTORS);
	use_way(0);
	other = open("/dev/null", O_RDONLY | O_CLOEXEC);
	libpatch_inject = take_descriptor;
	cr_expect_eq(text_apply(writes, 2), 1);
	libpatch_inject = NULL;
	cr_assert_neq(theirs, 0, "no descriptor was met");
	cr_expect_eq(low, 0, "%d is where the program's descriptors are", theirs);
	cr_expect_geq(fcntl(theirs, F_GETFD), 0, "%d was closed", theirs);
}

/* ---- with a thread in the page ---------------------------------------------------------------------------------- */

static _Atomic bool stop, wrong;
static _Atomic uint64_t calls;

static void *run_function(void *function)
{
	int (*f)(void) = (int (*)(void))(uintptr_t)function;

	while (!stop) {
		if (f() != 0x12345678)
			wrong = true;
		calls++;
	}
	return NULL;
}

/* No way takes away the execute permission of a page, or lets it be seen half empty. */
Test(text, threads_go_on_running, .timeout = 3600)
{
	static const uint8_t function[] = { 0xB8, 0x78, 0x56, 0x34, 0x12, 0xC3 }; /* mov eax, 0x12345678; ret */
	size_t i;
	int round;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		uint8_t *text = map_text(1, RX);
		struct text_write write = make_write(text, 64, function, sizeof(function));
		uint8_t byte = 0;
		pthread_t thread;

		use_way(i);
		cr_assert_eq(text_apply(&write, 1), 0);
		stop = false;
		calls = 0;
		cr_assert_eq(pthread_create(&thread, NULL, run_function, text + 64), 0);
		for (round = 0; round < 2000 || calls < 100000; round++) {
			write = make_write(text, 1000, &byte, 1);
			byte++;
			cr_assert_eq(text_apply(&write, 1), 0);
		}
		stop = true;
		pthread_join(thread, NULL);
		cr_expect_not(wrong, "%s", way_name);
		unmap_text(text, 1);
	}
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

Test(text, the_best_way_that_works_is_chosen)
{
	cr_expect_eq(text_init(false), PATCH_OK);
	/* A kernel may refuse it (proc_mem.force_override), but then not the next. */
	if (text_way() == TEXT_PROC_MEM) {
		fail_between(0, 1, EPERM);
		cr_expect_eq(text_init(false), PATCH_OK);
		cr_expect_eq(text_way(), TEXT_PAGE_SWAP, "never writable and executable pages");
		fail_between(0, 1, EPERM);
		cr_expect_eq(text_init(true), PATCH_OK);
		cr_expect_eq(text_way(), TEXT_MPROTECT);
		fail_between(0, 2, EPERM);
		cr_expect_eq(text_init(true), PATCH_OK);
		cr_expect_eq(text_way(), TEXT_PAGE_SWAP);
	}
	fail_between(0, 100, EPERM);
	cr_expect_eq(text_init(true), PATCH_ENOTSUP);
	cr_expect_eq(text_way(), TEXT_NONE);
	libpatch_inject = NULL;
	cr_expect_eq(text_init(true), PATCH_OK);
	cr_expect_neq(text_way(), TEXT_NONE);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

Test(text, reading_ends_at_a_hole)
{
	static const struct {
		long from;
		size_t size, got;
	} cases[] = {
		{ 0, 1, 1 },
		{ 0, PAGE_SIZE, PAGE_SIZE },
		{ PAGE_SIZE - 1, 1, 1 },
		{ PAGE_SIZE - 1, 2, 2 },                     /* two mapped pages */
		{ 2 * PAGE_SIZE - 1, 1, 1 },
		{ 2 * PAGE_SIZE - 1, 2, 1 },                 /* into the hole */
		{ 2 * PAGE_SIZE - 15, 16, 15 },
		{ 100, 2 * PAGE_SIZE, 2 * PAGE_SIZE - 100 }, /* over a page into the hole */
		{ 100, 3 * PAGE_SIZE, 2 * PAGE_SIZE - 100 }, /* over the hole */
		{ 2 * PAGE_SIZE, 1, 0 },
		{ 2 * PAGE_SIZE + 100, PAGE_SIZE, 0 },       /* from the hole to where something is */
		{ -1, 16, 0 },
		{ 3 * PAGE_SIZE, 16, 16 },
	};
	static uint8_t buffer[4 * PAGE_SIZE];
	uint8_t *text = map_text(4, RX);
	size_t i, k;

	munmap(text + 2 * PAGE_SIZE, PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t got;
		int error = -1;

		memset(buffer, 0xA5, sizeof(buffer));
		got = mem_read((uintptr_t)text + (uintptr_t)cases[i].from, buffer, cases[i].size, &error);
		if (got < cases[i].size)
			cr_expect_eq(error, EFAULT, "%zu bytes from %ld: error %d", cases[i].size, cases[i].from,
				     error);
		cr_expect_eq(got, cases[i].got, "%zu bytes from %ld: %zu, not %zu", cases[i].size, cases[i].from, got,
			     cases[i].got);
		for (k = 0; k < sizeof(buffer); k++) {
			uint8_t expected = k < cases[i].got ? model[cases[i].from + (long)k] : 0xA5;

			if (buffer[k] == expected)
				continue;
			cr_expect_fail("%zu bytes from %ld: byte %zu is %#x, not %#x", cases[i].size, cases[i].from, k,
				       buffer[k], expected);
			break;
		}
	}
}
