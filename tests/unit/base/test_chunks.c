/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base/chunks.h: an entry is one thread's, and stays where it is, however many chunks threads add at once; without
 * memory for a chunk there is none, and the next call tries again.
 */
#include "base/chunks.h"

#include "base/inject.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 4
#define ENTRIES 3000

struct entry {
	_Atomic uintptr_t owner;
};
static struct entry first[2];
static struct chunks table = {
	.first = { .count = 2, .entries = first },
	.entry_size = sizeof(struct entry),
	.chunk_size = PAGE_SIZE,
};
#define CHUNK_ENTRIES ((PAGE_SIZE - sizeof(struct chunk)) / sizeof(struct entry))

static bool claim(void *entry, uintptr_t owner)
{
	uintptr_t none = 0;

	return atomic_compare_exchange_strong(&((struct entry *)entry)->owner, &none, owner);
}

static bool is_of(void *entry, uintptr_t owner)
{
	return atomic_load(&((struct entry *)entry)->owner) == owner;
}

static void *take_all(void *number)
{
	for (unsigned int i = 0; i < ENTRIES; ++i)
		cr_assert_not_null(chunks_take(&table, claim, (uintptr_t)number * ENTRIES + i));
	return NULL;
}

Test(chunks, an_entry_has_one_owner)
{
	const size_t all = THREADS * ENTRIES;
	pthread_t threads[THREADS];
	size_t taken = 0;

	for (uintptr_t i = 0; i < THREADS; ++i)
		cr_assert_eq(pthread_create(&threads[i], NULL, take_all, (void *)(i + 1)), 0);
	for (size_t i = 0; i < THREADS; ++i)
		pthread_join(threads[i], NULL);
	for_each_in_chunks(struct entry, entry, &table)
		taken += atomic_load(&entry->owner) != 0;
	cr_expect_eq(taken, all);
	for (uintptr_t owner = ENTRIES; owner < ENTRIES + all; ++owner)
		cr_assert_not_null(chunks_find(&table, is_of, owner));
	/* No chunk is lost, and none is there that nobody needs. */
	cr_expect_eq(chunks_bytes(&table), (all - 2 + CHUNK_ENTRIES - 1) / CHUNK_ENTRIES * PAGE_SIZE);
}

static size_t mapped_pages(void)
{
	char text[32] = "";
	int fd = open("/proc/self/statm", O_RDONLY);

	cr_assert_gt(read(fd, text, sizeof(text) - 1), 0);
	close(fd);
	return strtoul(text, NULL, 10);
}

static int error_behind_another;

/* As another thread, or a handler: a chunk is added when this one is about to map its own. */
static int another_is_faster(enum inject_point point)
{
	if (point != INJECT_MMAP)
		return 0;
	libpatch_inject = NULL;
	cr_assert_not_null(chunks_take(&table, claim, 3));
	return error_behind_another;
}

/* Who loses takes an entry of the winner's chunk, also without memory, and gives its own back. */
static void lose(int error)
{
	size_t before;

	cr_expect_eq(chunks_take(&table, claim, 1), &first[0]);
	cr_expect_eq(chunks_take(&table, claim, 2), &first[1]);
	before = mapped_pages();
	error_behind_another = error;
	libpatch_inject = another_is_faster;
	cr_assert_not_null(chunks_take(&table, claim, 4));
	cr_expect_null(libpatch_inject);
	cr_expect_eq(mapped_pages(), before + 1);
	cr_expect_eq(chunks_bytes(&table), PAGE_SIZE);
	for (uintptr_t owner = 1; owner <= 4; ++owner)
		cr_expect_not_null(chunks_find(&table, is_of, owner), "%zu", (size_t)owner);
}

Test(chunks, another_thread_adds_a_chunk_first)
{
	lose(0);
}

Test(chunks, another_thread_adds_a_chunk_first_and_there_is_no_memory)
{
	lose(ENOMEM);
}

static int no_memory(enum inject_point point)
{
	return point == INJECT_MMAP ? ENOMEM : 0;
}

Test(chunks, without_memory_there_is_none)
{
	cr_expect_eq(chunks_take(&table, claim, 1), &first[0]);
	cr_expect_eq(chunks_take(&table, claim, 2), &first[1]);
	cr_expect_null(chunks_find(&table, claim, 3));
	libpatch_inject = no_memory;
	cr_expect_null(chunks_take(&table, claim, 3));
	libpatch_inject = NULL;
	cr_expect_not_null(chunks_take(&table, claim, 3));
	cr_expect_eq(chunks_find(&table, is_of, 1), &first[0]);
}
