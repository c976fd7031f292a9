/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The registry: what is found, what states mean, and that nothing a reader may hold is freed (R1 to R3).
 */
#include "bytes.h"

#include "arch/trap_bytes.h"
#include "base/heap.h"
#include "code/lead.h"
#include "trap/registry.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BASE 0x555500001000UL
#define POLLS 10

#define HOLDER_SIZE sizeof(struct registry_entry)

static void poll_often(void)
{
	int i;

	for (i = 0; i < POLLS; i++)
		registry_poll();
}

/* The heap hands out last what was freed last: was this? Nothing but the registry uses it here. */
static bool is_freed(struct registry_entry *entry)
{
	void *blocks[64];
	bool found = false;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = heap_alloc(HOLDER_SIZE);
		found = found || blocks[i] == (void *)entry;
	}
	for (i = ARRAY_SIZE(blocks); i-- > 0;)
		heap_free(blocks[i], HOLDER_SIZE);
	return found;
}

Test(registry, nothing_before_init)
{
	registry_token token = registry_read_lock();

	cr_expect_null(registry_lookup(BASE));
	registry_read_unlock(token);
	cr_expect_null(registry_find(BASE));
	registry_poll();
}

Test(registry, add_find_remove)
{
	struct registry_entry *a, *b;

	cr_expect_null(registry_find(BASE));
	a = registry_add(BASE);
	b = registry_add(BASE + 1);
	cr_assert(a != NULL && b != NULL);
	cr_expect_eq(a->address, BASE);
	cr_expect_eq(REGISTRY_STATE(a->state), REGISTRY_DORMANT);
	cr_expect_eq(REGISTRY_CLASSES(a->state), 0);
	cr_expect_eq(a->hits, 0);
	cr_expect_null(a->region);
	cr_expect_eq(registry_find(BASE), a);
	cr_expect_eq(registry_lookup(BASE + 1), b);
	cr_expect_null(registry_find(BASE + 2));
	cr_expect_null(registry_find(BASE - 1));
	registry_remove(a);
	cr_expect_null(registry_find(BASE));
	cr_expect_eq(registry_find(BASE + 1), b);
	a = registry_add(BASE);
	cr_expect_eq(registry_find(BASE), a);
}

static uint64_t generation(const struct registry_entry *entry)
{
	return entry->state / REGISTRY_GENERATION;
}

static void expect_state(const struct registry_entry *entry, enum registry_state state, unsigned int classes)
{
	cr_expect_eq(REGISTRY_STATE(entry->state), state, "state %d, not %d", REGISTRY_STATE(entry->state), state);
	cr_expect_eq(REGISTRY_CLASSES(entry->state), classes, "classes %#x, not %#x", REGISTRY_CLASSES(entry->state),
		     classes);
}

static uintptr_t led_to(const struct lead *lead)
{
	return *(const uintptr_t *)lead->slot;
}

/* A lead holds the target for as long as the entry is active, and outlives it. */
Test(registry, leads)
{
	uintptr_t address = (uintptr_t)led_to;
	struct registry_entry *entry, *neighbour;
	struct lead *lead;

	entry = registry_add(address);
	neighbour = registry_add(address ^ 1);
	cr_assert(registry_make_lead(entry));
	cr_expect_null(registry_lead(neighbour));
	cr_assert(registry_make_lead(neighbour));
	lead = registry_lead(entry);
	cr_expect_eq(led_to(lead), address);
	cr_expect(registry_make_lead(entry) && registry_lead(entry) == lead, "there is one");
	registry_activate(entry, 0x1234, ARCH_TRAP_SIGTRAP);
	cr_expect_eq(led_to(lead), 0x1234);
	registry_activate(entry, 0x5678, ARCH_TRAP_SIGTRAP);
	cr_expect_eq(led_to(lead), 0x5678);
	registry_retire(entry);
	cr_expect_eq(led_to(lead), address);
	registry_activate(entry, 0x5678, ARCH_TRAP_SIGTRAP);
	lead_take(lead);
	registry_remove(entry);
	cr_expect_eq(led_to(lead), address, "its code goes, and other code still reads the slot");
	lead_drop(lead);
	cr_expect_eq(led_to(registry_lead(neighbour)), address ^ 1, "one for each instruction");

	entry = registry_add(address);
	cr_expect_null(registry_lead(entry));
	registry_activate(entry, 0x1234, ARCH_TRAP_SIGTRAP);
	cr_assert(registry_make_lead(entry));
	cr_expect_eq(led_to(registry_lead(entry)), 0x1234, "of an active entry");
	registry_remove(entry);
}

