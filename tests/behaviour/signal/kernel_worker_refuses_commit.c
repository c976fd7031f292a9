/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker of io_uring, or of KVM, is in the list of the process's threads, with every signal blocked: it never runs
 * the program's code, and no commit is refused for it.
 */
#include "targets.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* With all but its number opaque to whoever reads the code: commits look at the threads. */
static NOINLINE void ask_for_a_look(volatile long number)
{
	long result;

	__asm__ volatile("xchg %%rax, %%rax\n\tnop\n\tsyscall" : "=a"(result) : "a"(number) : "rcx", "r11", "memory");
	(void)result;
}

static unsigned int count_threads(void)
{
	DIR *directory = opendir("/proc/self/task");
	unsigned int count = 0;

	REQUIRE(directory != NULL);
	while (readdir(directory) != NULL)
		count++;
	closedir(directory);
	return count - 2;
}

static void begin_ring(void)
{
	struct io_uring_params parameters;

	memset(&parameters, 0, sizeof(parameters));
	parameters.flags = IORING_SETUP_SQPOLL;
	parameters.sq_thread_idle = 100000;
	if (syscall(SYS_io_uring_setup, 4, &parameters) < 0)
		SKIP("io_uring_setup: %s", strerror(errno));
	if (count_threads() < 2)
		SKIP("io_uring has no thread here");
}

/* The first run of a machine, which ends at once: it has no memory. */
static void begin_machine(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), machine, processor;

	if (kvm < 0)
		SKIP("/dev/kvm: %s", strerror(errno));
	machine = ioctl(kvm, KVM_CREATE_VM, 0);
	processor = machine < 0 ? -1 : ioctl(machine, KVM_CREATE_VCPU, 0);
	if (processor < 0)
		SKIP("no machine here: %s", strerror(errno));
	ioctl(processor, KVM_RUN, 0);
	if (count_threads() < 2)
		SKIP("KVM has no thread here");
}

static bool before;

static void run(void *begin_worker)
{
	patch_t patch;

	if (!before)
		REQUIRE_OK(patch_init(NULL, 0));
	((void (*)(void))begin_worker)();
	if (before)
		REQUIRE_OK(patch_init(NULL, 0));
	ask_for_a_look(SYS_getpid);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	(void)argv;
	harness_start();
	before = argc == 1;
	harness_isolated("io_uring", run, begin_ring);
	harness_isolated("KVM", run, begin_machine);
	return harness_end();
}
