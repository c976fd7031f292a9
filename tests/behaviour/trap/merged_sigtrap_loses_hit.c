/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SIGTRAP is not queued: when one that was sent is pending while a thread executes a trap byte, a single signal
 * arrives, with the words of the one that was sent and rip behind the trap byte (hazard 4). Both are due: the hit, and
 * the program's signal. A thread that went on from there would do so in the middle of the instruction.
 *
 * First merged by hand, in a handler in front, which calls each trap a signal that was sent; then by the kernel, with a
 * thread that sends them without end.
 */
#include "targets.h"

#include <libpatch/tools.h>
#include <pthread.h>
#include <sys/syscall.h>

#define BY_HAND 100
#define ENOUGH 20
#define MOST 200000

static const struct target *target;
static uintptr_t behind; /* the trap byte */
static bool by_hand;
static volatile unsigned int hits, sent, merged;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* The program's own. */
static void on_sent(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	CHECK(info->si_code <= 0);
	sent++;
}

/* A tool's, in front of the library's. */
static void in_front(int signo, siginfo_t *info, void *context)
{
	if ((uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] == behind) {
		if (by_hand)
			info->si_code = SI_TKILL;
		if (info->si_code <= 0)
			merged++;
	}
	libpatch_on_trap(signo, info, context);
}

static void install(void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = handler;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
}

static void call(unsigned int number)
{
	unsigned int before = hits;

	CHECK_EQ(target->function(number, 7), target->model(number, 7));
	CHECK_EQ(hits, before + 1);
}

static void start(void)
{
	static patch_t patch;

	target = target_named("t_five_bytes");
	install(on_sent);
	REQUIRE_OK(patch_init(NULL, 0));
	install(in_front);
	REQUIRE_OK(make_probe(target_start(target), procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	behind = target_start(target) + 1;
	call(0);
	CHECK_EQ(merged, 0);
	CHECK_EQ(sent, 0);
}

static void merged_by_hand(void *argument)
{
	(void)argument;
	start();
	by_hand = true;
	for (unsigned int number = 1; number <= BY_HAND; number++) {
		CONTEXT("merged by hand, call %u", number);
		call(number);
		CHECK_EQ(merged, number);
		CHECK_EQ(sent, number);
	}
	CHECK_OK(patch_fini());
}

static pid_t receiver;
static bool stop;

static void *send_for_ever(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		syscall(SYS_tgkill, getpid(), receiver, SIGTRAP);
	return NULL;
}

static void merged_by_kernel(void *argument)
{
	unsigned int number = 0;
	pthread_t thread;

	(void)argument;
	start();
	receiver = (pid_t)syscall(SYS_gettid);
	REQUIRE(pthread_create(&thread, NULL, send_for_ever, NULL) == 0);
	while (number < MOST && merged < ENOUGH) {
		CONTEXT("merged by the kernel, call %u, %u merged", ++number, merged);
		call(number);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(sent > 0);
	CHECK_OK(patch_fini());
	harness_say("%u calls, %u signals sent, %u traps merged into one\n", number, sent, merged);
}

int main(void)
{
	harness_start();
	harness_isolated("merged by hand", merged_by_hand, NULL);
	harness_isolated("merged by the kernel", merged_by_kernel, NULL);
	return harness_end();
}
