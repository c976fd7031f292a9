/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc blocks everything while it starts a thread. patch_init() finds such threads, and waits until they are past it,
 * as they soon are: no commit is refused because of them. Who was found to block SIGTRAP, and makes a thread or a
 * process that shares its memory before it unblocks it, does not hand that down: nobody would know, and the trap byte
 * would kill it.
 */
#include "targets.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static sem_t ready, go_on;
static _Atomic bool over, patched;
static unsigned int hits;
static pid_t main_thread;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void commit(void)
{
	patch_t patch;

	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
}

/* ---- a thread that is being started ------------------------------------------------------------------------------ */

/* As libc does it in pthread_create(): its own two signals, too, which its functions spare. */
static void block_as_libc_does(void)
{
	register long size __asm__("r10") = 8;
	uint64_t all = ~(uint64_t)0;
	long result;

	__asm__ volatile("mov %2, %%eax\n\tsyscall"
			 : "=a"(result)
			 : "D"((long)SIG_BLOCK), "i"(SYS_rt_sigprocmask), "S"(&all), "d"(0L), "r"(size)
			 : "rcx", "r11", "memory");
	REQUIRE(result == 0);
}

static bool is_asleep(pid_t tid)
{
	char name[64], text[64] = "";
	int fd;

	snprintf(name, sizeof(name), "/proc/self/task/%d/syscall", tid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = '\0';
	close(fd);
	return text[0] && strtol(text, NULL, 10) == SYS_nanosleep && text[0] != 'r';
}

/* Not run yet, as far as others can see, until somebody waits for it or does without. */
static void *start(void *unused)
{
	sigset_t none;

	block_as_libc_does();
	sem_post(&ready);
	while (!over && !is_asleep(main_thread))
		;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	while (!over)
		sched_yield();
	return unused;
}

static void started(void *unused)
{
	pthread_t thread;

	(void)unused;
	main_thread = (pid_t)syscall(SYS_gettid);
	REQUIRE(pthread_create(&thread, NULL, start, NULL) == 0);
	sem_wait(&ready);
	REQUIRE_OK(patch_init(NULL, 0));
	commit();
	CHECK_OK(patch_fini());
	over = true;
	pthread_join(thread, NULL);
}

/* ---- what is handed down ----------------------------------------------------------------------------------------- */

static char stack[1 << 16] __attribute__((aligned(16)));

static int child(void *unused)
{
	(void)unused;
	/* Not longer than the test. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!patched)
		;
	syscall(SYS_exit, t_push_push(1, 2) == 5 ? 0 : 1);
	return 1;
}

static void *parent(void *unused)
{
	sigset_t set;
	int status = 0;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sem_post(&ready);
	sem_wait(&go_on);
	pid = clone(child, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	REQUIRE(pid > 0);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	sem_post(&ready);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		FAIL("the child ended with %#x (%s)", (unsigned int)status,
		     WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "no signal");
	return unused;
}

static void handed_down(void *unused)
{
	pthread_t thread;

	(void)unused;
	REQUIRE(pthread_create(&thread, NULL, parent, NULL) == 0);
	sem_wait(&ready);
	REQUIRE_OK(patch_init(NULL, 0));
	sem_post(&go_on);
	sem_wait(&ready);
	commit();
	patched = true;
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 2);
	CHECK_OK(patch_fini());
}

int main(void)
{
	char name[64];

	harness_start();
	sem_init(&ready, 0, 0);
	sem_init(&go_on, 0, 0);
	harness_isolated("a process that a blocking thread makes", handed_down, NULL);
	snprintf(name, sizeof(name), "/proc/self/task/%d/syscall", (int)getpid());
	if (access(name, R_OK) != 0)
		SKIP("%s cannot be read", name);
	harness_isolated("a thread that is being started", started, NULL);
	return harness_end();
}
