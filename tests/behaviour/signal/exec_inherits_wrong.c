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

/* ---- each way to execute, with each state of the signals: as without the library -------------------------------- */

static const int signals[] = { SIGTRAP, SIGILL, SIGSYS, SIGUSR1 };

#define SIGNALS_TOLD (sizeof(signals) / sizeof(signals[0]))
#define STATES 3 /* default, ignored, a handler: of each of the first three */

/* Executed: what the kernel has for it, as it begins. */
static int told(void)
{
	int bits = 0;

	for (size_t i = 0; i < SIGNALS_TOLD; ++i) {
		struct sigaction action;
		sigset_t now;

		sigprocmask(SIG_BLOCK, NULL, &now);
		sigaction(signals[i], NULL, &action);
		bits |= (action.sa_handler == SIG_IGN ? 1 : 0) << i | (sigismember(&now, signals[i]) ? 16 : 0) << i;
	}
	return bits;
}

static char *asked[] = { self, "told", NULL };

static int by_fork(void)
{
	pid_t child = fork();

	if (child == 0) {
		execv(self, asked);
		_exit(255);
	}
	return ended(child);
}

static int by_vfork(void)
{
	pid_t child = vfork();

	if (child == 0) {
		execv(self, asked);
		_exit(255);
	}
	return ended(child);
}

/* What the child does to them is its own. */
static int by_vfork_ignoring(void)
{
	pid_t child = vfork();

	if (child == 0) {
		for (size_t i = 0; i < SIGNALS_TOLD; ++i)
			signal(signals[i], i % 2 ? SIG_DFL : SIG_IGN);
		execv("/nowhere", asked);
		execv(self, asked);
		_exit(255);
	}
	return ended(child);
}

static int spawned(short flags, int defaults)
{
	posix_spawnattr_t attributes;
	sigset_t set, none;
	pid_t child;

	sigemptyset(&set);
	sigemptyset(&none);
	for (size_t i = 0; i < SIGNALS_TOLD; ++i)
		if (defaults >> i & 1)
			sigaddset(&set, signals[i]);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, defaults == 5 ? &none : &set);
	posix_spawnattr_setsigdefault(&attributes, &set);
	posix_spawnattr_setflags(&attributes, flags);
	REQUIRE(posix_spawn(&child, self, NULL, &attributes, asked, environ) == 0);
	return ended(child);
}

static void *wait_for_ever(void *data)
{
	for (;;)
		pause();
	return data;
}

#define TOLD_MAX 4096

struct answers {
	size_t count;
	short answer[TOLD_MAX];
};

static void tell(struct answers *answers, int answer)
{
	if (answers->count < TOLD_MAX)
		answers->answer[answers->count++] = (short)answer;
}

static void ask_all(struct answers *answers)
{
	for (int states = 0; states < STATES * STATES * STATES; ++states) {
		for (int i = 0, rest = states; i < 3; ++i, rest /= STATES)
			signal(signals[i], rest % STATES == 0 ? SIG_DFL : rest % STATES == 1 ? SIG_IGN : on_trap);
		set(states % 2 ? SIG_BLOCK : SIG_UNBLOCK, SIGTRAP);
		set(states % 4 < 2 ? SIG_BLOCK : SIG_UNBLOCK, SIGSYS);
		tell(answers, by_fork());
		tell(answers, by_vfork());
		tell(answers, by_vfork_ignoring());
		tell(answers, spawned(0, 0));
		for (int defaults = 0; defaults < 8; ++defaults) {
			tell(answers, spawned(POSIX_SPAWN_SETSIGDEF, defaults));
			tell(answers, spawned(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK, defaults));
		}
		/* The parent's are as they were. */
		for (int i = 0; i < 3; ++i) {
			struct sigaction action;

			REQUIRE(sigaction(signals[i], NULL, &action) == 0);
			tell(answers, action.sa_handler == SIG_IGN ? 1 : action.sa_handler == on_trap ? 2 : 0);
		}
	}
}

static struct answers *both;

static void ask(void *with_library)
{
	pthread_t thread;

	if (with_library != NULL)
		REQUIRE_OK(patch_init(NULL, 0));
	ask_all(&both[with_library != NULL]);
	REQUIRE(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
	ask_all(&both[with_library != NULL]);
}

static void each_way(void)
{
	both = mmap(NULL, 2 * sizeof(*both), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(both != MAP_FAILED);
	harness_isolated("without the library", ask, NULL);
	harness_isolated("with the library", ask, (void *)1);
	CHECK(both[0].count > 1000 && both[0].count < TOLD_MAX);
	CHECK_EQ(both[1].count, both[0].count);
	for (size_t i = 0; i < both[0].count; ++i)
		CHECK_MSG(both[0].answer[i] == both[1].answer[i], "answer %zu: %#x, without the library %#x", i,
			  (unsigned int)both[1].answer[i], (unsigned int)both[0].answer[i]);
}

int main(int argc, char **argv)
{
	ssize_t length;

	if (argc > 1 && strcmp(argv[1], "told") == 0)
		return told();

	if (argc > 1 && strcmp(argv[1], "inherited") == 0)
		return inherited();
	harness_start();
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	REQUIRE(length > 0);
	(void)argv;
	harness_isolated("of its own", own, NULL);
	harness_isolated("of a child that borrows its memory", borrowed, NULL);
	each_way();
	return harness_end();
}
