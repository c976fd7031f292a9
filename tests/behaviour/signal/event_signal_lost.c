/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread asks for a SIGTRAP at events of its own (perf_event_open with `sigtrap`): it comes as without the library,
 * with the address and the data of the event, also where the thread blocks it, and the thread still meets traps.
 */
#include "targets.h"

#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/ioctl.h>

#define DATA 0x1234567890
#define WATCHED 4
#define SIZE 128 /* PERF_ATTR_SIZE_VER7 */
#define REMOVE_ON_EXEC (1UL << 36)
#define SIGTRAP_AT_EVENT (1UL << 37)
#define CODE 6 /* TRAP_PERF of Linux 5.13 */

/* As the kernel has it; libc's siginfo_t has no names for it yet. */
struct event_info {
	int signo, error, code, unused;
	uintptr_t address;
	uint64_t data;
	uint32_t type, flags;
};

static struct event_info last;
static volatile int handled;
static volatile int watched[WATCHED];

static void note(const siginfo_t *info)
{
	memcpy(&last, info, sizeof(last));
}

static void on_event(int signo, siginfo_t *info, void *context)
{
	(void)context;
	CHECK_EQ(signo, SIGTRAP);
	note(info);
	handled++;
}

/* -1: not to be had. */
static int open_event(volatile void *address)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = SIZE,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR,
		.bp_type = 2, /* it is written to */
		.bp_addr = (uintptr_t)address,
		.bp_len = sizeof(int),
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	/* What headers before Linux 5.13 have no names for. */
	uint64_t words[SIZE / 8] = { 0 };

	memcpy(words, &attr, sizeof(attr) < SIZE ? sizeof(attr) : SIZE);
	words[5] |= REMOVE_ON_EXEC | SIGTRAP_AT_EVENT;
	words[15] = DATA;
	return (int)syscall(SYS_perf_event_open, words, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void check_event(volatile void *address, bool late)
{
	/* A handler has written it. */
	__asm__ volatile("" : : : "memory");
	CHECK_EQ(last.code, CODE);
	CHECK_EQ(last.address, (uintptr_t)address);
	CHECK_EQ(last.data, DATA);
	CHECK_EQ(last.type, PERF_TYPE_BREAKPOINT);
	CHECK_EQ(last.flags, late);
}

static void block(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(sigprocmask(how, &set, NULL) == 0);
}

static void expect_signals(void)
{
	const struct sigaction action = { .sa_sigaction = on_event, .sa_flags = SA_SIGINFO };

	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
}

static void handles(void *unused)
{
	int fd = open_event(&watched[0]);

	(void)unused;
	expect_signals();
	handled = 0;
	for (int i = 1; i <= 100; i++) {
		watched[0] = i;
		CHECK_EQ(handled, i);
		check_event(&watched[0], false);
		CHECK_EQ(t_push_push(5, 7), 19);
	}
	close(fd);
}

static void *unblocks(void *unused)
{
	block(SIG_BLOCK);
	block(SIG_UNBLOCK);
	return unused;
}

/* It is the thread's, not the process's. */
static void blocks(void *unused)
{
	int fd = open_event(&watched[1]);
	sigset_t pending;
	pthread_t other;

	(void)unused;
	expect_signals();
	handled = 0;
	block(SIG_BLOCK);
	watched[1] = 1;
	watched[1] = 2;
	REQUIRE(pthread_create(&other, NULL, unblocks, NULL) == 0);
	REQUIRE(pthread_join(other, NULL) == 0);
	CHECK_EQ(t_push_push(5, 7), 19);
	CHECK_EQ(handled, 0);
	sigpending(&pending);
	CHECK(sigismember(&pending, SIGTRAP));
	block(SIG_UNBLOCK);
	CHECK_EQ(handled, 1);
	check_event(&watched[1], true);
	watched[1] = 3;
	CHECK_EQ(handled, 2);
	check_event(&watched[1], false);
	close(fd);
}

static void takes(void *unused)
{
	const struct timespec none = { 0, 0 };
	int fd = open_event(&watched[2]);
	siginfo_t info;
	sigset_t set;

	(void)unused;
	expect_signals();
	handled = 0;
	block(SIG_BLOCK);
	watched[2] = 1;
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(sigtimedwait(&set, &info, &none) == SIGTRAP);
	note(&info);
	check_event(&watched[2], true);
	CHECK_EQ(sigtimedwait(&set, &info, &none), -1);
	CHECK_EQ(handled, 0);
	CHECK_EQ(t_push_push(5, 7), 19);
	close(fd);
}

static void ignores(void *unused)
{
	int fd = open_event(&watched[3]);

	(void)unused;
	REQUIRE(signal(SIGTRAP, SIG_IGN) != SIG_ERR);
	watched[3] = 1;
	CHECK_EQ(t_push_push(5, 7), 19);
	close(fd);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* What the kernel does by itself is what is expected of the library. */
static void all_of(void)
{
	static const struct {
		const char *name;
		void (*test)(void *unused);
	} cases[] = { { "handles", handles }, { "blocks", blocks }, { "takes", takes }, { "ignores", ignores } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		harness_isolated(cases[i].name, cases[i].test, NULL);
}

int main(void)
{
	patch_t patch;
	int fd;

	harness_start();
	fd = open_event(&watched[0]);
	if (fd < 0)
		SKIP("no breakpoints by perf_event_open(): %s", strerror(errno));
	close(fd);
	all_of();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	all_of();
	return harness_end();
}