Test(registry, states)
{
	struct registry_entry *entry;
	uint64_t before;

	entry = registry_add(BASE);
	before = generation(entry);
	registry_activate(entry, 0x1234, ARCH_TRAP_SIGTRAP);
	expect_state(entry, REGISTRY_ACTIVE, 1 << ARCH_TRAP_SIGTRAP);
	cr_expect_eq(entry->target, 0x1234);
	cr_expect_gt(generation(entry), before);

	/* Re-pointing: readers of the old target are right, too. */
	before = generation(entry);
	registry_activate(entry, 0x5678, ARCH_TRAP_SIGTRAP);
	expect_state(entry, REGISTRY_ACTIVE, 1 << ARCH_TRAP_SIGTRAP);
	cr_expect_eq(entry->target, 0x5678);
	cr_expect_eq(generation(entry), before);

	/* A class is remembered for good: a trap of it may be on its way. */
	registry_activate(entry, 0x5678, ARCH_TRAP_SIGILL);
	expect_state(entry, REGISTRY_ACTIVE, 1 << ARCH_TRAP_SIGTRAP | 1 << ARCH_TRAP_SIGILL);
	cr_expect_gt(generation(entry), before);

	before = generation(entry);
	registry_retire(entry);
	expect_state(entry, REGISTRY_RETIRED, 1 << ARCH_TRAP_SIGTRAP | 1 << ARCH_TRAP_SIGILL);
	cr_expect_gt(generation(entry), before);

	/* Every removal and install in between is seen: the trap handler compares (I5). */
	before = generation(entry);
	registry_activate(entry, 0x5678, ARCH_TRAP_SIGTRAP);
	expect_state(entry, REGISTRY_ACTIVE, 1 << ARCH_TRAP_SIGTRAP | 1 << ARCH_TRAP_SIGILL);
	cr_expect_gt(generation(entry), before);
	cr_expect_eq(registry_find(BASE), entry);
}

Test(registry, generations_never_repeat)
{
	struct registry_entry *entry;
	uint64_t last, k;

	entry = registry_add(BASE);
	last = entry->state;
	for (k = 0; k < 100000; k++) {
		if (k % 2)
			registry_retire(entry);
		else
			registry_activate(entry, k, ARCH_TRAP_SIGTRAP);
		cr_assert_gt(entry->state, last);
		last = entry->state;
	}
}

Test(registry, a_removed_entry_is_freed)
{
	struct registry_entry *entry;

	entry = registry_add(BASE);
	registry_remove(entry);
	cr_expect_not(is_freed(entry), "not before a grace period");
	poll_often();
	cr_expect(is_freed(entry));
}

/* ---- readers ---------------------------------------------------------------------------------------------------- */

static sem_t held, let_go, left;
static struct registry_entry *seen;

static void *hold(void *unused)
{
	registry_token token = registry_read_lock();

	(void)unused;
	seen = registry_lookup(BASE);
	sem_post(&held);
	sem_wait(&let_go);
	registry_read_unlock(token);
	sem_post(&left);
	return NULL;
}

static void init_reader(void)
{
	sem_init(&held, 0, 0);
	sem_init(&let_go, 0, 0);
	sem_init(&left, 0, 0);
}

static void start_reader(void)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, hold, NULL), 0);
	pthread_detach(thread);
	sem_wait(&held);
}

static void end_reader(void)
{
	sem_post(&let_go);
	sem_wait(&left);
}

/* R2 and R3, at every number of grace periods before. */
/* A reader may report it before and after; its region is another's memory by then. */
Test(registry, reports_of_what_was_taken_out_are_nobodys)
{
	registry_token token = registry_read_lock();
	struct registry_entry *before = registry_add(BASE), *after = registry_add(BASE + 1);
	struct registry_entry *stays = registry_add(BASE + 2);

	registry_report(before);
	registry_report(stays);
	registry_remove(before);
	registry_remove(after);
	registry_report(after);
	registry_report(before);
	cr_expect_eq(registry_take_reported(), stays);
	cr_expect_null(registry_take_reported());
	registry_report(stays);
	registry_read_unlock(token);
	poll_often();
	cr_expect(is_freed(before));
	cr_expect_eq(registry_take_reported(), stays);
	cr_expect_null(registry_take_reported());
	registry_remove(stays);
}

