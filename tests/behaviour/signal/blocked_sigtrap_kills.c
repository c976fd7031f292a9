/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that blocks every signal, by whatever libc has for it, meets a probe that needs a trap: the kernel kills a
 * process that meets an int3 with SIGTRAP blocked.
 */
#include "targets.h"

#include <dlfcn.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <ucontext.h>

static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void probe(void *function)
{
	patch_t patch;

	REQUIRE(function != NULL);
	REQUIRE_OK(make_probe((uintptr_t)function, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
}

static void start(void)
{
	REQUIRE_OK(patch_init(NULL, 0));
	probe((void *)(uintptr_t)t_push_push);
	CHECK_OK(patch_commit());
}

static void check_hit(void)
{
	unsigned int before = hits;

	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, before + 1);
}

static void block_after_init(void *argument)
{
	sigset_t all, now;

	(void)argument;
	start();
	sigfillset(&all);
	REQUIRE(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	check_hit();
	/* the program reads back what it set */
	REQUIRE(sigprocmask(SIG_SETMASK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTRAP) == 1);
	CHECK(sigismember(&now, SIGUSR1) == 1);
	CHECK_OK(patch_fini());
}

static void block_before_init(void *argument)
{
	sigset_t all, now;

	(void)argument;
	sigfillset(&all);
	REQUIRE(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	start();
	check_hit();
	REQUIRE(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTRAP) == 1);
	CHECK(sigismember(&now, SIGILL) == 1);
	CHECK_OK(patch_fini());
	/* and the kernel has it now */
	REQUIRE(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTRAP) == 1);
}

static void on_usr1(int signo)
{
	(void)signo;
	t_push_push(1, 2);
}

static void install(bool all)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_usr1;
	if (all)
		sigfillset(&action.sa_mask);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
}

