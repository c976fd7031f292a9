/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread may have thread-local storage that is not libc's when a signal comes, as emulators do, whose handlers give
 * it libc's first of all and take it away again. Nothing of the library is there, and perhaps nothing at all. The
 * handler is entered as by the kernel, whatever it does with the storage; what the thread believes to block is what it
 * was, also behind a handler that begins with libc's and ends with another.
 */
#include "seccomp.h"
#include "targets.h"

#include <pthread.h>
#include <sys/auxv.h>

/* No stack protector reads its word in storage that is not there. */
#define PLAIN GP_ONLY __attribute__((optimize("no-stack-protector")))
#if defined(__clang__)
#undef PLAIN
#define PLAIN GP_ONLY
#endif

enum { MAPPED, NONE, ODD, FOREIGN };
static uintptr_t foreign[FOREIGN], own;
static uint8_t *page;

static PLAIN uintptr_t storage(void)
{
	uintptr_t address;

	__asm__ volatile("rdfsbase %0" : "=r"(address));
	return address;
}

static PLAIN void set_storage(uintptr_t address)
{
	__asm__ volatile("wrfsbase %0" : : "r"(address) : "memory");
}

static PLAIN long call(long number, long a, const void *b, void *c, long d)
{
	register long fourth __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

#define UNTOUCHED 1
static volatile int signals[32];
static volatile uintptr_t interrupted_at, leaves_with, runs_with, frame_at;
static volatile uint64_t mask_in_handler;

static PLAIN void handler(int signo, siginfo_t *info, void *context)
{
	const uintptr_t begun_with = storage();
	uint64_t mask = 0;

	(void)info;
	signals[signo]++;
	frame_at = (uintptr_t)__builtin_frame_address(0);
	interrupted_at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	if (signo == SIGILL)
		((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
	if (signo == SIGSYS)
		((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 5;
	if (runs_with != UNTOUCHED)
		set_storage(runs_with);
	if (signo != SIGSYS)
		call(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	mask_in_handler = mask;
	set_storage(leaves_with != UNTOUCHED ? leaves_with : begun_with);
}

static PLAIN void raise_one(int signo, pid_t pid, pid_t tid)
{
	if (signo == SIGTRAP)
		__asm__ volatile("int3");
	else if (signo == SIGILL)
		__asm__ volatile("ud2");
	else
		call(SYS_tgkill, pid, (void *)(uintptr_t)tid, (void *)(uintptr_t)signo, 0);
}

/* With the storage set to `begins`. */
static PLAIN void raise_with(uintptr_t begins, int signo, pid_t pid, pid_t tid)
{
	set_storage(begins);
	raise_one(signo, pid, tid);
	set_storage(own);
}

static uint64_t bit(int signo)
{
	return 1UL << (signo - 1);
}

static const int kinds[] = { SIGUSR1, SIGTRAP, SIGILL };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void check_storages(uintptr_t begins, uintptr_t runs, uintptr_t leaves)
{
	for (size_t i = 0; i < KINDS; i++) {
		const int signo = kinds[i];
		uint64_t now;

		CONTEXT("signal %d, begins with %#lx, runs with %#lx, leaves with %#lx", signo, (long)begins,
			(long)runs, (long)leaves);
		signals[signo] = 0;
		runs_with = runs;
		leaves_with = leaves;
		raise_with(begins, signo, getpid(), gettid());
		CHECK_EQ(signals[signo], 1);
		CHECK(mask_in_handler & bit(SIGUSR2));
		CHECK(mask_in_handler & bit(signo == SIGUSR1 ? SIGUSR1 : SIGUSR2));
		/* The kernel's own answer: owned signals stay open. */
		if (begins != own && runs == UNTOUCHED)
			CHECK_EQ(mask_in_handler & (bit(SIGTRAP) | bit(SIGILL)), 0);
		CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, sizeof(now)), 0);
		CHECK_EQ(now, bit(SIGWINCH));
		for (int at = 0; at < 4096; at++)
			if (page[at] != 0)
				FAIL("byte %d is %#x", at, page[at]);
	}
}

/* A handler runs on the stack of signals if it has asked for that. */
static void check_stack(struct sigaction action, int signo, int flag)
{
	static uint8_t memory[1 << 16];
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof(memory) };

	CONTEXT("signal %d, a stack for signals, flag %#x", signo, flag);
	action.sa_flags |= flag;
	REQUIRE(sigaltstack(&stack, NULL) == 0 && sigaction(signo, &action, NULL) == 0);
	signals[signo] = 0;
	runs_with = leaves_with = UNTOUCHED;
	raise_with(foreign[MAPPED], signo, getpid(), gettid());
	CHECK_EQ(signals[signo], 1);
	CHECK_EQ(frame_at - (uintptr_t)memory < sizeof(memory), flag != 0);
	stack.ss_flags = SS_DISABLE;
	REQUIRE(sigaltstack(&stack, NULL) == 0);
}

/* A handler that the kernel is to reset. */
static void check_reset(struct sigaction action, int signo)
{
	struct sigaction now;

	CONTEXT("signal %d, SA_RESETHAND", signo);
	action.sa_flags |= (int)SA_RESETHAND;
	REQUIRE(sigaction(signo, &action, NULL) == 0);
	signals[signo] = 0;
	runs_with = leaves_with = UNTOUCHED;
	raise_with(foreign[MAPPED], signo, getpid(), gettid());
	CHECK_EQ(signals[signo], 1);
	REQUIRE(sigaction(signo, NULL, &now) == 0);
	CHECK(now.sa_handler == SIG_DFL);
}

static void check_default(void *signo)
{
	signal((int)(intptr_t)signo, SIG_DFL);
	raise_with(foreign[MAPPED], (int)(intptr_t)signo, getpid(), gettid());
}

/* The thread may not change its mask, and is told so by a signal, which the kernel does not wait with. */
static void check_filtered(void *unused)
{
	(void)unused;
	if (filter_call(SYS_getppid, SECCOMP_RET_TRAP, 0) != 0 ||
	    filter_call(SYS_rt_sigprocmask, SECCOMP_RET_TRAP, 0) != 0)
		SKIP("filters of system calls are not allowed here");
	for (int i = 0; i < 2 * FOREIGN; i++) {
		const uintptr_t begins = i < FOREIGN ? own : foreign[i - FOREIGN], leaves = foreign[i % FOREIGN];

		CONTEXT("a filter, begins with %#lx, leaves with %#lx", (long)begins, (long)leaves);
		signals[SIGSYS] = 0;
		runs_with = UNTOUCHED;
		leaves_with = leaves;
		set_storage(begins);
		const long result = call(SYS_getppid, 0, NULL, NULL, 0);
		const uintptr_t left_with = storage();

		set_storage(own);
		CHECK_EQ(result, 5);
		CHECK_EQ(left_with, leaves);
		CHECK_EQ(signals[SIGSYS], 1);
	}
}

/* ---- a thread from before patch_init() -------------------------------------------------------------------------- */

static volatile int blocks, unblocks;

static PLAIN void *block_with(void *address)
{
	const uintptr_t of_libc = storage();
	uint64_t mask = ~UINT64_C(0);

	set_storage((uintptr_t)address);
	call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	blocks = 1;
	while (!unblocks)
		call(SYS_sched_yield, 0, NULL, NULL, 0);
	mask = 0;
	call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
	set_storage(of_libc);
	return NULL;
}

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* It cannot be adopted, where the library would write down what it believes: nothing is written there. */
static void check_adoption(void *unused)
{
	static uint64_t words[1 << 14] __attribute__((aligned(64)));
	uint64_t *const begin = words + (1 << 13);
	pthread_t thread;
	patch_t patch;

	(void)unused;
	/* As any storage has it. */
	*begin = (uintptr_t)begin;
	REQUIRE(pthread_create(&thread, NULL, block_with, begin) == 0);
	while (!blocks)
		sched_yield();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_EQ(patch_commit(), PATCH_EBLOCKED);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		CHECK_EQ(words[i], words + i == begin ? (uintptr_t)begin : 0);
	unblocks = 1;
	pthread_join(thread, NULL);
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_OK(patch_fini());
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	sigset_t set;

	harness_start();
	if (!(getauxval(AT_HWCAP2) & 2))
		SKIP("rdfsbase is not allowed here");
	/* Nothing is mapped in front. */
	page = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	page += 4096;
	REQUIRE(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
	own = storage();
	foreign[MAPPED] = (uintptr_t)page;
	foreign[NONE] = 0;
	foreign[ODD] = (uintptr_t)page + 4096 + 4;

	harness_isolated("adoption", check_adoption, NULL);
	REQUIRE_OK(patch_init(NULL, 0));
	sigfillset(&action.sa_mask);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGTRAP, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	for (int i = 0; i < FOREIGN; i++) {
		check_storages(foreign[i], UNTOUCHED, UNTOUCHED);
		check_storages(foreign[i], own, UNTOUCHED);
		check_storages(foreign[i], own, own);
		check_storages(own, UNTOUCHED, foreign[i]);
		check_storages(own, foreign[i], UNTOUCHED);
		check_storages(own, UNTOUCHED, UNTOUCHED);
	}
	for (size_t i = 0; i < KINDS; i++) {
		check_stack(action, kinds[i], 0);
		check_stack(action, kinds[i], SA_ONSTACK);
		check_reset(action, kinds[i]);
	}
	for (int i = 0; i < 2; i++) {
		const int signo = i == 0 ? SIGTRAP : SIGILL;
		int status = harness_child(check_default, (void *)(intptr_t)signo);

		CONTEXT("signal %d, by default", signo);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signo);
	}
	sigaction(SIGSYS, &action, NULL);
	harness_isolated("filter", check_filtered, NULL);
	CHECK_OK(patch_fini());
	return harness_end();
}
