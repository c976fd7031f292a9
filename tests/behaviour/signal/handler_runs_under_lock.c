/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * No handler of the program runs in a thread that is in the middle of the library: it could call the library, or leave
 * by longjmp(). Where there is none at all, no system call is made for that. The first one is not installed before
 * others are out of the library, in which they are with their signals unblocked.
 */
#include "targets.h"

#include "base/inject.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* SIGCANCEL of glibc */
#define LIBC_CANCEL 32

static patch_t patch;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void on_signal(int signo)
{
	(void)signo;
}

static bool is_blocked(int signo)
{
	uint64_t mask = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	return mask >> (signo - 1) & 1;
}

static enum { UNBLOCKED, BLOCKED, NOT_SEEN } seen;

static int look(enum inject_point point)
{
	if (point == INJECT_COMMIT_CHECKED)
		seen = is_blocked(SIGUSR1) ? BLOCKED : UNBLOCKED;
	return 0;
}

static void change(void)
{
	seen = NOT_SEEN;
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK(!is_blocked(SIGUSR1));
}

static void begin(void)
{
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	libpatch_inject = look;
}

/* From libc, and by a system call of its function for any. */
static void none_and_then_some(void *raw)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} action = { .handler = SIG_IGN };

	begin();
	change();
	CHECK_EQ(seen, UNBLOCKED);
	/* These are no handlers. */
	REQUIRE(signal(SIGUSR2, SIG_IGN) == SIG_DFL);
	REQUIRE(syscall(SYS_rt_sigaction, SIGUSR2, &action, NULL, sizeof(action.mask)) == 0);
	change();
	CHECK_EQ(seen, UNBLOCKED);
	action.handler = on_signal;
	if (raw != NULL)
		REQUIRE(syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, sizeof(action.mask)) == 0);
	else
		REQUIRE(signal(SIGUSR1, on_signal) == SIG_DFL);
	change();
	CHECK_EQ(seen, BLOCKED);
	/* Another thread could be about to set one again. */
	REQUIRE(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
	change();
	CHECK_EQ(seen, BLOCKED);
}

static void before(void *signo)
{
	REQUIRE(signal((int)(intptr_t)signo, on_signal) == SIG_DFL);
	begin();
	change();
	CHECK_EQ(seen, BLOCKED);
}

/* ---- threads from before ---------------------------------------------------------------------------------------- */

static void *wait_for_end(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

static void *run_for_ever(void *unused)
{
	(void)unused;
	for (;;)
		__asm__ volatile("pause");
	return NULL;
}

static void start(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, run, argument) == 0);
}

/*
 * They could be about to install one until they are seen to wait for something else, or to execute the program's code.
 */
static void threads(void *busy)
{
	start(wait_for_end, NULL);
	start(busy != NULL ? run_for_ever : wait_for_end, NULL);
	begin();
	do
		change();
	while (seen == BLOCKED);
	CHECK_EQ(seen, UNBLOCKED);
	REQUIRE(signal(SIGUSR1, on_signal) == SIG_DFL);
	change();
	CHECK_EQ(seen, BLOCKED);
}

struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static void *install_from(void *action)
{
	syscall(SYS_rt_sigaction, SIGUSR1, action, NULL, sizeof(uint64_t));
	return wait_for_end(NULL);
}

/*
 * A page that whoever reads it waits for; returns a descriptor that becomes readable then, or -1. One that blocks is
 * an error for poll(), at once.
 */
static int make_awaited(void *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (uintptr_t)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &range) != 0)
		return -1;
	return fd;
}