/* Without that the list would go in a circle, once the memory is another entry's. */
Test(registry, a_report_is_freed_with_its_entry)
{
	struct registry_entry *entry = registry_add(BASE);

	registry_report(entry);
	registry_remove(entry);
	poll_often();
	cr_assert_eq(registry_add(BASE), entry, "the same memory");
	registry_report(entry);
	cr_expect_eq(registry_take_reported(), entry);
	cr_expect_null(registry_take_reported());
	registry_remove(entry);
}

Test(registry, a_reader_keeps_what_it_found)
{
	struct registry_entry *entry, *other;
	int before, between;

	init_reader();
	for (before = 0; before < 4; before++) {
		for (between = 0; between < 4; between++) {
			int k;

			/* Polls do something only while there is something to free. */
			for (k = 0; k < before; k++) {
				registry_remove(registry_add(BASE + 100));
				registry_poll();
			}
			entry = registry_add(BASE);
			entry->hits = 77;
			start_reader();
			cr_assert_eq(seen, entry);
			for (k = 0; k < between; k++) {
				registry_remove(registry_add(BASE + 200));
				registry_poll();
			}
			registry_remove(entry);
			poll_often();
			cr_assert_not(is_freed(entry), "freed under a reader, %d and %d polls", before, between);
			cr_expect_eq(entry->address, BASE);
			cr_expect_eq(entry->hits, 77);
			/* More of them do not wait for it, nor does it get freed with them. */
			other = registry_add(BASE + 1);
			registry_remove(other);
			poll_often();
			cr_assert_not(is_freed(entry));
			end_reader();
			poll_often();
			cr_assert(is_freed(entry), "kept without a reader, %d and %d polls", before, between);
		}
	}
}

/* A reader that came after the removal does not matter for ever: readers that come and go do not starve the freeing. */
Test(registry, later_readers_do_not_keep_it)
{
	struct registry_entry *entry;
	int round;

	init_reader();
	entry = registry_add(BASE);
	registry_remove(entry);
	for (round = 0; round < 6; round++) {
		/* Two overlapping readers at any time. */
		start_reader();
		cr_expect_null(seen);
		registry_poll();
		end_reader();
		registry_poll();
	}
	cr_expect(is_freed(entry));
}

/* Nested: a handler interrupted inside another one's reading. */
Test(registry, readers_nest)
{
	struct registry_entry *entry;
	registry_token outer, inner;

	entry = registry_add(BASE);
	outer = registry_read_lock();
	cr_expect_eq(registry_lookup(BASE), entry);
	inner = registry_read_lock();
	registry_read_unlock(inner);
	registry_remove(entry);
	poll_often();
	inner = registry_read_lock();
	registry_read_unlock(inner);
	poll_often();
	cr_expect_not(is_freed(entry), "the outer one holds it");
	registry_read_unlock(outer);
	poll_often();
	cr_expect(is_freed(entry));
}

/* ---- a line of code: 64 bytes whose entries are in one list ------------------------------------------------------ */

#define LINE 64
/* Its first byte. */
#define FIRST (BASE / LINE * LINE)

/* In every order of removal by step: what is not removed stays found, and nothing of the line stays in the end. */
Test(registry, entries_of_a_line)
{
	struct registry_entry *entries[LINE];
	uint64_t before;
	size_t step, i;

	/* Memory of all of them is taken once. */
	registry_remove(registry_add(FIRST));
	poll_often();
	before = heap_in_use();
	for (step = 1; step < LINE; step += 2) {
		for (i = 0; i < LINE; i++) {
			entries[i] = registry_add(FIRST + i);
			cr_assert_not_null(entries[i]);
		}
		for (i = 0; i < LINE; i++) {
			size_t gone = i * step % LINE, k;

			registry_remove(entries[gone]);
			entries[gone] = NULL;
			for (k = 0; k < LINE; k++)
				cr_assert_eq(registry_find(FIRST + k), entries[k]);
		}
		poll_often();
		cr_expect_eq(heap_in_use(), before, "step %zu", step);
	}
}

