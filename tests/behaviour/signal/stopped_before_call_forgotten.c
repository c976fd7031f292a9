/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that somebody has stopped between the number of a system call and the call itself, before patch_init() and
 * over the first commit: the call, which blocks SIGTRAP, is not mediated. It waits, in no call, and blocks nothing; but
 * it is not past it, and would be killed by a trap byte that comes right behind its call: commits are refused until it
 * is, with its name.
 */
#include "targets.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/ptrace.h>
#include <sys/user.h>

/* Spins, until it is led behind the number's instruction: int spin_before_call(long how, const uint64_t *set). */
long spin_before_call(long how, const uint64_t *set);
extern const volatile uint32_t spin_goes_on;
extern const uint64_t spin_in_front;

__asm__(".text\n"
	".balign 16\n"
	".globl spin_before_call\n"
	".type spin_before_call, @function\n"
	"spin_before_call:\n"
	".cfi_startproc\n"
	"	xor %edx, %edx\n"
	"	mov $8, %r10d\n"
	"1:	pause\n"
	"	cmpl $0, spin_goes_on(%rip)\n"
	"	je 1b\n"
	"	mov $14, %eax\n" /* SYS_rt_sigprocmask */
	"2:	syscall\n"
	"	ret\n"
	".cfi_endproc\n"
	".size spin_before_call, . - spin_before_call\n"
	".section .rodata\n"
	".balign 8\n"
	"spin_in_front: .quad 2b - spin_before_call\n"
	"spin_goes_on: .long 0\n"
	".text\n");

static unsigned int hits;
static bool reads_back;
static pid_t spinner;
static sem_t begun, blocked, go_on;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void *block(void *unused)
{
	const uint64_t set = (uint64_t)1 << (SIGTRAP - 1);
	sigset_t now;

	__atomic_store_n(&spinner, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	sem_post(&begun);
	REQUIRE(spin_before_call(SIG_BLOCK, &set) == 0);
	sem_post(&blocked);
	sem_wait(&go_on);
	t_push_push(1, 2);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	reads_back = sigismember(&now, SIGTRAP) == 1;
	return unused;
}

/* Leads the thread to its call, says so, and lets it go when it is told to. 1: it may not trace. */
static int stop_and_lead(pid_t tid, int told, int tell)
{
	struct user_regs_struct registers;
	char byte = 0;
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
		return 1;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) != 0 || waitpid(tid, &status, __WALL) != tid ||
	    ptrace(PTRACE_GETREGS, tid, NULL, &registers) != 0)
		return 2;
	/* It may have been on its way there, or in the call that says that it is. */
	while (registers.rip - (uintptr_t)spin_before_call >= spin_in_front) {
		if (ptrace(PTRACE_SINGLESTEP, tid, NULL, NULL) != 0 || waitpid(tid, &status, __WALL) != tid ||
		    ptrace(PTRACE_GETREGS, tid, NULL, &registers) != 0)
			return 2;
	}
	registers.rip = (uintptr_t)spin_before_call + spin_in_front;
	registers.rdx = 0;
	registers.r10 = 8;
	registers.rax = SYS_rt_sigprocmask;
	if (ptrace(PTRACE_SETREGS, tid, NULL, &registers) != 0 || write(tell, &byte, 1) != 1 ||
	    read(told, &byte, 1) != 1)
		return 2;
	return ptrace(PTRACE_DETACH, tid, NULL, NULL) != 0 ? 2 : 0;
}

static void run(void *unused)
{
	int to[2], from[2], status;
	char name[32];
	patch_t patch, other;
	pthread_t thread;
	char byte = 0;
	pid_t tracer, child;

	(void)unused;
	sem_init(&begun, 0, 0);
	sem_init(&blocked, 0, 0);
	sem_init(&go_on, 0, 0);
	REQUIRE(pipe(to) == 0 && pipe(from) == 0);
	REQUIRE(pthread_create(&thread, NULL, block, NULL) == 0);
	sem_wait(&begun);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	tracer = fork();
	REQUIRE(tracer >= 0);
	if (tracer == 0) {
		close(from[0]);
		close(to[1]);
		_exit(stop_and_lead(spinner, to[0], from[1]));
	}
	close(from[1]);
	if (read(from[0], &byte, 1) != 1) {
		REQUIRE(waitpid(tracer, &status, 0) == tracer);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
			SKIP("a child may not trace its parent%s", "");
		FAIL("the tracer ended with status %#x", (unsigned int)status);
	}

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	snprintf(name, sizeof(name), "%d (", (int)spinner);
	CHECK(strstr(harness_last_error(), name));
	/* In /proc this child has one thread, which says nothing of that one. */
	child = vfork();
	if (child == 0)
		_exit(patch_commit());
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == PATCH_EFAIL);
	REQUIRE_OK(make_probe((uintptr_t)t_4_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 0);

	REQUIRE(write(to[1], &byte, 1) == 1);
	REQUIRE(waitpid(tracer, &status, 0) == tracer);
	CHECK_EQ(status, 0);
	sem_wait(&blocked);
	REQUIRE_OK(make_probe((uintptr_t)t_2_2_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	CHECK_OK(patch_commit());
	sem_post(&go_on);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 1);
	CHECK(reads_back);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("a debugger", run, NULL);
	return harness_end();
}
