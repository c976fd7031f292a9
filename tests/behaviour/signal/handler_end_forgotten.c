/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A handler is left at once where there is nothing to be done at its end. What there may be to be done, though neither
 * the handler's frame nor the thread's own belief has any owned signal: a trap that a tool in front has not handed on;
 * a signal of the process that another thread holds; a child in its parent's memory, which believes something else. And
 * what only one of the two has.
 */
#include "targets.h"

#include <libpatch/trap_handler.h>
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* Without SA_NODEFER the thread believes to block an owned signal in its handler, of which all else follows. */
static void set_handler(int signo, void (*handler)(int, siginfo_t *, void *), int masked)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigemptyset(&action.sa_mask);
	if (masked != 0)
		sigaddset(&action.sa_mask, masked);
	REQUIRE(sigaction(signo, &action, NULL) == 0);
}

/* By no call that is displaced: a handler that interrupts generated code has something to be done at its end. */
static void send_to(pid_t tid, int signo)
{
	const long process = syscall(SYS_getpid);
	long result;

	__asm__ volatile("mov %1, %%eax\n\tsyscall"
			 : "=&a"(result)
			 : "i"(SYS_tgkill), "D"(process), "S"((long)tid), "d"((long)signo)
			 : "rcx", "r11", "memory");
	REQUIRE(result == 0);
}

static bool is_blocked(int signo)
{
	sigset_t now;

	REQUIRE(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	return sigismember(&now, signo);
}

/* ---- a tool in front --------------------------------------------------------------------------------------------- */

static volatile bool hands_on;
static volatile unsigned int offered;

static void on_trap_in_front(int signo, siginfo_t *info, void *context)
{
	offered++;
	if (hands_on)
		libpatch_on_trap(signo, info, context);
}

/* It refers to the function, and does not call it. */
static void not_handed_on(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	set_handler(SIGTRAP, on_trap_in_front, 0);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	for (int i = 0; i < 4; i++) {
		hands_on = i % 2;
		hits = offered = 0;
		CHECK_EQ(t_push_push(5, 7), target_named("t_push_push")->model(5, 7));
		CHECK_EQ(hits, 1);
		CHECK(offered > 0);
	}
	CHECK_OK(patch_fini());
}

/* ---- held by another thread -------------------------------------------------------------------------------------- */

static _Atomic pid_t runner, trapped_in;
static _Atomic unsigned int handled;
static _Atomic bool over;

static void on_trap(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	(void)context;
	trapped_in = (pid_t)syscall(SYS_gettid);
}

static void on_usr1(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	(void)context;
	handled++;
}

/* No call that is mediated: it is told of nothing. */
static void *run(void *unused)
{
	runner = (pid_t)syscall(SYS_gettid);
	while (handled == 0)
		sched_yield();
	over = true;
	return unused;
}

/* The kernel gives it to the first thread, which believes to block it; the other one, which does not, may have it. */
static void held_for_the_process(void *held)
{
	const int signo = (int)(intptr_t)held;
	pthread_t thread;
	sigset_t set;

	REQUIRE_OK(patch_init(NULL, 0));
	set_handler(signo, on_trap, 0);
	set_handler(SIGUSR1, on_usr1, 0);
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	while (runner == 0)
		sched_yield();
	sigemptyset(&set);
	sigaddset(&set, signo);
	REQUIRE(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	REQUIRE(kill(getpid(), signo) == 0);
	if (trapped_in != 0)
		SKIP("the kernel gives a signal of the process to another thread than the first");
	send_to(runner, SIGUSR1);
	while (!over)
		sched_yield();
	CHECK_EQ(trapped_in, runner);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

/* ---- in its parent's memory -------------------------------------------------------------------------------------- */

static void child_handles(void)
{
	const unsigned int before = handled;

	set_handler(SIGUSR1, on_usr1, SIGTRAP);
	send_to((pid_t)syscall(SYS_gettid), SIGUSR1);
	_exit(handled == before ? 2 : is_blocked(SIGTRAP) ? 1 : 0);
}

static int child_on_its_stack(void *unused)
{
	(void)unused;
	child_handles();
	return 3;
}

static volatile bool in_handler;

static void on_usr2(int signo, siginfo_t *info, void *context)
{
	pid_t child = vfork();
	int status = -1;

	(void)signo;
	(void)info;
	(void)context;
	if (child == 0)
		child_handles();
	in_handler = true;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void what_the_child_believes(void *unused)
{
	static char stack[65536] __attribute__((aligned(16)));
	int status = -1;
	pid_t child;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	child = vfork();
	if (child == 0)
		child_handles();
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK(!is_blocked(SIGTRAP));
	child = clone(child_on_its_stack, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK(!is_blocked(SIGTRAP));
	/* In a handler of the parent's. */
	set_handler(SIGUSR2, on_usr2, 0);
	send_to((pid_t)syscall(SYS_gettid), SIGUSR2);
	CHECK(in_handler);
	CHECK(!is_blocked(SIGTRAP));
	CHECK_OK(patch_fini());
}

/* ---- what is believed -------------------------------------------------------------------------------------------- */

static void on_usr1_unblocking(int signo, siginfo_t *info, void *context)
{
	sigset_t set;

	(void)signo;
	(void)info;
	(void)context;
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
}

static void on_usr1_returning(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	(void)context;
}

/* The program blocks it, and the handler does not: in the frame only. The other way round: in the thread's belief. */
static void believed(void *unused)
{
	const pid_t self = (pid_t)syscall(SYS_gettid);
	sigset_t set;
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	set_handler(SIGUSR1, on_usr1_returning, SIGTRAP);
	send_to(self, SIGUSR1);
	CHECK(!is_blocked(SIGTRAP));
	set_handler(SIGUSR1, on_usr1_unblocking, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	send_to(self, SIGUSR1);
	/* The kernel does not. */
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK(is_blocked(SIGTRAP));
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("what is believed", believed, NULL);
	harness_isolated("not handed on", not_handed_on, NULL);
	harness_isolated("SIGTRAP held for the process", held_for_the_process, (void *)SIGTRAP);
	harness_isolated("SIGILL held for the process", held_for_the_process, (void *)SIGILL);
	harness_isolated("what a child believes", what_the_child_believes, NULL);
	return harness_end();
}
