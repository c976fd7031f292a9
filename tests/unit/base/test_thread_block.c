/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base/thread_block.h: a block is one thread's for as long as that lives, nobody else's, and somebody else's
 * afterwards; without memory there is none, and the next call tries again.
 */
#include "base/thread_block.h"

#include "base/inject.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <string.h>

#define STACK_SIZE 0x20000

struct on_own_stack {
	pthread_t thread;
	void *stack;
};

/* Each thread has its storage in memory that no other has, so that only its end tells that its block is free. */
static void start(struct on_own_stack *on, void *(*run)(void *), void *argument)
{
	pthread_attr_t attributes;

	on->stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(on->stack, MAP_FAILED);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, on->stack, STACK_SIZE);
	cr_assert_eq(pthread_create(&on->thread, &attributes, run, argument), 0);
	pthread_attr_destroy(&attributes);
}

/* The memory of a thread that has ended: unmapped, kept as it was, or full of something else. */
enum remains { UNMAPPED, KEPT, OVERWRITTEN };

static void end(const struct on_own_stack *on, enum remains remains)
{
	pthread_join(on->thread, NULL);
	if (remains == UNMAPPED)
		munmap(on->stack, STACK_SIZE);
	if (remains == OVERWRITTEN)
		memset(on->stack, 0xff, STACK_SIZE);
}

static void *use(void *number)
{
	struct thread_block *block = thread_block();

	cr_assert_not_null(block);
	cr_assert_eq(block, thread_block());
	cr_assert_eq(block, thread_block_known());
	cr_expect_eq(block->calls.depth, 0, "what another thread has left is there");
	cr_expect_eq(block->errors.length, 0);
	block->calls.depth = (unsigned int)(uintptr_t)number;
	block->errors.length = 1;
	for (int i = 0; i < 100; ++i)
		sched_yield();
	cr_expect_eq(block->calls.depth, (unsigned int)(uintptr_t)number, "the block is another thread's, too");
	return NULL;
}

Test(thread_block, none_until_it_is_asked_for)
{
	cr_expect_null(thread_block_known());
	cr_expect_not_null(thread_block());
	cr_expect_eq(thread_block_known(), thread_block());
}

static void blocks_of_the_gone_are_taken(enum remains remains)
{
	size_t bytes;

	for (uintptr_t i = 1; i <= 500; ++i) {
		struct on_own_stack on;

		start(&on, use, (void *)i);
		end(&on, remains);
		if (i == 100)
			bytes = thread_block_bytes();
	}
	cr_expect_eq(thread_block_bytes(), bytes);
}

Test(thread_block, of_threads_whose_memory_is_gone_are_taken)
{
	blocks_of_the_gone_are_taken(UNMAPPED);
}

Test(thread_block, of_threads_whose_memory_is_others_are_taken)
{
	blocks_of_the_gone_are_taken(OVERWRITTEN);
}

/* libc keeps the stacks that it has made, and begins a thread's storage anew. */
Test(thread_block, of_threads_with_the_same_storage_are_taken)
{
	for (uintptr_t i = 1; i <= 500; ++i) {
		pthread_t thread;

		pthread_create(&thread, NULL, use, (void *)i);
		pthread_join(thread, NULL);
	}
	cr_expect_eq(thread_block_bytes(), 0);
}

/* Nobody can tell that such a thread is gone; nothing that others need is taken for that. */
Test(thread_block, of_threads_that_look_alive_are_left)
{
	struct on_own_stack on[100];

	for (uintptr_t i = 0; i < ARRAY_SIZE(on); ++i) {
		start(&on[i], use, (void *)(i + 1));
		end(&on[i], KEPT);
	}
	cr_expect_gt(thread_block_bytes(), 0);
}

static void *begin_and_end_others(void *number)
{
	for (uintptr_t i = 0; i < 100; ++i) {
		struct on_own_stack on[4];

		for (size_t j = 0; j < ARRAY_SIZE(on); ++j)
			start(&on[j], use, (void *)((uintptr_t)number * 1000 + i * 4 + j));
		for (size_t j = 0; j < ARRAY_SIZE(on); ++j)
			end(&on[j], (enum remains)(j % 2 == 0 ? UNMAPPED : OVERWRITTEN));
	}
	return NULL;
}

