/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ways out of a thread or a process that code seldom takes, each with patches in effect and changed on the way: a
 * daemon (two forks, setsid(), every descriptor closed) that patches on; a child of fork() while other threads
 * commit; vfork() and exec, or exit(); threads that end while a commit runs; a main thread that ends by
 * pthread_exit(); exit handlers and destructors; asynchronous cancellation in a procedure; longjmp() out of a probed
 * function and out of a procedure; a stack overflow whose handler, on a signal stack, is probed itself; a system
 * call displaced that makes a child on a stack of its own.
 */
#include "targets.h"

#include "seccomp.h"

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static _Atomic unsigned int hits;
static patch_t patch;
static jmp_buf out;
static enum { STAY, JUMP, LOOP } manner;

/* Alone in their windows, and never inlined. */
NOINLINE static uint64_t probed(uint64_t a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 1;
}

NOINLINE static uint64_t leaves(uint64_t a)
{
	if (a == 7)
		longjmp(out, 1);
	return a + 2;
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	atomic_fetch_add(&hits, 1);
	if (manner == JUMP)
		longjmp(out, 2);
	while (manner == LOOP)
		;
}

static uint64_t (*volatile call_probed)(uint64_t) = probed;
static uint64_t (*volatile call_leaves)(uint64_t) = leaves;

static void check_hit(unsigned int wanted)
{
	atomic_store(&hits, 0);
	CHECK_EQ(call_probed(3), 4);
	CHECK_EQ(atomic_load(&hits), wanted);
}

/* Takes it away and puts it back. */
static void toggle(void)
{
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	check_hit(0);
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	check_hit(1);
}

static void set_up(void)
{
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)probed, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	check_hit(1);
}

static void make_more(void)
{
	patch_t more;

	CHECK_OK(make_probe((uintptr_t)leaves, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &more));
	CHECK_OK(patch_commit());
	atomic_store(&hits, 0);
	CHECK_EQ(call_leaves(1), 3);
	CHECK_EQ(atomic_load(&hits), 1);
	CHECK_OK(patch_unmake(more));
	CHECK_OK(patch_commit());
}

/* A grandchild cannot be waited for: it says by a byte how it went, on the one descriptor it keeps. */
static void daemonises(void *argument)
{
	char result = 'x';
	int ends[2];
	pid_t pid;

	(void)argument;
	set_up();
	REQUIRE(pipe(ends) == 0);
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		REQUIRE(setsid() > 0);
		toggle();
		if (fork() != 0)
			_exit(0);
		for (int fd = 0; fd < 64; ++fd)
			if (fd != ends[1])
				close(fd);
		REQUIRE(chdir("/") == 0);
		for (int i = 0; i < 50; ++i)
			toggle();
		make_more();
		CHECK_OK(patch_fini());
		check_hit(0);
		result = harness_failures ? 'f' : 'k';
		_exit(write(ends[1], &result, 1) != 1);
	}
	close(ends[1]);
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	CHECK(read(ends[0], &result, 1) == 1);
	CHECK_EQ(result, 'k');
	toggle();
}

static atomic_bool stop;

static void *commits(void *argument)
{
	patch_t own;

	(void)argument;
	if (make_probe((uintptr_t)leaves, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &own) != PATCH_OK)
		return (void *)1;
	while (!atomic_load(&stop)) {
		if (patch_commit() != PATCH_OK || patch_disable(own) != PATCH_OK || patch_commit() != PATCH_OK ||
		    patch_enable(own) != PATCH_OK)
			return (void *)1;
	}
	return NULL;
}

static void forks_during_commits(void *argument)
{
	pthread_t thread;
	void *result;

	(void)argument;
	set_up();
	REQUIRE(pthread_create(&thread, NULL, commits, NULL) == 0);
	for (int i = 0; i < 300; ++i) {
		int status;
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			toggle();
			if (i % 2)
				CHECK_OK(patch_fini());
			check_hit(!(i % 2));
			CHECK_EQ(call_leaves(1), 3);
			_exit(harness_failures != 0);
		}
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
	}
	atomic_store(&stop, true);
	REQUIRE(pthread_join(thread, &result) == 0);
	CHECK(result == NULL);
	toggle();
}

