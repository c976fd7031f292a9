/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread from before patch_init() blocks SIGTRAP, and waits in the kernel for memory that the thread which calls
 * patch_init() is to provide: it cannot be stopped, and patch_init() waited for it for ever. Now it counts as one that
 * cannot be adopted: commits are refused until it has its memory, and has unblocked.
 */
#include "harness.h"
#include "targets.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

static atomic_bool has_memory, unblocks;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *wait_for_memory(void *page)
{
	const uint64_t all = ~UINT64_C(0), none = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	/* The kernel reads it. */
	syscall(SYS_rt_sigaction, SIGUSR1, page, NULL, sizeof(all));
	has_memory = true;
	while (!unblocks)
		sched_yield();
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
	return NULL;
}

int main(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { .range = { (uintptr_t)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zeros = { .range = { (uintptr_t)page, 4096 } };
	struct uffdio_api api = { .api = UFFD_API };
	struct pollfd awaited = { .events = POLLIN };
	pthread_t thread;
	patch_t patch;

	harness_start();
	awaited.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (awaited.fd < 0 || ioctl(awaited.fd, UFFDIO_API, &api) != 0 ||
	    ioctl(awaited.fd, UFFDIO_REGISTER, &range) != 0)
		SKIP("there is no userfaultfd here: %s", strerror(errno));
	REQUIRE(pthread_create(&thread, NULL, wait_for_memory, page) == 0);
	REQUIRE(poll(&awaited, 1, -1) == 1 && awaited.revents == POLLIN);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_EQ(patch_commit(), PATCH_EBLOCKED);
	REQUIRE(ioctl(awaited.fd, UFFDIO_ZEROPAGE, &zeros) == 0);
	while (!has_memory)
		sched_yield();
	unblocks = true;
	pthread_join(thread, NULL);
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_OK(patch_fini());
	return harness_end();
}
