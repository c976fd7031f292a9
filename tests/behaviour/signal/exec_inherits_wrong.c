/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that is executed inherits the mask, the ignored signals, and the pending signals that its parent believes
 * to have, SIGTRAP included. What the child of vfork() does to its signals before that is its own: the parent's stay as
 * they were.
 */
#include "targets.h"

#include <pthread.h>
#include <spawn.h>

static void on_trap(int signo)
{
	(void)signo;
}

/* Executed: say what was inherited, by the exit status. */
static int inherited(void)
{
	struct sigaction action;
	sigset_t now, pending;

	sigprocmask(SIG_BLOCK, NULL, &now);
	sigpending(&pending);
	sigaction(SIGTRAP, NULL, &action);
	return 16 | (sigismember(&now, SIGTRAP) ? 1 : 0) | (action.sa_handler == SIG_IGN ? 2 : 0) |
	       (sigismember(&now, SIGUSR1) ? 4 : 0) | (sigismember(&now, SIGILL) ? 8 : 0) |
	       (sigismember(&pending, SIGTRAP) ? 32 : 0);
}

static char self[256];
static char *arguments[] = { self, "inherited", NULL };

static int ended(pid_t child)
{
	int status;

	REQUIRE(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static int execute(void)
{
	pid_t child = fork();

	if (child == 0) {
		execv(self, arguments);
		_exit(1);
	}
	return ended(child);
}

/* With a SIGTRAP that is pending, also behind a call that fails. */
static int execute_pending(void)
{
	pid_t child = fork();
	sigset_t pending;

	if (child == 0) {
		raise(SIGTRAP);
		execv("/nowhere", arguments);
		sigpending(&pending);
		if (!sigismember(&pending, SIGTRAP))
			_exit(2);
		execv(self, arguments);
		_exit(1);
	}
	return ended(child);
}

static void set(int how, int signo)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, signo);
	REQUIRE(sigprocmask(how, &mask, NULL) == 0);
}

static void own(void *argument)
{
	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_EQ(execute(), 16);
	set(SIG_BLOCK, SIGTRAP);
	CHECK_EQ(execute(), 16 | 1);
	CHECK_EQ(execute_pending(), 16 | 1 | 32);
	set(SIG_BLOCK, SIGUSR1);
	CHECK_EQ(execute(), 16 | 1 | 4);
	REQUIRE(signal(SIGTRAP, SIG_IGN) == SIG_DFL);
	CHECK_EQ(execute(), 16 | 1 | 2 | 4);
	set(SIG_UNBLOCK, SIGTRAP);
	CHECK_EQ(execute(), 16 | 2 | 4);
	/* a call that fails leaves all as it was */
	CHECK_EQ(execv("/nowhere", arguments), -1);
	CHECK_EQ(errno, ENOENT);
	raise(SIGTRAP);
	REQUIRE(signal(SIGTRAP, on_trap) == SIG_IGN);
	CHECK_EQ(execute(), 16 | 4);
	set(SIG_BLOCK, SIGILL);
	CHECK_EQ(execute(), 16 | 4 | 8);
	CHECK_OK(patch_fini());
}

static void check_parent(void)
{
	struct sigaction action;
	sigset_t now;

	REQUIRE(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(!sigismember(&now, SIGTRAP));
	CHECK(!sigismember(&now, SIGUSR1));
	REQUIRE(sigaction(SIGTRAP, NULL, &action) == 0);
	CHECK(action.sa_handler == on_trap);
	REQUIRE(raise(SIGTRAP) == 0);
}

static void borrowed(void *argument)
{
	posix_spawnattr_t attributes;
	struct sigaction action;
	sigset_t all, now;
	pid_t child;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(signal(SIGTRAP, on_trap) == SIG_DFL);
	sigfillset(&all);
	child = vfork();
	if (child == 0) {
		sigprocmask(SIG_SETMASK, &all, NULL);
		sigprocmask(SIG_BLOCK, NULL, &now);
		signal(SIGTRAP, SIG_IGN);
		sigaction(SIGTRAP, NULL, &action);
		if (!sigismember(&now, SIGTRAP) || action.sa_handler != SIG_IGN)
			_exit(1);
		execv(self, arguments);
		_exit(2);
	}
	CHECK_EQ(ended(child), 16 | 1 | 2 | 4 | 8);
	check_parent();

	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &all);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	REQUIRE(posix_spawn(&child, self, NULL, &attributes, arguments, environ) == 0);
	CHECK_EQ(ended(child), 16 | 1 | 4 | 8);
	check_parent();
	REQUIRE(posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0);
	CHECK_EQ(ended(child), 16);
	check_parent();
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	ssize_t length;

	if (argc > 1 && strcmp(argv[1], "inherited") == 0)
		return inherited();
	harness_start();
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	REQUIRE(length > 0);
	(void)argv;
	harness_isolated("of its own", own, NULL);
	harness_isolated("of a child that borrows its memory", borrowed, NULL);
	return harness_end();
}