static void vforks_and_executes(void *argument)
{
	(void)argument;
	set_up();
	for (int i = 0; i < 50; ++i) {
		volatile unsigned int seen = 0;
		int status;
		pid_t pid;

		atomic_store(&hits, 0);
		pid = vfork();
		REQUIRE(pid >= 0);
		if (pid == 0) {
			seen = (unsigned int)call_probed(3);
			execl("/bin/true", "true", (char *)NULL);
			_exit(99);
		}
		REQUIRE(waitpid(pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		CHECK_EQ(seen, 4);
		CHECK_EQ(atomic_load(&hits), 1); /* the same memory */
		toggle();
	}
}

static void on_signal(int signo)
{
	(void)signo;
	call_probed(3);
}

/* As a tool's destructor does it, when the child calls exit(). */
static void vforks_and_finishes(void *argument)
{
	const struct sigaction action = { .sa_handler = on_signal };
	struct patch_error error;
	struct sigaction now;
	int status;
	pid_t pid;

	(void)argument;
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	set_up();
	CHECK_STATUS(patch_enable(NULL), PATCH_ENEXIST);
	pid = vfork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(patch_fini());
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(WEXITSTATUS(status), PATCH_EFAIL);
	/* The child has its parent's errors, too. */
	CHECK_STATUS(patch_last_error(&error), PATCH_EFAIL);
	check_hit(1);
	REQUIRE(sigaction(SIGUSR1, NULL, &now) == 0);
	CHECK(now.sa_handler == on_signal);
	raise(SIGUSR1);
	CHECK_EQ(atomic_load(&hits), 2);
	toggle();
	CHECK_OK(patch_fini());
	check_hit(0);
}

static void *ends_soon(void *argument)
{
	call_probed(3);
	if (argument)
		pthread_exit(NULL);
	return NULL;
}

static void threads_end_during_commits(void *argument)
{
	pthread_t committer;
	void *result;

	(void)argument;
	set_up();
	REQUIRE(pthread_create(&committer, NULL, commits, NULL) == 0);
	for (uintptr_t i = 0; i < 500; ++i) {
		pthread_t thread;

		REQUIRE(pthread_create(&thread, NULL, ends_soon, (void *)(i % 2)) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
	atomic_store(&stop, true);
	REQUIRE(pthread_join(committer, &result) == 0);
	CHECK(result == NULL);
	toggle();
}

static pthread_t first;

/* System calls that this thread has to do without: other ways to write text, to read it. */
static const long without[][3] = {
	{ 0, 0, 0 },
	{ SYS_mprotect, SYS_mremap, SYS_memfd_create },
	{ SYS_pread64, 0, 0 },
};

static void *outlives_main(void *argument)
{
	const long *numbers = argument;

	REQUIRE(pthread_join(first, NULL) == 0);
	for (int n = 0; n < 3 && numbers[n] != 0; ++n)
		if (try_refuse(numbers[n], EPERM) != 0)
			SKIP("no filters");
	for (int i = 0; i < 50; ++i)
		toggle();
	make_more();
	/* What has to be restored whole is so by exchange of pages. */
	CHECK(patch_fini() == PATCH_OK || numbers[0] == SYS_mprotect);
	exit(harness_failures != 0);
}

static void main_thread_ends(void *argument)
{
	pthread_t thread;

	set_up();
	first = pthread_self();
	REQUIRE(pthread_create(&thread, NULL, outlives_main, argument) == 0);
	pthread_exit(NULL);
}

static void at_exit(void)
{
	toggle();
	make_more();
	if (harness_failures)
		_exit(1);
}

static bool exits;

__attribute__((destructor)) static void at_the_end(void)
{
	if (!exits)
		return;
	toggle();
	if (harness_failures)
		_exit(1);
}

static void exits_with_patches(void *argument)
{
	(void)argument;
	set_up();
	exits = true;
	REQUIRE(atexit(at_exit) == 0);
	exit(0);
}

static void *cancelled(void *argument)
{
	(void)argument;
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	call_probed(3);
	return NULL;
}

static void cancelled_at_any_time(void *argument)
{
	(void)argument;
	set_up();
	for (int i = 0; i < 20; ++i) {
		pthread_t thread;
		void *result;

		atomic_store(&hits, 0);
		manner = LOOP;
		REQUIRE(pthread_create(&thread, NULL, cancelled, NULL) == 0);
		while (atomic_load(&hits) == 0)
			sched_yield();
		REQUIRE(pthread_cancel(thread) == 0);
		REQUIRE(pthread_join(thread, &result) == 0);
		CHECK(result == PTHREAD_CANCELED);
		manner = STAY;
		toggle();
	}
}

/* Less than a hook takes of the stack. */
#define FRAME 320

NOINLINE static void hit_deeper(size_t by)
{
	volatile uint8_t *room = alloca(by);

	room[0] = 0;
	CHECK_EQ(call_probed(3), 4);
	room[0] = 1;
}

static void jumps_out(void *argument)
{
	patch_t other;

	(void)argument;
	set_up();
	REQUIRE_OK(make_probe((uintptr_t)leaves, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	REQUIRE_OK(patch_commit());
	for (volatile int i = 0; i < 100; ++i) {
		volatile int how = setjmp(out);

		if (how == 0) {
			manner = i % 2 ? JUMP : STAY;
			if (i % 2)
				call_probed(3);
			else
				call_leaves(7);
			FAIL("it came back");
		}
		CHECK_EQ(how, i % 2 ? 2 : 1);
		manner = STAY;
		toggle();
	}
	/* Without a call of the library between, which would notice. */
	for (volatile size_t deeper = 0; deeper <= FRAME; deeper += 16) {
		CONTEXT("longjmp, the next hook %zu deeper", deeper);
		if (setjmp(out) == 0) {
			manner = JUMP;
			atomic_store(&hits, 0);
			if (deeper == 0)
				call_probed(3);
			else
				hit_deeper(16);
			FAIL("it came back");
		}
		manner = STAY;
		CHECK_EQ(atomic_load(&hits), 1);
		if (deeper == 0)
			call_probed(3);
		else
			hit_deeper(deeper);
		CHECK_EQ(atomic_load(&hits), 2);
	}
}

static sigjmp_buf overflowed;
static volatile unsigned int overflows;

static void on_overflow(int signo)
{
	(void)signo;
	++overflows;
	call_probed(3); /* on the signal stack */
	siglongjmp(overflowed, 1);
}

static uint64_t recurses(uint64_t depth);
static uint64_t (*volatile call_recurses)(uint64_t) = recurses;

NOINLINE static uint64_t recurses(uint64_t depth)
{
	volatile uint8_t room[1000];

	room[0] = (uint8_t)depth;
	return call_recurses(depth + 1) + room[0] + depth;
}

static void overflows_its_stack(void *argument)
{
	static uint8_t stack[65536];
	stack_t signal_stack = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = on_overflow, .sa_flags = SA_ONSTACK };
	struct rlimit limit = { 1 << 20, 1 << 20 };
	patch_t deep;

	(void)argument;
	REQUIRE(setrlimit(RLIMIT_STACK, &limit) == 0);
	REQUIRE(sigaltstack(&signal_stack, NULL) == 0);
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	set_up();
	REQUIRE_OK(make_probe((uintptr_t)recurses, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &deep));
	REQUIRE_OK(patch_commit());
	for (volatile int i = 0; i < 5; ++i) {
		atomic_store(&hits, 0);
		if (sigsetjmp(overflowed, 1) == 0)
			call_recurses(0);
		CHECK_EQ(overflows, (unsigned int)i + 1);
		CHECK(atomic_load(&hits) > 500);
		toggle();
	}
}

/* rdi: flags, rsi: stack; the child returns to what its stack says. */
long bare_clone(long flags, void *stack);
extern uint8_t bare_clone_syscall[];
__asm__(".text\n.p2align 6, 0xcc\n.globl bare_clone\n.type bare_clone, @function\nbare_clone:\n.cfi_startproc\n"
	" xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n mov $56, %eax\n"
	".globl bare_clone_syscall\nbare_clone_syscall: syscall\n nop\n nop\n nop\n ret\n"
	".cfi_endproc\n.size bare_clone, . - bare_clone\n");

static volatile uint64_t child_saw;

static void in_child(void)
{
	child_saw = call_probed(41);
	raw_exit:
	__asm__ volatile("syscall" : : "a"(SYS_exit), "D"(0) : "rcx", "r11", "memory");
	goto raw_exit;
}

static void clones_on_a_new_stack(void *argument)
{
	static uint64_t stack[8192] __attribute__((aligned(16)));

	(void)argument;
	set_up();
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; ++policy) {
		patch_t call;
		int status;
		long pid;

		REQUIRE_OK(make_probe((uintptr_t)bare_clone_syscall, procedure, NULL, policy, PATCH_ENABLED, &call));
		REQUIRE_OK(patch_commit());
		stack[8000] = (uintptr_t)in_child;
		child_saw = 0;
		atomic_store(&hits, 0);
		pid = bare_clone(CLONE_VM | CLONE_VFORK | SIGCHLD, &stack[8000]);
		REQUIRE(pid > 0);
		REQUIRE(waitpid((pid_t)pid, &status, 0) == pid);
		CHECK_EQ(status, 0);
		CHECK_EQ(child_saw, 42);
		CHECK_EQ(atomic_load(&hits), 2); /* at the call, once; in the child */
		CHECK_OK(patch_unmake(call));
		CHECK_OK(patch_commit());
	}
}

int main(void)
{
	harness_start();
	harness_isolated("daemon", daemonises, NULL);
	harness_isolated("fork during commits", forks_during_commits, NULL);
	harness_isolated("vfork and exec", vforks_and_executes, NULL);
	harness_isolated("vfork and exit", vforks_and_finishes, NULL);
	harness_isolated("threads end during commits", threads_end_during_commits, NULL);
	for (size_t n = 0; n < sizeof(without) / sizeof(without[0]); ++n)
		harness_isolated("main thread ends", main_thread_ends, (void *)(uintptr_t)without[n]);
	harness_isolated("exit handlers", exits_with_patches, NULL);
	harness_isolated("asynchronous cancellation", cancelled_at_any_time, NULL);
	harness_isolated("longjmp", jumps_out, NULL);
	harness_isolated("stack overflow", overflows_its_stack, NULL);
	harness_isolated("clone on a new stack", clones_on_a_new_stack, NULL);
	return harness_end();
}
