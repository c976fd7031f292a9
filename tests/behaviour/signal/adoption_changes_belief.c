/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that blocks SIGTRAP, and not SIGILL, is all the time about to begin a handler, to end one, or to set its
 * mask, when patch_init() adopts it: it goes on to believe just that, and the first commit is not refused because of
 * what is blocked while a handler begins or ends. By load: a child for each late start.
 */
#include "targets.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define STARTS 25
#define FIRST 200
#define MORE 200

static atomic_ulong rounds, wrong;
static atomic_bool over;

static void on_signal(int signo)
{
	(void)signo;
}

/* It is pending, and comes out of the wait, whose mask is put back when the handler has returned. */
static void wait_for_handler(void)
{
	const struct timespec none = { 0, 0 };
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, SIGUSR1);
	raise(SIGUSR1);
	ppoll(NULL, 0, &none, &mask);
}

static void run_handler(void)
{
	raise(SIGUSR2);
}

static void set_mask(void)
{
	sigset_t mask, before;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigprocmask(SIG_BLOCK, &mask, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

/* What it blocks meanwhile is not what it believes. */
static void wait_alone(void)
{
	const struct timespec none = { 0, 0 };
	sigset_t mask;

	sigfillset(&mask);
	ppoll(NULL, 0, &none, &mask);
}

static const struct way {
	const char *name;
	void (*step)(void);
	bool blocks_all; /* while a handler runs */
} ways[] = {
	{ "handlers out of a wait", wait_for_handler, false },
	{ "handlers out of a wait that block all", wait_for_handler, true },
	{ "handlers", run_handler, false },
	{ "handlers that block all", run_handler, true },
	{ "masks set and put back", set_mask, false },
	{ "waits that block all", wait_alone, false },
};

static void *work(void *data)
{
	const struct way *way = data;
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTRAP);
	sigaddset(&mask, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	while (!over) {
		way->step();
		pthread_sigmask(SIG_SETMASK, NULL, &mask);
		if (sigismember(&mask, SIGTRAP) != 1 || sigismember(&mask, SIGILL) != 0)
			wrong++;
		rounds++;
	}
	return NULL;
}

static void wait_for_rounds(unsigned long count)
{
	const unsigned long begin = rounds;

	while (rounds - begin < count)
		sched_yield();
}

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void start_late(void *data)
{
	const struct way *way = data;
	struct sigaction action = { .sa_handler = on_signal };
	pthread_t thread;
	patch_t patch;

	if (way->blocks_all)
		sigfillset(&action.sa_mask);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
	REQUIRE(pthread_create(&thread, NULL, work, data) == 0);
	wait_for_rounds(FIRST);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	wait_for_rounds(MORE);
	over = true;
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_EQ(wrong, 0);
}

int main(void)
{
	harness_start();
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		const int before = harness_failures;

		for (int start = 0; start < STARTS && harness_failures == before; start++)
			harness_isolated(ways[i].name, start_late, (void *)&ways[i]);
	}
	return harness_end();
}