/* Each once, whichever are removed while they are gone through: those of one line, of the next, not those outside. */
Test(registry, within_lines)
{
	const uintptr_t lower = FIRST + 10, upper = FIRST + 3 * LINE - 10;
	struct registry_entry *entry;
	size_t count = 0;
	uintptr_t at;

	for (at = FIRST; at < FIRST + 3 * LINE; at += 5)
		cr_assert_not_null(registry_add(at));
	while ((entry = registry_next_within(lower, upper)) != NULL) {
		cr_assert(entry->address >= lower && entry->address < upper);
		cr_assert_eq(registry_find(entry->address), entry);
		registry_remove(entry);
		cr_assert_lt(count++, 3 * LINE);
	}
	for (at = FIRST; at < FIRST + 3 * LINE; at += 5) {
		cr_expect_eq(registry_find(at) == NULL, at >= lower && at < upper);
		count += at < lower || at >= upper;
	}
	cr_expect_eq(count, (3 * LINE + 4) / 5);
}

/*
 * Whatever is removed between two steps, also the line that is next: with each, half of those that may be in the same
 * bucket; and lines that are elsewhere get the memory of some.
 */
Test(registry, within_lines_that_go_together)
{
	enum { APART = 512, LINES = 1024 * APART };
	const uintptr_t lower = FIRST, upper = FIRST + (uintptr_t)LINES * LINE;
	struct registry_entry *entry;
	static bool gone[APART];
	uintptr_t elsewhere = upper;
	size_t left = LINES;

	for (uintptr_t at = lower; at < upper; at += LINE)
		cr_assert_not_null(registry_add(at));
	while ((entry = registry_next_within(lower, upper)) != NULL) {
		size_t others = (entry->address - lower) / LINE % APART, before = left;

		cr_assert_eq(registry_find(entry->address), entry, "it was removed before");
		for (size_t i = others; !gone[others] && i < LINES; i += 2 * APART) {
			struct registry_entry *other = registry_find(lower + i * LINE);

			if (other == NULL || other == entry)
				continue;
			registry_remove(other);
			--left;
		}
		gone[others] = true;
		registry_remove(entry);
		--left;
		for (int i = 0; i < 3; ++i)
			registry_poll();
		for (; before > left; --before, elsewhere += LINE)
			cr_assert_not_null(registry_add(elsewhere));
	}
	cr_expect_eq(left, 0, "%zu lines were passed over", left);
}

/* R2: a reader may be at the line itself when its last entry is removed. */
Test(registry, a_reader_keeps_the_line)
{
	uint64_t without, with;
	struct registry_entry *entry;
	registry_token token;

	registry_remove(registry_add(FIRST));
	poll_often();
	without = heap_in_use();
	entry = registry_add(FIRST);
	with = heap_in_use();
	token = registry_read_lock();
	cr_assert_eq(registry_lookup(FIRST), entry);
	registry_remove(entry);
	poll_often();
	cr_expect_eq(heap_in_use(), with, "%ld bytes were freed", (long)(with - heap_in_use()));
	registry_read_unlock(token);
	poll_often();
	cr_expect_eq(heap_in_use(), without);
}

static _Atomic bool ended;
static uint64_t looks;

/* Entries at even addresses stay. */
static void *look(void *unused)
{
	(void)unused;
	for (looks = 0; !ended; looks++) {
		registry_token token = registry_read_lock();
		uintptr_t at = FIRST + looks % LINE;
		const struct registry_entry *entry = registry_lookup(at);

		if (entry != NULL ? entry->address != at : at % 2 == 0)
			abort();
		registry_read_unlock(token);
	}
	return NULL;
}

/* A reader is somewhere in the list at any time, while entries come, go, and are given back. */
Test(registry, a_line_changes_under_a_reader, .timeout = 3600)
{
	struct registry_entry *odd[LINE] = { NULL };
	pthread_t thread;
	size_t i;

	for (i = 0; i < LINE; i += 2)
		registry_add(FIRST + i);
	cr_assert_eq(pthread_create(&thread, NULL, look, NULL), 0);
	for (i = 0; i < 200000; i++) {
		const size_t at = (i * 37 % LINE) | 1;

		if (odd[at] == NULL) {
			odd[at] = registry_add(FIRST + at);
		} else {
			registry_remove(odd[at]);
			odd[at] = NULL;
		}
		registry_poll();
	}
	ended = true;
	pthread_join(thread, NULL);
	cr_expect_gt(looks, 0);
}

