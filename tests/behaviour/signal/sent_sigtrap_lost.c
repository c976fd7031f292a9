/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program blocks SIGTRAP, and somebody sends one: it stays pending until it is unblocked, or taken by sigwait() and
 * its like, by the thread that it is for, with the words that it was sent with. Handlers are what the program reads
 * back.
 */
#include "targets.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

static volatile int handled;
static siginfo_t last;

static void on_trap(int signo, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	CHECK_EQ(signo, SIGTRAP);
	last = *info;
	handled++;
	/* a handler's own signal is blocked while it runs */
	sigprocmask(SIG_BLOCK, NULL, &now);
	CHECK(sigismember(&now, SIGTRAP) == 1);
}

static void on_other_trap(int signo)
{
	(void)signo;
}

static void start(void)
{
	struct sigaction action, old;

	REQUIRE_OK(patch_init(NULL, 0));
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_trap;
	action.sa_flags = SA_SIGINFO;
	sigaddset(&action.sa_mask, SIGUSR2);
	REQUIRE(sigaction(SIGTRAP, &action, &old) == 0);
	CHECK(old.sa_handler == SIG_DFL);
	REQUIRE(sigaction(SIGTRAP, NULL, &old) == 0);
	CHECK(old.sa_sigaction == on_trap);
	CHECK(sigismember(&old.sa_mask, SIGUSR2) == 1);
	CHECK(sigismember(&old.sa_mask, SIGUSR1) == 0);
	CHECK(old.sa_flags & SA_SIGINFO);
}

static sigset_t traps(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	return set;
}

static void block(int how)
{
	sigset_t set = traps();

	REQUIRE(pthread_sigmask(how, &set, NULL) == 0);
}

static bool is_pending(void)
{
	sigset_t set;

	REQUIRE(sigpending(&set) == 0);
	return sigismember(&set, SIGTRAP) == 1;
}

static void unblock(void *argument)
{
	union sigval value = { .sival_int = 4711 };

	(void)argument;
	start();
	raise(SIGTRAP);
	CHECK_EQ(handled, 1);
	block(SIG_BLOCK);
	CHECK(!is_pending());
	raise(SIGTRAP);
	CHECK_EQ(handled, 1);
	CHECK(is_pending());
	block(SIG_UNBLOCK);
	CHECK_EQ(handled, 2);
	CHECK_EQ(last.si_code, SI_TKILL);
	CHECK(!is_pending());

	block(SIG_BLOCK);
	REQUIRE(sigqueue(getpid(), SIGTRAP, value) == 0);
	/* standard signals do not queue */
	REQUIRE(kill(getpid(), SIGTRAP) == 0);
	CHECK_EQ(handled, 2);
	block(SIG_UNBLOCK);
	CHECK_EQ(handled, 3);
	CHECK_EQ(last.si_code, SI_QUEUE);
	CHECK_EQ(last.si_value.sival_int, 4711);
	CHECK_EQ(last.si_pid, getpid());
	CHECK_OK(patch_fini());
}