/* Threads come and go while others look for blocks that are left, and take each other's storage. */
Test(thread_block, is_one_threads_among_many)
{
	pthread_t threads[8];

	for (uintptr_t i = 0; i < ARRAY_SIZE(threads); ++i)
		pthread_create(&threads[i], NULL, begin_and_end_others, (void *)(i + 1));
	for (size_t i = 0; i < ARRAY_SIZE(threads); ++i)
		pthread_join(threads[i], NULL);
	/* 40 threads at most are there at once. */
	cr_expect_lt(thread_block_bytes(), 64 * 2 * sizeof(struct thread_block));
}

static pthread_barrier_t barrier;

static void *hold(void *unused)
{
	(void)unused;
	cr_assert_not_null(thread_block());
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

#define HOLDERS 8
static pthread_t holders[HOLDERS];

/* That many threads have a block each, until let_go(). */
static void hold_blocks(void)
{
	pthread_barrier_init(&barrier, NULL, HOLDERS + 1);
	for (size_t i = 0; i < HOLDERS; ++i)
		pthread_create(&holders[i], NULL, hold, NULL);
	pthread_barrier_wait(&barrier);
}

static void let_go(void)
{
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < HOLDERS; ++i)
		pthread_join(holders[i], NULL);
}

static struct on_own_stack first, second;
static struct thread_block *of_first, *of_second;

static void *tell_first(void *unused)
{
	of_first = thread_block();
	return unused;
}

static void *hold_second(void *unused)
{
	of_second = thread_block();
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return unused;
}

/* The storage of the thread that is gone is another one's, with the block, behind the first look. */
static int begin_second(enum inject_point point)
{
	pthread_attr_t attributes;

	if (point != INJECT_LEFT)
		return 0;
	libpatch_inject = NULL;
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, first.stack, STACK_SIZE);
	cr_assert_eq(pthread_create(&second.thread, &attributes, hold_second, NULL), 0);
	pthread_barrier_wait(&barrier);
	return 0;
}

Test(thread_block, is_not_taken_from_a_new_thread_at_the_same_storage)
{
	struct on_own_stack others[7];

	pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(others) + 1);
	start(&first, tell_first, NULL);
	pthread_join(first.thread, NULL);
	memset(first.stack, 0xff, STACK_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(others); ++i)
		start(&others[i], hold, NULL);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < ARRAY_SIZE(others); ++i)
		end(&others[i], KEPT);
	pthread_barrier_destroy(&barrier);
	pthread_barrier_init(&barrier, NULL, 2);
	libpatch_inject = begin_second;
	cr_expect_not_null(thread_block());
	cr_assert_null(libpatch_inject, "no block was seen to be left");
	cr_expect_eq(of_second, of_first);
	cr_expect_neq(thread_block(), of_second);
	pthread_barrier_wait(&barrier);
	pthread_join(second.thread, NULL);
}

static void use_in_another(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, use, (void *)1);
	pthread_join(thread, NULL);
}

static struct thread_block *handlers;

static int handler_has_one(enum inject_point point)
{
	if (point == INJECT_MMAP) {
		libpatch_inject = NULL;
		handlers = thread_block();
		if (handlers != NULL)
			handlers->errors.length = 2;
	}
	return 0;
}

Test(thread_block, of_a_handler_that_interrupts_stays)
{
	hold_blocks();
	libpatch_inject = handler_has_one;
	cr_expect_not_null(thread_block());
	cr_expect_not_null(handlers);
	cr_expect_eq(thread_block(), handlers);
	cr_expect_eq(handlers->errors.length, 2);
	/* Nobody else takes it. */
	use_in_another();
	cr_expect_eq(handlers->errors.length, 2);
	let_go();
}

static int no_memory(enum inject_point point)
{
	return point == INJECT_MMAP ? ENOMEM : 0;
}

Test(thread_block, without_memory_there_is_none)
{
	hold_blocks();
	libpatch_inject = no_memory;
	cr_expect_null(thread_block());
	cr_expect_null(thread_block_known());
	libpatch_inject = NULL;
	cr_expect_not_null(thread_block());
	let_go();
}
