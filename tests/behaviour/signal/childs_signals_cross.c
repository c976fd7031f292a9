/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child of vfork() or posix_spawn() runs in its parent's memory, and is another process: what is pending for its
 * parent, which blocks it, is not pending for the child, and does not come when the child unblocks it; what is sent to
 * the child is not its parent's, and pending for the program that the child executes.
 */
#include "targets.h"

#include <spawn.h>

extern char **environ;

static volatile int handled;

static void on_trap(int signo)
{
	(void)signo;
	handled++;
}

static void change_mask(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	REQUIRE(sigprocmask(how, &set, NULL) == 0);
}

static bool is_pending(void)
{
	sigset_t set;

	return sigpending(&set) == 0 && sigismember(&set, SIGTRAP) == 1;
}

static void start(void)
{
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(signal(SIGTRAP, on_trap) == SIG_DFL);
	change_mask(SIG_BLOCK);
}

static int wait_for(pid_t child)
{
	int status = -1;

	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	return status;
}

/* The parent's is there still, and comes to it. */
static void check_parents(void)
{
	CHECK_EQ(handled, 0);
	CHECK(is_pending());
	change_mask(SIG_UNBLOCK);
	CHECK_EQ(handled, 1);
	CHECK_OK(patch_fini());
}

static void spawned(void *unused)
{
	char *arguments[] = { "true", NULL };
	posix_spawnattr_t attributes;
	sigset_t none;
	pid_t child;

	(void)unused;
	start();
	raise(SIGTRAP);
	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &none);
	REQUIRE(posix_spawnp(&child, "true", NULL, &attributes, arguments, environ) == 0);
	CHECK_EQ(wait_for(child), 0);
	check_parents();
}

static void unblocked_by_child(void *unused)
{
	sigset_t set;
	pid_t child;

	(void)unused;
	start();
	raise(SIGTRAP);
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	child = vfork();
	if (child == 0)
		_exit(is_pending() | (sigprocmask(SIG_UNBLOCK, &set, NULL) != 0) << 1 | (handled != 0) << 2);
	CHECK_EQ(wait_for(child), 0);
	check_parents();
}

/* And the parent has one of its own. */
static void sent_to_child(void *own)
{
	pid_t child;

	start();
	if (own != NULL)
		raise(SIGTRAP);
	child = vfork();
	if (child == 0) {
		kill(getpid(), SIGTRAP);
		execlp("grep", "grep", "-q", "^ShdPnd:.*0010$", "/proc/self/status", (char *)NULL);
		_exit(127);
	}
	CHECK_EQ(wait_for(child), 0);
	if (own != NULL) {
		check_parents();
		return;
	}
	CHECK(!is_pending());
	change_mask(SIG_UNBLOCK);
	CHECK_EQ(handled, 0);
	CHECK_OK(patch_fini());
}

/* What one child has left is not the next one's. */
static void left_by_child(void *unused)
{
	pid_t child;

	(void)unused;
	start();
	for (int i = 0; i < 2; i++) {
		child = vfork();
		if (child == 0) {
			bool before = is_pending();

			kill(getpid(), SIGTRAP);
			_exit(before | !is_pending() << 1);
		}
		CHECK_EQ(wait_for(child), 0);
	}
	CHECK(!is_pending());
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("spawned with no mask", spawned, NULL);
	harness_isolated("unblocked by a child", unblocked_by_child, NULL);
	harness_isolated("sent to a child", sent_to_child, NULL);
	harness_isolated("sent to a child and its parent", sent_to_child, (void *)&handled);
	harness_isolated("left by a child", left_by_child, NULL);
	return harness_end();
}
