/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that borrows its parent's memory and storage (vfork(), posix_spawn()) executes its program, or is killed, in
 * a system call that is mediated. The parent is not in that call: signals and traps come to it as ever, whatever is
 * where the child's stack was.
 */
#include "targets.h"

#include <poll.h>
#include <sched.h>
#include <spawn.h>

extern char **environ;

static volatile int handled;
static unsigned char *stack;
#define STACK_SIZE 65536

static void on_signal(int signo)
{
	(void)signo;
	handled++;
}

static void change_mask(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	sigaddset(&set, SIGILL);
	REQUIRE(sigprocmask(how, &set, NULL) == 0);
}

/* ---- how a child ends in its call -------------------------------------------------------------------------------- */

static void executes(void)
{
	execl("/bin/true", "true", (char *)NULL);
}

static void executes_with_descriptor(void)
{
	char *arguments[] = { "true", NULL };

	syscall(SYS_execveat, -1, "/bin/true", arguments, environ, 0);
}

static void waits(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigsuspend(&set);
}

static void waits_for_events(void)
{
	sigset_t set;

	sigemptyset(&set);
	ppoll(NULL, 0, NULL, &set);
}

static void takes(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	sigwaitinfo(&set, NULL);
}

static const struct {
	const char *name;
	void (*end)(void);
	bool is_killed;
} ends[] = {
	{ "execve", executes, false },	       { "execveat", executes_with_descriptor, false },
	{ "sigsuspend", waits, true },	       { "ppoll", waits_for_events, true },
	{ "sigtimedwait", takes, true },
};

/* ---- how it is made ---------------------------------------------------------------------------------------------- */

static volatile size_t chosen;

static int in_child(void *unused)
{
	(void)unused;
	ends[chosen].end();
	_exit(1);
}

static pid_t by_vfork(void)
{
	pid_t child = vfork();

	if (child == 0)
		in_child(NULL);
	return child;
}

/* What is left of its stack is not zeros. */
static pid_t by_clone(void)
{
	pid_t child = clone(in_child, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);

	memset(stack, 0xFF, STACK_SIZE);
	return child;
}

/* Its stack is not there any more. */
static pid_t by_clone_without_rest(void)
{
	void *own = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t child;

	REQUIRE(own != MAP_FAILED);
	child = clone(in_child, (char *)own + STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	munmap(own, STACK_SIZE);
	return child;
}

static pid_t by_spawn(void)
{
	char *arguments[] = { "true", NULL };
	pid_t child;

	return posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0 ? child : -1;
}

/* Kills the child of `parent` when it waits. */
static pid_t killer_of_child(pid_t parent)
{
	pid_t killer = fork();
	char path[64];

	if (killer != 0)
		return killer;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", parent, parent);
	for (;;) {
		char line[256] = "", state[64] = "", *end = line;
		FILE *file = fopen(path, "r");

		REQUIRE(file != NULL);
		if (fgets(line, sizeof(line), file) == NULL)
			line[0] = '\0';
		fclose(file);
		for (long pid = strtol(line, &end, 10); pid != 0; pid = strtol(end, &end, 10)) {
			if (pid == getpid())
				continue;
			snprintf(state, sizeof(state), "/proc/%ld/syscall", pid);
			file = fopen(state, "r");
			if (file == NULL)
				continue;
			if (fgets(line, sizeof(line), file) != NULL && line[0] != 'r' &&
			    (atoi(line) == SYS_rt_sigsuspend || atoi(line) == SYS_ppoll ||
			     atoi(line) == SYS_rt_sigtimedwait)) {
				kill((pid_t)pid, SIGKILL);
				_exit(0);
			}
			fclose(file);
			break;
		}
		poll(NULL, 0, 1);
	}
}

static void goes_on(pid_t (*make)(void))
{
	struct sigaction action = { .sa_handler = on_signal };
	bool is_killed = ends[chosen].is_killed;
	pid_t child, killer = 0;
	int status;

	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	change_mask(SIG_BLOCK);
	if (is_killed)
		killer = killer_of_child(getpid());
	child = make();
	/* No call that is mediated comes between. */
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
	CHECK_EQ(t_push_push(5, 7), 19);
	CHECK_EQ(handled, 1);
	syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGTRAP);
	CHECK_EQ(t_push_push(5, 7), 19);
	CHECK_EQ(handled, 1);
	change_mask(SIG_UNBLOCK);
	CHECK_EQ(handled, 2);
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(status, is_killed ? SIGKILL : 0);
	if (is_killed)
		REQUIRE(waitpid(killer, NULL, 0) == killer);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void run(void *make)
{
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	/* posix_spawn() calls it for the child's stack. */
	REQUIRE_OK(make_probe((uintptr_t)munmap, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	goes_on((pid_t(*)(void))make);
}

int main(void)
{
	static const struct {
		const char *name;
		pid_t (*make)(void);
	} ways[] = { { "vfork", by_vfork }, { "clone", by_clone }, { "clone, munmap", by_clone_without_rest } };
	char name[64];

	harness_start();
	stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(stack != MAP_FAILED);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		for (chosen = 0; chosen < sizeof(ends) / sizeof(ends[0]); chosen++) {
			snprintf(name, sizeof(name), "%s, %s", ways[i].name, ends[chosen].name);
			harness_isolated(name, run, (void *)ways[i].make);
		}
	chosen = 0;
	harness_isolated("posix_spawn", run, (void *)by_spawn);
	return harness_end();
}
