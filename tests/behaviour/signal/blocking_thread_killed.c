/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread blocks SIGTRAP by means that the library does not see, or did so before patch_init(). It is adopted: the
 * commit works, the thread reads back what it blocks, and a signal that is sent to it waits. Where it cannot be,
 * because somebody traces it, or is not to be, by option, a commit that writes int3 says so, and changes no text, until
 * it does not block it any more. What needs no change of text is done all the same.
 */
#include "targets.h"

#include "raw_mask.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/syscall.h>

static unsigned int hits, other_hits;
static sem_t blocked, go_on, unblocked, end;
static bool by_libc;
static enum { ADOPTED, TRACED, FORBIDDEN } how;
static pid_t blocker;
static bool reads_back, waits;
static unsigned int sent;

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
		raw_mask(SIG_BLOCK, set);
	blocker = (pid_t)syscall(SYS_gettid);
	sem_post(&blocked);
	sem_wait(&go_on);
	/* Its next call of that kind is seen. */
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	reads_back = sigismember(&now, SIGTRAP) == 1;
	raise(SIGTRAP);
	sigpending(&now);
	waits = sent == 0 && sigismember(&now, SIGTRAP) == 1;
	if (how == ADOPTED)
		t_push_push(1, 2);
	if (!by_libc)
		raw_mask(SIG_UNBLOCK, set);
	/* A thread that was adopted has to say so by a call that is seen. */
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	sem_post(&unblocked);
	sem_wait(&end);
	t_push_push(1, 2);
	return NULL;
}

static void start(void)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = how != FORBIDDEN };

	REQUIRE_OK(patch_init(&option, 1));
}

/* In decimal, as tools for operators have it. */
static void check_names(const struct patch_error *error, pid_t tid)
{
	char number[16];

	snprintf(number, sizeof(number), "%d (", (int)tid);
	CHECK_MSG(strncmp(error->irritant, number, strlen(number)) == 0, "it says %s, and not %s...", error->irritant,
		  number);
	CHECK_MSG((strstr(error->message, "PATCH_OPT_ADOPT_THREADS") != NULL) == (how == FORBIDDEN), "it says: %s",
		  error->message);
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
		start();
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
	if (how == TRACED)
		tracer = trace(blocker);
	if (before)
		start();
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	for (int i = 0; i < 3; ++i) {
		if (goes != NULL)
			CHECK_OK(i % 2 ? patch_enable(goes) : patch_disable(goes));
		if (how == ADOPTED) {
			CHECK_OK(patch_commit());
			continue;
		}
		CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
		CHECK_EQ(patch_last_error(&error), PATCH_EBLOCKED);
		CHECK(error.message[0] != '\0');
		check_names(&error, blocker);
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
	CHECK_EQ(hits, how == ADOPTED ? 3 : 2);
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

/* ---- the mask that the kernel will put back ---------------------------------------------------------------------- */

/* Calls that wait, by their numbers: libc has not all of them. */
static const struct wait {
	const char *name;
	long number;
} wait_calls[] = {
	{ "ppoll", SYS_ppoll },
	{ "pselect", SYS_pselect6 },
	{ "epoll_pwait", SYS_epoll_pwait },
	{ "sigsuspend", SYS_rt_sigsuspend },
	{ "sigtimedwait", SYS_rt_sigtimedwait },
};

static const struct wait *wait_call;
/* What the thread blocks, and what it blocks while it waits; no mask: the wait leaves it as it is. */
static bool thread_blocks, wait_blocks, without_mask;
/* What happens before patch_init(): the wait, in a call that is not mediated; that it blocks them; or nothing. */
static enum { WAIT, BLOCK, NOTHING, MOMENTS } before_start;
static const char *const moments[] = { "before patch_init()", "behind it, blocking before", "behind it" };
static bool commits;
static atomic_bool woken;
static atomic_uint handled;

/* The wait may be over already, or begun anew, with what came: it waits until it is told that it was woken. */
static void wait_with(const sigset_t *mask)
{
	struct epoll_event event;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	sigset_t taken;

	sigemptyset(&taken);
	sigaddset(&taken, SIGUSR1);
	if (!without_mask)
		sigaddset(&taken, SIGTRAP);
	while (!woken)
		switch (wait_call->number) {
		case SYS_ppoll:
			ppoll(NULL, 0, NULL, mask);
			break;
		case SYS_pselect6:
			pselect(0, NULL, NULL, NULL, NULL, mask);
			break;
		case SYS_epoll_pwait:
			epoll_pwait(epoll, &event, 1, -1, mask);
			break;
		case SYS_rt_sigsuspend:
			sigsuspend(mask);
			break;
		default:
			sigwaitinfo(&taken, NULL);
		}
	close(epoll);
}

static void on_wake(int signo)
{
	(void)signo;
	t_push_push(1, 2);
	++handled;
}

static void wait_until_in_call(pid_t tid, long number)
{
	char path[64], text[32];
	long now = -1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)tid);
	while (now != number) {
		FILE *file = fopen(path, "r");

		if (file == NULL)
			SKIP("%s cannot be read: %s", path, strerror(errno));
		now = fgets(text, sizeof(text), file) != NULL && text[0] != 'r' ? strtol(text, NULL, 10) : -1;
		fclose(file);
	}
}