static void take(void *argument)
{
	struct timespec none = { 0, 0 }, brief = { 0, 1000000 };
	union sigval value = { .sival_int = 815 };
	sigset_t set = traps();
	siginfo_t info;
	int signo = 0;

	(void)argument;
	start();
	block(SIG_BLOCK);
	CHECK_EQ(sigtimedwait(&set, &info, &none), -1);
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(sigtimedwait(&set, &info, &brief), -1);
	CHECK_EQ(errno, EAGAIN);
	REQUIRE(sigqueue(getpid(), SIGTRAP, value) == 0);
	CHECK_EQ(sigtimedwait(&set, &info, &none), SIGTRAP);
	CHECK_EQ(info.si_code, SI_QUEUE);
	CHECK_EQ(info.si_value.sival_int, 815);
	raise(SIGTRAP);
	REQUIRE(sigwait(&set, &signo) == 0);
	CHECK_EQ(signo, SIGTRAP);
	CHECK(!is_pending());
	CHECK_EQ(handled, 0);
	/* a bad address is told, and the signal is taken, as the kernel does it */
	raise(SIGTRAP);
	CHECK_EQ(syscall(SYS_rt_sigtimedwait, &set, (void *)8, &none, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK(!is_pending());
	CHECK_OK(patch_fini());
}

/* What was held when the library goes is pending, with its words. */
static void outlive(void *argument)
{
	union sigval value = { .sival_int = 1848 };
	struct timespec none = { 0, 0 };
	sigset_t set = traps();
	siginfo_t info;

	(void)argument;
	start();
	block(SIG_BLOCK);
	REQUIRE(sigqueue(getpid(), SIGTRAP, value) == 0);
	CHECK_OK(patch_fini());
	CHECK(is_pending());
	CHECK_EQ(handled, 0);
	CHECK_EQ(sigtimedwait(&set, &info, &none), SIGTRAP);
	CHECK_EQ(info.si_code, SI_QUEUE);
	CHECK_EQ(info.si_value.sival_int, 1848);
	CHECK(!is_pending());
	block(SIG_UNBLOCK);
	CHECK_EQ(handled, 0);
}

static void outlive_and_come(void *argument)
{
	(void)argument;
	start();
	block(SIG_BLOCK);
	raise(SIGTRAP);
	CHECK_OK(patch_fini());
	CHECK_EQ(handled, 0);
	block(SIG_UNBLOCK);
	CHECK_EQ(handled, 1);
	CHECK_EQ(last.si_code, SI_TKILL);
}

static int taken;

static void *wait_for_it(void *argument)
{
	sigset_t set = traps();
	int signo;

	(void)argument;
	for (int i = 0; i < 1000; i++) {
		REQUIRE(sigwait(&set, &signo) == 0);
		CHECK_EQ(signo, SIGTRAP);
		__atomic_fetch_add(&taken, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* One thread takes what is sent to the process, to itself, or by itself to nobody in particular. */
static void take_in_a_thread(void *argument)
{
	pthread_t thread;

	(void)argument;
	start();
	block(SIG_BLOCK);
	REQUIRE(pthread_create(&thread, NULL, wait_for_it, NULL) == 0);
	for (int i = 0; i < 1000; i++) {
		if (i % 2)
			kill(getpid(), SIGTRAP);
		else
			pthread_kill(thread, SIGTRAP);
		while (__atomic_load_n(&taken, __ATOMIC_ACQUIRE) <= i)
			sched_yield();
	}
	pthread_join(thread, NULL);
	CHECK_EQ(handled, 0);
	CHECK_OK(patch_fini());
}

static void suspend(void *argument)
{
	struct pollfd fd = { -1, 0, 0 };
	sigset_t none;

	(void)argument;
	start();
	sigemptyset(&none);
	block(SIG_BLOCK);
	for (int i = 0; i < 100; i++) {
		raise(SIGTRAP);
		CHECK_EQ(handled, 2 * i);
		CHECK_EQ(sigsuspend(&none), -1);
		CHECK_EQ(errno, EINTR);
		CHECK_EQ(handled, 2 * i + 1);
		kill(getpid(), SIGTRAP);
		CHECK_EQ(ppoll(&fd, 1, NULL, &none), -1);
		CHECK_EQ(errno, EINTR);
		CHECK_EQ(handled, 2 * i + 2);
	}
	CHECK_OK(patch_fini());
}

static volatile bool sends_another;

static void on_trap_send(int signo)
{
	handled++;
	if (sends_another) {
		sends_another = false;
		raise(signo);
	}
}

/* One call lets one through: what arrives while that one is handled finds the thread's own mask, and stays pending. */
static void suspend_once(void *argument)
{
	sigset_t none, set = traps();
	int signo;

	(void)argument;
	start();
	REQUIRE(signal(SIGTRAP, on_trap_send) == (void (*)(int))(uintptr_t)on_trap);
	sigemptyset(&none);
	block(SIG_BLOCK);
	for (int i = 0; i < 10; i++) {
		raise(SIGTRAP);
		sends_another = true;
		CHECK_EQ(sigsuspend(&none), -1);
		CHECK_EQ(errno, EINTR);
		CHECK_EQ(handled, i + 1);
		CHECK(is_pending());
		REQUIRE(sigwait(&set, &signo) == 0);
		CHECK(!is_pending());
	}
	CHECK_OK(patch_fini());
}

static void *send_until(void *argument)
{
	const pthread_t *to = argument;

	for (int i = 0; i < 2000; i++) {
		while (__atomic_load_n(&handled, __ATOMIC_ACQUIRE) < i)
			sched_yield();
		pthread_kill(*to, SIGTRAP);
	}
	return NULL;
}

/* Each arrives at another point of the thread's way into the call: none may be missed, or the call never ends. */
static void suspend_race(void *argument)
{
	pthread_t self = pthread_self(), thread;
	sigset_t none;

	(void)argument;
	start();
	sigemptyset(&none);
	block(SIG_BLOCK);
	REQUIRE(pthread_create(&thread, NULL, send_until, &self) == 0);
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(sigsuspend(&none), -1);
		while (handled <= i)
			CHECK_EQ(sigsuspend(&none), -1);
	}
	pthread_join(thread, NULL);
	CHECK_EQ(handled, 2000);
	CHECK_OK(patch_fini());
}

/* A child ends by SIGTRAP: of an int3 of its own, or of one that it sends itself. */
static void check_killed(bool by_int3)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		if (by_int3)
			__asm__ volatile("int3");
		else
			raise(SIGTRAP);
		_exit(0);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP);
}

/* Once, and then the default action. */
static void one_shot(void *argument)
{
	struct sigaction action;

	(void)argument;
	start();
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_other_trap;
	action.sa_flags = SA_RESETHAND;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	raise(SIGTRAP);
	REQUIRE(sigaction(SIGTRAP, NULL, &action) == 0);
	CHECK(action.sa_handler == SIG_DFL);
	check_killed(false);
	/* ignored: nothing happens, and an int3 of the program's ends it */
	REQUIRE(signal(SIGTRAP, SIG_IGN) == SIG_DFL);
	raise(SIGTRAP);
	kill(getpid(), SIGTRAP);
	check_killed(true);
	/* blocked: the same */
	REQUIRE(signal(SIGTRAP, on_other_trap) == SIG_IGN);
	block(SIG_BLOCK);
	check_killed(true);
	CHECK_OK(patch_fini());
}

/* A bad address is the kernel's to tell. */
static void bad_addresses(void *argument)
{
	struct sigaction action;

	(void)argument;
	start();
	CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, (void *)8, NULL, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, (void *)8, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_rt_sigaction, SIGTRAP, (void *)8, NULL, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_rt_sigaction, SIGUSR1, NULL, (void *)8, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_rt_sigaction, SIGTRAP, NULL, (void *)8, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_rt_sigprocmask, 17, &action, NULL, (size_t)8), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &action, NULL, (size_t)4), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(syscall(SYS_ppoll, NULL, 0, NULL, (void *)8, (size_t)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_pselect6, 0, NULL, NULL, NULL, NULL, (void *)8), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(syscall(SYS_clone3, (void *)8, (size_t)88), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_OK(patch_fini());
}

/* ---- the first process of a namespace ---------------------------------------------------------------------------- */

static unsigned int hits;

GP_ONLY static void count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* What is sent to it has no default effect (pid_namespaces(7)), and the next trap byte is met as ever. */
static void be_first(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE(getpid() == 1);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, count_hit, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	for (int signo = SIGILL; signo <= SIGTRAP; signo++) {
		REQUIRE(kill(1, signo) == 0);
		CHECK_EQ(t_push_push(1, 2), 5);
	}
	CHECK_EQ(hits, 2);
	CHECK_OK(patch_fini());
}

static void first_of_namespace(void *unused)
{
	(void)unused;
	if (unshare(CLONE_NEWPID) != 0)
		SKIP("no namespace can be made: %s", strerror(errno));
	harness_isolated("process 1", be_first, NULL);
}

int main(void)
{
	harness_start();
	harness_isolated("unblocked", unblock, NULL);
	harness_isolated("taken", take, NULL);
	harness_isolated("taken behind patch_fini()", outlive, NULL);
	harness_isolated("unblocked behind patch_fini()", outlive_and_come, NULL);
	harness_isolated("taken by a thread", take_in_a_thread, NULL);
	harness_isolated("suspended", suspend, NULL);
	harness_isolated("suspended, sent by the handler", suspend_once, NULL);
	harness_isolated("suspended, sent by a thread", suspend_race, NULL);
	harness_isolated("one shot, ignored, blocked", one_shot, NULL);
	harness_isolated("bad addresses", bad_addresses, NULL);
	harness_isolated("first of a namespace", first_of_namespace, NULL);
	return harness_end();
}
