/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A supervisor (proot, or one that a filter of system calls asks) opens files in the program's stead, and knows
 * /proc/self, but follows /proc/thread-self to itself: the library read the supervisor's mappings for the program's,
 * and wrote to the supervisor's memory. Neither may happen.
 */
#include "targets.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>

#ifndef SECCOMP_ADDFD_FLAG_SEND /* Linux 5.14 */
#define SECCOMP_ADDFD_FLAG_SEND (1UL << 1)
#endif

static struct shared {
	volatile int listener;
	volatile bool ready;
	volatile bool blind; /* it cannot read what the program asks for */
	volatile unsigned int own; /* how often the supervisor has opened what is its own */
} *shared;
static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* ---- the supervisor ---------------------------------------------------------------------------------------------- */

/* A descriptor of its own for what is below /proc/thread-self; else the kernel opens. */
static bool open_own(const struct seccomp_notif *asked)
{
	struct seccomp_notif_addfd added = { .id = asked->id, .flags = SECCOMP_ADDFD_FLAG_SEND };
	char name[64], path[64] = "";
	int fd, memory;

	snprintf(name, sizeof(name), "/proc/%u/mem", asked->pid);
	memory = open(name, O_RDONLY | O_CLOEXEC);
	if (memory < 0 || pread(memory, path, sizeof(path) - 1, (off_t)asked->data.args[1]) <= 0)
		shared->blind = true;
	close(memory);
	if (strncmp(path, "/proc/thread-self/", 18) != 0)
		return false;
	fd = open(path, (int)asked->data.args[2]);
	if (fd < 0)
		return false;
	shared->own++;
	added.srcfd = (unsigned int)fd;
	ioctl(shared->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &added);
	close(fd);
	return true;
}

/* Until it is killed, by the program, or as its child. */
__attribute__((noreturn)) static void supervise(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!shared->ready)
		sched_yield();
	for (;;) {
		struct seccomp_notif asked;
		struct seccomp_notif_resp answer;

		memset(&asked, 0, sizeof(asked));
		if (ioctl(shared->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0 || open_own(&asked))
			continue;
		answer = (struct seccomp_notif_resp){ .id = asked.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
		ioctl(shared->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void ask_for_openat(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	shared->listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
					&program);
	if (shared->listener < 0)
		SKIP("no filter that asks: %s", strerror(errno));
	shared->ready = true;
}

static void *look_on(void *over)
{
	while (!*(volatile bool *)over)
		sched_yield();
	return NULL;
}

/* With another thread, which patch_init() looks at. */
static void run(void *threads)
{
	volatile bool over = false;
	pthread_t thread;
	patch_t patch;
	pid_t pid;

	/* It shares descriptors with the program, the filter's among them. */
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		supervise();
	ask_for_openat();
	if (threads)
		REQUIRE(pthread_create(&thread, NULL, look_on, (void *)&over) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	over = true;
	if (threads)
		pthread_join(thread, NULL);
	CHECK_EQ(shared->own, 0);
	if (shared->blind)
		SKIP("a supervisor may not read the program's memory");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(shared->listener);
}

int main(void)
{
	harness_start();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	harness_isolated("one thread", run, NULL);
	shared->ready = false;
	harness_isolated("two threads", run, &shared);
	return harness_end();
}

