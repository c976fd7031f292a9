/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io_uring_enter() that submits and waits says how much it submitted, also when a signal has ended the wait: the signal
 * is one that the wait's mask has let through, and its handler begins with that mask.
 */
#include "targets.h"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static const int signals[] = { SIGUSR1, SIGTRAP, SIGILL };
static unsigned int handled;
static uint64_t mask_in_handler;
static int ring;
static unsigned int *tail;
static struct io_uring_sqe *entry;

static uint64_t mask_now(void)
{
	uint64_t now = 0;

	REQUIRE(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, sizeof(now)) == 0);
	return now;
}

static void on_signal(int signo)
{
	(void)signo;
	handled++;
	mask_in_handler = mask_now();
}

/* Nothing of it completes before a signal comes: it waits for more than there can be. */
static long submit_and_wait(const uint64_t *mask)
{
	memset(entry, 0, sizeof(*entry));
	entry->opcode = IORING_OP_NOP;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	return syscall(SYS_io_uring_enter, ring, 1, 64, IORING_ENTER_GETEVENTS, mask, sizeof(*mask));
}

static void check(int signo)
{
	uint64_t all = ~UINT64_C(0), before = mask_now(), none = 0;

	REQUIRE(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all)) == 0);
	all = mask_now();
	handled = 0;
	raise(signo);
	CHECK_EQ(handled, 0);
	CHECK_EQ(submit_and_wait(&none), 1);
	CHECK_EQ(handled, 1);
	CHECK_EQ(mask_in_handler, UINT64_C(1) << (signo - 1));
	CHECK_EQ(mask_now(), all);
	REQUIRE(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before)) == 0);
	CHECK_EQ(handled, 1);
}

static void check_all(void)
{
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i)
		check(signals[i]);
}

int main(void)
{
	struct io_uring_params parameters = { .flags = IORING_SETUP_CQSIZE, .cq_entries = 64 };
	uint8_t *queue;

	harness_start();
	ring = (int)syscall(SYS_io_uring_setup, 4, &parameters);
	if (ring < 0)
		SKIP("io_uring_setup: %s", strerror(errno));
	queue = mmap(NULL, parameters.sq_off.array + parameters.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED,
		     ring, IORING_OFF_SQ_RING);
	entry = mmap(NULL, parameters.sq_entries * sizeof(*entry), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		     IORING_OFF_SQES);
	REQUIRE(queue != MAP_FAILED && entry != MAP_FAILED);
	tail = (unsigned int *)(queue + parameters.sq_off.tail);
	/* Each place leads to the one entry. */
	memset(queue + parameters.sq_off.array, 0, parameters.sq_entries * 4);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i)
		REQUIRE(signal(signals[i], on_signal) == SIG_DFL);
	check_all();
	REQUIRE_OK(patch_init(NULL, 0));
	check_all();
	CHECK_OK(patch_fini());
	return harness_end();
}
