/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread blocks SIGTRAP by means that the library does not see, or did so before patch_init(). It is adopted: the
 * commit works, the thread reads back what it blocks, and a signal that is sent to it waits. Where it cannot be,
 * because somebody traces it, a commit that writes int3 says so, and changes no text, until it does not block it any
 * more. What needs no change of text is done all the same.
 */
#include "targets.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

static unsigned int hits, other_hits;
static sem_t blocked, go_on, unblocked, end;
static bool by_libc, traced;
static pid_t blocker;
static bool reads_back, waits;
static unsigned int sent;
static volatile long mask_number = SYS_rt_sigprocmask;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

GP_ONLY static void other_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	other_hits++;
}

/* The number is not known where the call is made, nor is there room for a jump. */
static NOINLINE void raw_mask(int how, uint64_t set, long number)
{
	register long size __asm__("r10") = 8;
	long result;

	__asm__ volatile("xchg %%rax, %%rax\n\tnop\n\tsyscall"
			 : "=a"(result)
			 : "a"(number), "D"((long)how), "S"(&set), "d"(0L), "r"(size)
			 : "rcx", "r11", "memory");
	REQUIRE(result == 0);
}

static void on_sent(int signo)
{
	(void)signo;
	sent++;
}

/* Somebody's debugger: goes on with what the thread gets. */
static pid_t trace(pid_t tid)
{
	int ready[2], status;
	pid_t tracer;
	char byte = 0;

	REQUIRE(pipe(ready) == 0);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	tracer = fork();
	REQUIRE(tracer >= 0);
	if (tracer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
			byte = 1;
		if (write(ready[1], &byte, 1) != 1 || byte)
			_exit(1);
		while (waitpid(-1, &status, __WALL) > 0)
			if (WIFSTOPPED(status))
				ptrace(PTRACE_CONT, tid, NULL, (long)WSTOPSIG(status));
		_exit(0);
	}
	REQUIRE(read(ready[0], &byte, 1) == 1);
	REQUIRE(byte == 0);
	return tracer;
}

static void *block(void *argument)
{
	sigset_t now;
	uint64_t set = *(const uint64_t *)argument;
	sigset_t mask;

	memset(&mask, 0, sizeof(mask));
	memcpy(&mask, &set, sizeof(set));
	if (by_libc)
		pthread_sigmask(SIG_BLOCK, &mask, NULL);
	else
		raw_mask(SIG_BLOCK, set, mask_number);
	blocker = (pid_t)syscall(SYS_gettid);
	sem_post(&blocked);
	sem_wait(&go_on);
	/* Its next call of that kind is seen. */
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	reads_back = sigismember(&now, SIGTRAP) == 1;
	raise(SIGTRAP);
	sigpending(&now);
	waits = sent == 0 && sigismember(&now, SIGTRAP) == 1;
	if (!traced)
		t_push_push(1, 2);
	if (!by_libc)
		raw_mask(SIG_UNBLOCK, set, mask_number);
	/* A thread that was adopted has to say so by a call that is seen. */
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	sem_post(&unblocked);
	sem_wait(&end);
	t_push_push(1, 2);
	return NULL;
}

static void run(uint64_t set, bool before)
{
	struct text_copy text = text_of_target(target_named("t_push_push"));
	struct patch_error error;
	patch_t patch = NULL, stays = NULL, goes = NULL;
	struct sigaction action = { .sa_handler = on_sent };
	pthread_t thread;
	pid_t tracer = 0;

	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	sem_init(&blocked, 0, 0);
	sem_init(&go_on, 0, 0);
	sem_init(&unblocked, 0, 0);
	sem_init(&end, 0, 0);
	if (!before) {
		REQUIRE_OK(patch_init(NULL, 0));
		REQUIRE_OK(make_probe((uintptr_t)t_nops, other_procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				      &stays));
		REQUIRE_OK(make_probe((uintptr_t)t_nops, other_procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				      &goes));
		REQUIRE_OK(patch_commit());
		t_nops(1, 2);
		CHECK_EQ(other_hits, 2);
	}
	REQUIRE(pthread_create(&thread, NULL, block, &set) == 0);
	sem_wait(&blocked);
	if (traced)
		tracer = trace(blocker);
	if (before)
		REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	for (int i = 0; i < 3; ++i) {
		if (goes != NULL)
			CHECK_OK(i % 2 ? patch_enable(goes) : patch_disable(goes));
		if (!traced) {
			CHECK_OK(patch_commit());
			continue;
		}
		CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
		CHECK_EQ(patch_last_error(&error), PATCH_EBLOCKED);
		CHECK(error.irritant[0] != '\0' && error.message[0] != '\0');
		CHECK_TEXT_SAME(&text);
		CHECK_EQ(t_push_push(1, 2), 5);
		other_hits = 0;
		t_nops(1, 2);
		CHECK_EQ(other_hits, goes == NULL ? 0 : i % 2 ? 2 : 1);
	}
	CHECK_EQ(hits, 0);
	sem_post(&go_on);
	sem_wait(&unblocked);
	CHECK(reads_back);
	CHECK(waits);
	CHECK_EQ(sent, 1);
	/* nothing was lost */
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	sem_post(&end);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, traced ? 2 : 3);
	if (tracer != 0)
		kill(tracer, SIGKILL);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&text);
}

static void raw_all(void *argument)
{
	(void)argument;
	run(~(uint64_t)0, false);
}

static void raw_one(void *argument)
{
	(void)argument;
	run((uint64_t)1 << (SIGTRAP - 1), false);
}

static void before(void *argument)
{
	by_libc = *(const bool *)argument;
	run(~(uint64_t)0, true);
}

int main(void)
{
	bool libc = true, raw = false;

	harness_start();
	harness_isolated("everything, by a system call of its own", raw_all, NULL);
	harness_isolated("SIGTRAP, by a system call of its own", raw_one, NULL);
	harness_isolated("by libc, before patch_init()", before, &libc);
	harness_isolated("by itself, before patch_init()", before, &raw);
	traced = true;
	harness_isolated("everything, by a system call of its own, traced", raw_all, NULL);
	harness_isolated("SIGTRAP, by a system call of its own, traced", raw_one, NULL);
	harness_isolated("by libc, before patch_init(), traced", before, &libc);
	harness_isolated("by itself, before patch_init(), traced", before, &raw);
	return harness_end();
}