/* One that is in the kernel, on its way to install one, which it was when nothing was mediated. */
static void thread_in_the_call(void *unused)
{
	const struct kernel_action action = { .handler = on_signal };
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static uint8_t contents[4096] __attribute__((aligned(4096)));
	struct uffdio_copy copy = { .dst = (uintptr_t)page, .src = (uintptr_t)contents, .len = sizeof(contents) };
	struct pollfd awaited = { .fd = make_awaited(page), .events = POLLIN };

	(void)unused;
	if (awaited.fd < 0)
		SKIP("there is no userfaultfd here: %s", strerror(errno));
	memcpy(contents, &action, sizeof(action));
	start(install_from, page);
	REQUIRE(poll(&awaited, 1, -1) == 1 && awaited.revents == POLLIN);
	begin();
	for (int i = 0; i < 20; i++) {
		change();
		CHECK_EQ(seen, BLOCKED);
	}
	REQUIRE(ioctl(awaited.fd, UFFDIO_COPY, &copy) == 0);
	/* It was no mediated call, so that nobody but the kernel knows of the handler. */
	for (int i = 0; i < 20; i++) {
		change();
		CHECK_EQ(seen, BLOCKED);
		usleep(1000);
	}
}

/* The child of a thread that was in alone is: it has the other's count, but not the other. */
static void child(void *unused)
{
	pid_t pid;

	(void)unused;
	begin();
	pid = fork();
	if (pid == 0) {
		change();
		CHECK_EQ(seen, UNBLOCKED);
		CHECK(signal(SIGUSR1, on_signal) == SIG_DFL);
		change();
		CHECK_EQ(seen, BLOCKED);
		_exit(0);
	}
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	change();
	CHECK_EQ(seen, UNBLOCKED);
}

/* ---- another thread is in -------------------------------------------------------------------------------------- */

static _Atomic pid_t installing;
static _Atomic bool committing, installed, held;

/* In the library, until the other thread waits, or has not waited. */
static int hold(enum inject_point point)
{
	if (point != INJECT_COMMIT_CHECKED || held)
		return 0;
	held = true;
	CHECK(!is_blocked(SIGUSR1));
	committing = true;
	while (!installed && (installing == 0 || !harness_waits(installing)))
		sched_yield();
	CHECK(!installed);
	return 0;
}

static void *install(void *unused)
{
	(void)unused;
	while (!committing)
		sched_yield();
	installing = (pid_t)syscall(SYS_gettid);
	CHECK(signal(SIGUSR1, on_signal) == SIG_DFL);
	installed = true;
	return NULL;
}

static void other_thread(void *unused)
{
	pthread_t thread;

	(void)unused;
	begin();
	libpatch_inject = hold;
	REQUIRE(pthread_create(&thread, NULL, install, NULL) == 0);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	pthread_join(thread, NULL);
	CHECK(held);
	CHECK(installed);
	libpatch_inject = look;
	change();
	CHECK_EQ(seen, BLOCKED);
}

/* Before glibc 2.34 there is one for cancellation as soon as there is its library for threads. */
static bool libc_has_handler(void)
{
	struct kernel_action action = { .handler = NULL };

	REQUIRE(syscall(SYS_rt_sigaction, LIBC_CANCEL, NULL, &action, sizeof(action.mask)) == 0);
	/* make lets its tests inherit that it is ignored. */
	return action.handler != NULL && (void *)action.handler != (void *)SIG_IGN;
}

int main(void)
{
	/*
	 * A sanitizer's library, with system calls of its own that are not mediated: handlers are always to be
	 * expected.
	 */
	bool may_have_none = dlsym(RTLD_DEFAULT, "__ubsan_handle_add_overflow") == NULL;

	harness_start();
	harness_isolated("a handler from before", before, (void *)SIGUSR1);
	harness_isolated("a handler from before for SIGTRAP", before, (void *)SIGTRAP);
	if (!may_have_none) {
		harness_say("not tried without handlers: a sanitizer's library is in the program\n");
		return harness_end();
	}
	if (libc_has_handler()) {
		harness_skip_part("without handlers", "this libc has one from the beginning, for cancellation");
		return harness_end();
	}
	harness_isolated("handlers installed by libc", none_and_then_some, NULL);
	harness_isolated("handlers installed by a system call", none_and_then_some, (void *)1);
	harness_isolated("threads from before that wait", threads, NULL);
	harness_isolated("threads from before that run", threads, (void *)1);
	harness_isolated("a thread from before that is in the call", thread_in_the_call, NULL);
	harness_isolated("child", child, NULL);
	harness_isolated("another thread is in the library", other_thread, NULL);
	return harness_end();
}
