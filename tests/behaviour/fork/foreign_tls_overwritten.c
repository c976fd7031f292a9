/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that is started with thread-local storage of the program's own making has no room there for variables of the
 * library: nothing is written in front of it, and nothing is read where nothing is mapped. Every call that starts
 * threads, storage that looks like libc's or does not, SIGTRAP blocked by the creator or not. A thread of libc's
 * inherits that it believes to block it.
 */
#include "harness.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>

#define FLAGS \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | \
	 CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID)
#define FRONT 65536

enum way { CLONE, SYSCALL_CLONE3, WAYS };
/* How much of the head of libc's storage it has; the last: nothing is mapped there. */
enum storage { NO_HEAD, OWN_ADDRESS, BOTH_ADDRESSES, NOT_MAPPED, STORAGES };

struct part {
	enum way way;
	enum storage storage;
	bool blocks;
	bool mapped_in_front;
};

static char stack[65536] __attribute__((aligned(16)));
static volatile pid_t tid;
static volatile int ran;
static bool calls; /* what is mediated: calls of libc's that need no storage */

static int thread(void *unused)
{
	uint64_t mask;

	(void)unused;
	if (calls && (syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask)) != 0 ||
		      syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, sizeof(mask)) != 0))
		return 1;
	ran = 1;
	__asm__ volatile("syscall" : : "a"(SYS_exit), "D"(0));
	__builtin_unreachable();
}

/* clone3() returns on the new stack, with nothing on it: the child must not come back to C. */
static long start_by_clone3(struct clone_args *arguments)
{
	long result;

	__asm__ volatile("mov %[number], %%eax\n\t"
			 "syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "movl $1, %[ran]\n\t"
			 "mov %[exit], %%eax\n\t"
			 "xor %%edi, %%edi\n\t"
			 "syscall\n"
			 "1:"
			 : "=&a"(result), [ran] "+m"(ran)
			 : [number] "i"(SYS_clone3), [exit] "i"(SYS_exit), "D"(arguments), "S"(sizeof(*arguments))
			 : "rcx", "r11", "memory");
	return result;
}

static void check(void *argument)
{
	const struct part *part = argument;
	uint8_t *storage = mmap((void *)0x200000000000, 4096, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	uint8_t *front = storage - FRONT;
	uintptr_t *head = (uintptr_t *)storage;
	struct clone_args arguments = { 0 };
	sigset_t set;
	long result;

	REQUIRE(storage != MAP_FAILED);
	if (part->storage == OWN_ADDRESS || part->storage == BOTH_ADDRESSES)
		head[0] = (uintptr_t)storage;
	if (part->storage == BOTH_ADDRESSES)
		head[2] = (uintptr_t)storage;
	if (part->mapped_in_front) {
		REQUIRE(mmap(front, FRONT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0) == front);
		memset(front, 0x5A, FRONT);
	}
	calls = part->storage != NOT_MAPPED;
	if (part->storage == NOT_MAPPED)
		munmap(storage, 4096);
	REQUIRE_OK(patch_init(NULL, 0));
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	if (part->blocks)
		sigprocmask(SIG_BLOCK, &set, NULL);

	tid = 1;
	if (part->way == CLONE) {
		result = clone(thread, stack + sizeof(stack), FLAGS, NULL, &tid, storage, &tid);
	} else {
		arguments.flags = FLAGS;
		arguments.stack = (uintptr_t)stack;
		arguments.stack_size = sizeof(stack);
		arguments.tls = (uintptr_t)storage;
		arguments.parent_tid = (uintptr_t)&tid;
		arguments.child_tid = (uintptr_t)&tid;
		result = start_by_clone3(&arguments);
	}
	CHECK(result > 0);
	while (tid != 0)
		sched_yield();
	CHECK_EQ(ran, 1);
	for (int i = 0; i < FRONT && part->mapped_in_front; i++)
		CHECK_EQ(front[i], 0x5A);
}

static void *read_mask(void *set)
{
	pthread_sigmask(SIG_BLOCK, NULL, set);
	return NULL;
}

static void check_libcs(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int blocks = 0; blocks < 2; blocks++) {
		pthread_t thread;
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGTRAP);
		sigprocmask(blocks ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
		REQUIRE(pthread_create(&thread, NULL, read_mask, &set) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		CHECK_EQ(sigismember(&set, SIGTRAP), blocks);
	}
}

int main(void)
{
	harness_start();
	for (unsigned int i = 0; i < WAYS * STORAGES * 4; i++) {
		struct part part = { i % WAYS, i / WAYS % STORAGES, i / WAYS / STORAGES % 2, i / WAYS / STORAGES / 2 };
		char what[64];

		snprintf(what, sizeof(what), "way %d, storage %d, blocks %d, mapped in front %d", part.way,
			 part.storage, part.blocks, part.mapped_in_front);
		harness_isolated(what, check, &part);
	}
	harness_isolated("threads of libc's", check_libcs, NULL);
	return harness_end();
}