/* ---- many ------------------------------------------------------------------------------------------------------- */

Test(registry, many_entries)
{
	enum { MANY = 200000 };
	struct registry_entry **entries = calloc(MANY, sizeof(*entries));
	size_t i;

	/* Spread like functions of modules: some dense, some far. */
	for (i = 0; i < MANY; i++) {
		entries[i] = registry_add(BASE + i * 7 + (i % 5) * (1UL << 32));
		cr_assert_not_null(entries[i]);
	}
	for (i = 0; i < MANY; i++)
		cr_assert_eq(registry_find(BASE + i * 7 + (i % 5) * (1UL << 32)), entries[i]);
	for (i = 0; i < MANY; i += 2)
		registry_remove(entries[i]);
	poll_often();
	for (i = 0; i < MANY; i++)
		cr_assert_eq(registry_find(BASE + i * 7 + (i % 5) * (1UL << 32)), i % 2 ? entries[i] : NULL);
	free(entries);
}

static unsigned long count_threads(void)
{
	struct stat status;

	/* Links of the directory of threads: its own, its parent's, and one for each. Criterion has some, too. */
	cr_assert_eq(stat("/proc/self/task", &status), 0);
	return status.st_nlink - 2;
}

/* A table of liburcu's that grows starts threads, and takes mutexes, in the program's process. */
Test(registry, no_thread_is_started)
{
	enum { MANY = 200000 };
	unsigned long before = count_threads();
	size_t i;

	for (i = 0; i < MANY; i++)
		cr_assert_not_null(registry_add(BASE + i));
	cr_expect_eq(count_threads(), before, "%lu threads, %lu before", count_threads(), before);
}

/* ---- readers beside a writer ------------------------------------------------------------------------------------ */

#define ADDRESSES 64
#define READERS 4
#define ROUNDS 60000

static _Atomic bool stop;
static _Atomic uint64_t reads, errors;

/* Whatever is found says what it was made with: a freed one was overwritten by the writer. */
static void *read_all(void *unused)
{
	uint64_t i;

	(void)unused;
	for (i = 0; !stop; i++) {
		uintptr_t address = BASE + i % ADDRESSES;
		registry_token token = registry_read_lock();
		struct registry_entry *entry = registry_lookup(address);
		int k;

		for (k = 0; entry != NULL && k < 20; k++) {
			uint64_t before = entry->state;
			uintptr_t target = entry->target;

			if (entry->address != address)
				errors++;
			if (REGISTRY_STATE(before) == REGISTRY_ACTIVE && entry->state == before &&
			    target >> 8 != address)
				errors++;
		}
		registry_read_unlock(token);
		reads++;
	}
	return NULL;
}

Test(registry, readers_beside_a_writer, .timeout = 3600)
{
	struct registry_entry *entries[ADDRESSES] = { NULL };
	pthread_t threads[READERS];
	uint32_t seed = 99;
	void *block;
	size_t i;

	for (i = 0; i < READERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_all, NULL), 0);
	for (i = 0; i < ROUNDS || reads < 20000; i++) {
		size_t k;

		seed = seed * 1664525 + 1013904223;
		k = (seed >> 16) % ADDRESSES;
		if (entries[k] == NULL) {
			entries[k] = registry_add(BASE + k);
			cr_assert_not_null(entries[k]);
		} else if (REGISTRY_STATE(entries[k]->state) == REGISTRY_DORMANT && seed % 3) {
			registry_activate(entries[k], (BASE + k) << 8 | 1, ARCH_TRAP_SIGTRAP);
		} else if (REGISTRY_STATE(entries[k]->state) == REGISTRY_ACTIVE && seed % 3) {
			registry_retire(entries[k]);
		} else {
			registry_remove(entries[k]);
			entries[k] = NULL;
		}
		registry_poll();
		/* What was freed is somebody else's at once. */
		block = heap_alloc(HOLDER_SIZE);
		memset(block, 0xEE, HOLDER_SIZE);
		heap_free(block, HOLDER_SIZE);
		if (i % 1024 == 0)
			sched_yield();
	}
	stop = true;
	for (i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	cr_expect_eq(errors, 0, "%lu of %lu reads were of something freed", errors, reads);
	for (i = 0; i < ADDRESSES; i++)
		cr_expect_eq(registry_find(BASE + i), entries[i]);
}