/* A handler whose sa_mask blocks everything. */
static void handler_blocks(void *argument)
{
	(void)argument;
	start();
	install(true);
	REQUIRE(raise(SIGUSR1) == 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

static void handler_blocked_before(void *argument)
{
	struct sigaction action;

	(void)argument;
	install(true);
	start();
	REQUIRE(raise(SIGUSR1) == 0);
	CHECK_EQ(hits, 1);
	REQUIRE(sigaction(SIGUSR1, NULL, &action) == 0);
	CHECK(sigismember(&action.sa_mask, SIGTRAP) == 1);
	CHECK_OK(patch_fini());
	REQUIRE(sigaction(SIGUSR1, NULL, &action) == 0);
	CHECK(sigismember(&action.sa_mask, SIGTRAP) == 1);
}

/* glibc has it from 2.35 on. */
extern __attribute__((weak)) int epoll_pwait2(int epoll, struct epoll_event *events, int count,
					      const struct timespec *timeout, const sigset_t *mask);

/* Another mask for the time of a call: SIGUSR1 is let through, and its handler meets the probe. */
static void masks_of_calls(void *argument)
{
	struct epoll_event event;
	struct pollfd fd = { -1, 0, 0 };
	sigset_t all, most;
	int epoll = epoll_create1(0);

	(void)argument;
	start();
	install(false);
	sigfillset(&all);
	most = all;
	sigdelset(&most, SIGUSR1);
	REQUIRE(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	for (int call = 0; call < (epoll_pwait2 != NULL ? 5 : 4); ++call) {
		int result = 0;

		CONTEXT("call %d", call);
		raise(SIGUSR1);
		CHECK_EQ(hits, (unsigned int)call);
		switch (call) {
		case 0:
			result = sigsuspend(&most);
			break;
		case 1:
			result = ppoll(&fd, 1, NULL, &most);
			break;
		case 2:
			result = pselect(0, NULL, NULL, NULL, NULL, &most);
			break;
		case 3:
			result = epoll_pwait(epoll, &event, 1, -1, &most);
			break;
		case 4:
			result = epoll_pwait2(epoll, &event, 1, NULL, &most);
			break;
		}
		CHECK_EQ(result, -1);
		CHECK_EQ(errno, EINTR);
		CHECK_EQ(hits, (unsigned int)call + 1);
	}
	CHECK_OK(patch_fini());
}

static ucontext_t here, there;
static char other_stack[65536];

static void elsewhere(void)
{
	t_push_push(1, 2);
}

/* A context that was made with everything blocked. */
static void contexts(void *argument)
{
	sigset_t all, none;

	(void)argument;
	start();
	sigfillset(&all);
	sigemptyset(&none);
	REQUIRE(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
	REQUIRE(getcontext(&there) == 0);
	REQUIRE(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
	there.uc_stack.ss_sp = other_stack;
	there.uc_stack.ss_size = sizeof(other_stack);
	there.uc_link = &here;
	makecontext(&there, elsewhere, 0);
	REQUIRE(swapcontext(&here, &there) == 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

static void *thread_function(void *argument)
{
	return argument;
}

/* What libc runs with everything blocked, and in children that have reset every handler, is full of traps. */
static void libc_itself(void *argument)
{
	static const char *const names[] = { "pthread_create", "sigaction",
					     "sigprocmask",    "pthread_sigmask",
					     "execve",         "posix_spawn",
					     "dup2",           "close",
					     "open",           "system",
					     "waitpid",        "mmap",
					     "munmap",         "mprotect",
					     "clone",          "__clone",
					     "sigaddset",      "sigemptyset",
					     "sched_setparam", "setpgid",
					     "pthread_exit",   "pthread_attr_init",
					     "_exit" };
	char *arguments[] = { "sh", "-c", "exit 3", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	unsigned int before;
	pthread_t thread;
	sigset_t all;
	pid_t child;
	int status;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
		patch_t patch;

		if (dlsym(RTLD_DEFAULT, names[i]) != NULL)
			make_probe((uintptr_t)dlsym(RTLD_DEFAULT, names[i]), procedure, NULL, PATCH_TRAP_POLICY_FORCE,
				   PATCH_ENABLED, &patch);
	}
	CHECK_OK(patch_commit());
	before = hits;
	for (int i = 0; i < 20; ++i) {
		REQUIRE(pthread_create(&thread, NULL, thread_function, NULL) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
	CHECK(hits >= before + 20);
	CHECK_EQ(system("exit 7"), 7 << 8);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addclose(&actions, 0);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
	sigfillset(&all);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setsigmask(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	REQUIRE(posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ) == 0);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 3 << 8);
	child = vfork();
	if (child == 0) {
		execv("/bin/sh", arguments);
		_exit(1);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 3 << 8);
	CHECK_OK(patch_fini());
}

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

/*
 * A child for which the kernel resets every handler, as posix_spawn() of glibc 2.38 wants: such are not to be had, or
 * live.
 */
static void cleared_handlers(void *argument)
{
	struct clone_args arguments;
	int status;
	long child;

	(void)argument;
	start();
	memset(&arguments, 0, sizeof(arguments));
	arguments.flags = CLONE_CLEAR_SIGHAND;
	arguments.exit_signal = SIGCHLD;
	child = syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (child == 0)
		_exit(t_push_push(1, 2) == 5 ? 0 : 1);
	if (child < 0) {
		CHECK_EQ(errno, ENOSYS);
	} else {
		REQUIRE(waitpid((pid_t)child, &status, 0) == child);
		CHECK_EQ(status, 0);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("everything blocked after patch_init()", block_after_init, NULL);
	harness_isolated("everything blocked before patch_init()", block_before_init, NULL);
	harness_isolated("a handler that blocks everything", handler_blocks, NULL);
	harness_isolated("a handler from before that blocks everything", handler_blocked_before, NULL);
	harness_isolated("a mask for the time of a call", masks_of_calls, NULL);
	harness_isolated("contexts", contexts, NULL);
	harness_isolated("libc itself", libc_itself, NULL);
	harness_isolated("CLONE_CLEAR_SIGHAND", cleared_handlers, NULL);
	return harness_end();
}
