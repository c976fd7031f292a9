/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_init(), commits and patch_fini() while threads block and unblock everything, start threads and programs: the
 * system calls of libc that do so change under them, where a trap would be fatal.
 */
#include "seccomp.h"
#include "targets.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/resource.h>

#define THREADS 3

static int stop, ending;
static unsigned int hits, rounds;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void *nothing(void *argument)
{
	return argument;
}

static void *masks(void *argument)
{
	sigset_t all, before, now;

	(void)argument;
	sigfillset(&all);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		REQUIRE(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
		t_push_push(1, 2);
		REQUIRE(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
		/* patch_fini() cannot block it again for other threads */
		CHECK(sigismember(&now, SIGTRAP) == 1 || __atomic_load_n(&ending, __ATOMIC_RELAXED));
		REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *starts(void *argument)
{
	pthread_t thread;

	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		REQUIRE(pthread_create(&thread, NULL, nothing, NULL) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *spawns(void *argument)
{
	char *arguments[] = { "true", NULL };
	int status;
	pid_t child;

	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		REQUIRE(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0);
		REQUIRE(waitpid(child, &status, 0) == child);
		CHECK_EQ(status, 0);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void wait_rounds(unsigned int more)
{
	unsigned int until = __atomic_load_n(&rounds, __ATOMIC_RELAXED) + more;

	while ((int)(__atomic_load_n(&rounds, __ATOMIC_RELAXED) - until) < 0)
		sched_yield();
}

/* A thread that had everything blocked, or was about to block it, is found, until it has passed by a mediated call. */
static void commit(void)
{
	patch_status status;

	while ((status = patch_commit()) == PATCH_EBLOCKED)
		wait_rounds(1);
	CHECK_OK(status);
}

static void run(void *argument)
{
	static void *(*const functions[THREADS])(void *) = { masks, starts, spawns };
	static const char *const names[] = { "pthread_create", "pthread_sigmask", "sigprocmask", "posix_spawn",
					     "waitpid" };
	struct text_copy before = text_of_target(target_named("t_push_push"));
	pthread_t threads[THREADS];
	unsigned int made = 0;
	patch_t patches[8];

	(void)argument;
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, functions[i], NULL) == 0);
	wait_rounds(100);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			      &patches[made++]));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (make_probe((uintptr_t)dlsym(RTLD_DEFAULT, names[i]), procedure, NULL,
			       i % 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			       &patches[made]) == PATCH_OK)
			made++;
	CHECK(made > 4);
	commit();
	for (int round = 0; round < 10; round++) {
		wait_rounds(50);
		for (unsigned int i = 0; i < made; i++)
			CHECK_OK(round % 2 ? patch_enable(patches[i]) : patch_disable(patches[i]));
		commit();
	}
	CHECK(hits > 0);
	__atomic_store_n(&ending, 1, __ATOMIC_RELAXED);
	CHECK_OK(patch_fini());
	wait_rounds(100);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_TEXT_SAME(&before);
}

/* ---- a child that was there before, without our handlers, in the same memory ------------------------------------- */

static char child_stack[65536] __attribute__((aligned(16)));
static unsigned int child_runs, child_may_go, child_result;

static int borrow(void *unused)
{
	(void)unused;
	__atomic_store_n(&child_runs, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&child_may_go, __ATOMIC_SEQ_CST))
		sched_yield();
	child_result = (unsigned int)t_push_push(5, 7);
	_exit(0);
}

static void *borrowed(void *pid)
{
	*(int *)pid = clone(borrow, child_stack + sizeof(child_stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	return NULL;
}

static void child_in_its_parents_memory(void *unused)
{
	pthread_t parent;
	patch_status status;
	int pid = -1, how;
	patch_t patch;

	(void)unused;
	REQUIRE(pthread_create(&parent, NULL, borrowed, &pid) == 0);
	while (!__atomic_load_n(&child_runs, __ATOMIC_SEQ_CST))
		sched_yield();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			      &patch));
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	__atomic_store_n(&child_may_go, 1, __ATOMIC_SEQ_CST);
	REQUIRE(pthread_join(parent, NULL) == 0);
	REQUIRE(pid > 0 && waitpid(pid, &how, 0) == pid);
	CHECK_EQ(how, 0);
	CHECK_EQ(child_result, target_named("t_push_push")->model(5, 7));
	while ((status = patch_commit()) == PATCH_EBLOCKED)
		sched_yield();
	CHECK_OK(status);
	hits = 0;
	CHECK_EQ(t_push_push(5, 7), target_named("t_push_push")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

/* ---- a thread that is about to make a call, with the number loaded ----------------------------------------------- */

/*
 * rt_sigprocmask(SIG_SETMASK, set, NULL, 8). What changes is at `window`; the thread is nearly always behind that, in
 * instructions that take long, and in front of the call.
 */
long window_sigprocmask(const uint64_t *set);
__asm__(".text\n.p2align 4\n.type window_sigprocmask, @function\nwindow_sigprocmask:\n.cfi_startproc\n"
	"	push %rbx\n	.cfi_adjust_cfa_offset 8\n	.cfi_offset %rbx, -16\n"
	"	mov %rdi, %rsi\n	mov $2, %edi\n	mov $8, %r10d\n	mov $14, %r8d\n"
	"window:	nopl 0x12345678(%rax,%rax)\n"
	"	pause\n	pause\n	pause\n	pause\n	pause\n	pause\n	pause\n	pause\n"
	"	xor %edx, %edx\n	mov %r8d, %eax\n	syscall\n"
	"	pop %rbx\n	.cfi_adjust_cfa_offset -8\n	.cfi_restore %rbx\n"
	"	ret\n.cfi_endproc\n.size window_sigprocmask, . - window_sigprocmask\n");

static int initialised;
static bool starves;

/* `stays`: what it blocks by the call in front of which it was interrupted is blocked from then on. */
static void *in_window(void *stays)
{
	const uint64_t all = ~(uint64_t)0, none = 0;

	if (starves)
		REQUIRE(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19) == 0);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		window_sigprocmask(&all);
		do {
			t_push_push(1, 2);
			__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
		} while (stays && __atomic_load_n(&initialised, __ATOMIC_RELAXED) &&
			 !__atomic_load_n(&stop, __ATOMIC_RELAXED));
		window_sigprocmask(&none);
	}
	return NULL;
}

/* On one processor: when this thread runs, the other one has been interrupted. */
static void preempted_before_the_call(void *stays)
{
	pthread_t thread;
	cpu_set_t one;
	patch_t patch;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
	REQUIRE(pthread_create(&thread, NULL, in_window, stays) == 0);
	wait_rounds(10);
	REQUIRE_OK(patch_init(NULL, 0));
	__atomic_store_n(&initialised, 1, __ATOMIC_RELAXED);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			      &patch));
	commit();
	wait_rounds(100);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