static void *wait_with_mask(void *unused)
{
	sigset_t all_but_one, none, now;

	sigfillset(&all_but_one);
	sigdelset(&all_but_one, SIGUSR1);
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, thread_blocks ? &all_but_one : &none, NULL);
	blocker = (pid_t)syscall(SYS_gettid);
	sem_post(&blocked);
	sem_wait(&go_on);
	wait_with(without_mask ? NULL : wait_blocks ? &all_but_one : &none);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	reads_back = sigismember(&now, SIGTRAP) == thread_blocks;
	if (commits)
		t_push_push(1, 2);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	sem_post(&unblocked);
	sem_wait(&end);
	t_push_push(1, 2);
	return unused;
}

static void in_a_wait(void *unused)
{
	const struct sigaction action = { .sa_handler = on_wake };
	struct text_copy text = text_of_target(target_named("t_push_push"));
	struct patch_error error;
	pthread_t thread;
	pid_t tracer = 0;
	patch_t patch;

	(void)unused;
	sem_init(&blocked, 0, 0);
	sem_init(&unblocked, 0, 0);
	sem_init(&end, 0, 0);
	sem_init(&go_on, 0, 0);
	/* What the thread will block is seen where the wait has no mask; a mediated one has the thread adopt itself. */
	commits = how == ADOPTED || before_start == NOTHING || (before_start == BLOCK && !without_mask) ||
		  (without_mask && !thread_blocks);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	if (before_start == NOTHING)
		start();
	REQUIRE(pthread_create(&thread, NULL, wait_with_mask, NULL) == 0);
	sem_wait(&blocked);
	if (how == TRACED)
		tracer = trace(blocker);
	if (before_start == BLOCK)
		start();
	sem_post(&go_on);
	wait_until_in_call(blocker, wait_call->number);
	if (before_start == WAIT)
		start();
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	if (commits) {
		CHECK_OK(patch_commit());
		/* Nothing that is not mediated has begun since. */
		CHECK_OK(patch_commit());
	} else {
		CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
		CHECK_EQ(patch_last_error(&error), PATCH_EBLOCKED);
		check_names(&error, blocker);
		CHECK_TEXT_SAME(&text);
	}
	woken = true;
	REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
	sem_wait(&unblocked);
	CHECK(reads_back);
	CHECK_OK(patch_commit());
	sem_post(&end);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, commits ? 2 + handled : 1);
	if (tracer != 0)
		kill(tracer, SIGKILL);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&text);
}

static void in_waits(const char *adopted)
{
	char name[128];

	for (size_t i = 0; i < sizeof(wait_calls) / sizeof(wait_calls[0]); ++i)
		for (int mask = 0; mask < 6 * MOMENTS; ++mask) {
			wait_call = &wait_calls[i];
			before_start = mask / 6;
			thread_blocks = mask % 2 != 0;
			wait_blocks = mask / 2 % 3 == 1;
			without_mask = mask / 2 % 3 == 2;
			if (without_mask && wait_call->number == SYS_rt_sigsuspend)
				continue;
			/* It has no mask but what it waits for. */
			if (wait_blocks && wait_call->number == SYS_rt_sigtimedwait)
				continue;
			snprintf(name, sizeof(name), "in %s %s, with %s, %s to be blocked after%s", wait_call->name,
				 moments[before_start],
				 without_mask ? "no mask" : wait_blocks ? "all blocked" : "nothing blocked",
				 thread_blocks ? "all" : "nothing", adopted);
			harness_isolated(name, in_a_wait, NULL);
		}
}

int main(void)
{
	bool libc = true, raw = false;

	harness_start();
	harness_isolated("everything, by a system call of its own", raw_all, NULL);
	harness_isolated("SIGTRAP, by a system call of its own", raw_one, NULL);
	harness_isolated("by libc, before patch_init()", before, &libc);
	harness_isolated("by itself, before patch_init()", before, &raw);
	in_waits("");
	how = FORBIDDEN;
	harness_isolated("everything, by a system call of its own, not adopted", raw_all, NULL);
	harness_isolated("by libc, before patch_init(), not adopted", before, &libc);
	harness_isolated("by itself, before patch_init(), not adopted", before, &raw);
	in_waits(", not adopted");
	how = TRACED;
	harness_isolated("everything, by a system call of its own, traced", raw_all, NULL);
	harness_isolated("SIGTRAP, by a system call of its own, traced", raw_one, NULL);
	harness_isolated("by libc, before patch_init(), traced", before, &libc);
	harness_isolated("by itself, before patch_init(), traced", before, &raw);
	in_waits(", traced");
	return harness_end();
}
