/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fork() takes locks before it makes the child: malloc()'s, and those of the program's atfork handlers. A thread that
 * has such a lock calls the library meanwhile: in a handler that interrupted malloc(), or simply. Neither waits for the
 * other. And however the child is made, it finds the library in order. So it is where the program has a handler of
 * SIGSYS, as long as there is no filter that would raise it.
 */
#include "targets.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t locked, forking;
static patch_t patch;
static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void on_sys(int signo)
{
	(void)signo;
}

static void prepare(void)
{
	sem_post(&forking);
	pthread_mutex_lock(&lock);
}

static void after(void)
{
	pthread_mutex_unlock(&lock);
}

static void *change_with_lock(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	sem_post(&locked);
	sem_wait(&forking);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void child(void)
{
	hits = 0;
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	_exit(0);
}

static void end_of(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

static void *wait_with_lock(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	sem_post(&locked);
	sem_wait(&forking);
	CHECK_OK(patch_synchronize(0));
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* Registered first, so that it is called last: with a lock of the library's, if one is taken there. */
static void begin_with_lock(void)
{
	REQUIRE(pthread_atfork(prepare, after, after) == 0);
	sem_init(&locked, 0, 0);
	sem_init(&forking, 0, 0);
	REQUIRE_OK(patch_init(NULL, 0));
}

static void locks_after_the_end(void *unused)
{
	pthread_t thread;
	pid_t pid;

	(void)unused;
	begin_with_lock();
	CHECK_OK(patch_fini());
	REQUIRE(pthread_create(&thread, NULL, wait_with_lock, NULL) == 0);
	sem_wait(&locked);
	pid = fork();
	if (pid == 0)
		_exit(0);
	end_of(pid);
	pthread_join(thread, NULL);
}

static void locks_of_the_program(void *unused)
{
	pthread_t thread;
	pid_t pid;

	(void)unused;
	begin_with_lock();
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, change_with_lock, NULL) == 0);
	sem_wait(&locked);
	pid = fork();
	if (pid == 0)
		child();
	end_of(pid);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

/* Runtimes have a handler of every signal (Go). */
static void handle_sys(void)
{
	struct sigaction action = { .sa_handler = on_sys };

	if (prctl(PR_GET_SECCOMP) != 0)
		SKIP("there is a filter of system calls");
	REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
}

static void locks_with_handler(void *unused)
{
	handle_sys();
	locks_of_the_program(unused);
}

/* ---- ways of forking that no atfork handler sees ---------------------------------------------------------------- */

static pid_t by_fork_call(void)
{
	return (pid_t)syscall(SYS_fork);
}

static pid_t by_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static pid_t by_clone3(void)
{
	uint64_t arguments[8] = { [4] = SIGCHLD };

	return (pid_t)syscall(SYS_clone3, arguments, sizeof(arguments));
}

/* glibc has it from 2.34 on. */
extern __attribute__((weak)) pid_t _Fork(void);

static const struct way {
	const char *name;
	pid_t (*fork)(void);
} ways[] = { { "fork", fork },
	     { "_Fork", _Fork },
	     { "SYS_fork", by_fork_call },
	     { "SYS_clone", by_clone },
	     { "SYS_clone3", by_clone3 } };

static unsigned int stop, toggles;

static void *toggle(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		patch_t other;

		CHECK_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				    &other));
		CHECK_OK(patch_commit());
		CHECK_OK(patch_unmake(other));
		CHECK_OK(patch_commit());
		__atomic_fetch_add(&toggles, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* At any instant of what another thread does in the library. */
static void beside_changes(void *argument)
{
	const struct way *way = argument;
	pthread_t thread;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, toggle, NULL) == 0);
	for (int round = 0; round < 200; round++) {
		unsigned int at = __atomic_load_n(&toggles, __ATOMIC_RELAXED);
		pid_t pid;

		CONTEXT("%s, round %d", way->name, round);
		pid = way->fork();
		if (pid == 0)
			child();
		end_of(pid);
		while (__atomic_load_n(&toggles, __ATOMIC_RELAXED) == at)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

static void changes_with_handler(void *way)
{
	handle_sys();
	beside_changes(way);
}

int main(void)
{
	harness_start();
	harness_isolated("locks of the program", locks_of_the_program, NULL);
	harness_isolated("locks of the program with a handler of SIGSYS", locks_with_handler, NULL);
	harness_isolated("locks of the program after patch_fini()", locks_after_the_end, NULL);
	for (size_t n = 0; n < sizeof(ways) / sizeof(ways[0]); n++)
		if (ways[n].fork != NULL)
			harness_isolated(ways[n].name, beside_changes, (void *)&ways[n]);
	harness_isolated("SYS_fork with a handler of SIGSYS", changes_with_handler, (void *)&ways[2]);
	return harness_end();
}