static void *takes_all_time(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		;
	return unused;
}

/* Others have the processor for longer than commits wait for a thread that may go on soon. */
static void starved_before_the_call(void *stays)
{
	pthread_t other;
	cpu_set_t one;

	starves = true;
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
	REQUIRE(pthread_create(&other, NULL, takes_all_time, NULL) == 0);
	preempted_before_the_call(stays);
	pthread_join(other, NULL);
}

static void *yields(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return unused;
}

/*
 * The kernel's ticks find the other one: this one is past all calls, and no commit is refused for it, or, where it must
 * not be traced, not for ever.
 */
static void runs_for_less_than_a_tick(void *refused)
{
	pthread_t other, thread;
	patch_status status;
	patch_t patch;
	cpu_set_t one;

	if (refused) {
		require_filters();
		refuse(SYS_ptrace, EPERM);
	}
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
	REQUIRE(pthread_create(&other, NULL, takes_all_time, NULL) == 0);
	REQUIRE(pthread_create(&thread, NULL, yields, NULL) == 0);
	wait_rounds(10);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			      &patch));
	/* Each round it loses the processor to the other one: no tick is needed. */
	status = patch_commit();
	for (int tries = 0; refused && status == PATCH_EBLOCKED && tries < 64; tries++) {
		wait_rounds(1);
		status = patch_commit();
	}
	CHECK_OK(status);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	pthread_join(other, NULL);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (int i = 0; i < 40; i++)
		harness_isolated(i % 2 ? "a thread in front of a call" : "a thread in front of its last call",
				 preempted_before_the_call, i % 2 ? NULL : &stop);
	for (int i = 0; i < 8; i++)
		harness_isolated("a starved thread in front of a call", starved_before_the_call, NULL);
	harness_isolated("a thread that never runs for long", runs_for_less_than_a_tick, NULL);
	harness_isolated("one that must not be traced", runs_for_less_than_a_tick, &stop);
	harness_isolated("a child in its parent's memory", child_in_its_parents_memory, NULL);
	for (int i = 0; i < 20; i++)
		harness_isolated("threads that block everything", run, NULL);
	return harness_end();
}
