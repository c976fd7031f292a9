/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the last look at a descriptor and the write, the program makes it a file of its own: what was written there
 * is lost, but the commit does not take it for done. The instant is the entry of the system call, which a filter hands
 * to another thread. And a write that fails when some of its bytes are there: those are ours, and the next commit goes
 * on from them.
 */
#include "targets.h"

#include "seccomp.h"
#include "sys/text.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

/* Each is one write of a single patch. */
#define PHASES 3

static unsigned int hits;
static int listener, file;
static bool halves;
/* The write of the commit that is to be lost, counted down; and how many were. */
static _Atomic unsigned int due, swaps;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* Some of the bytes, and all for nothing. Of a single one, nothing. */
static bool write_half(const struct seccomp_notif *call)
{
	struct iovec half = { (void *)(uintptr_t)call->data.args[1], (size_t)call->data.args[2] / 2 };

	/* By a call that the filter lets through. */
	return half.iov_len == 0 ||
	       pwritev((int)call->data.args[0], &half, 1, (off_t)call->data.args[3]) == (ssize_t)half.iov_len;
}

/* The library's first write to pages of its own is of zeros where there are such: nothing is lost with it. */
static bool makes_page(const struct seccomp_notif *call)
{
	return call->data.args[2] % 4096 == 0 && *(const char *)(uintptr_t)call->data.args[1] == 0;
}

/* The thread calls the C library only, and nothing that is patched. */
static void *supervise(void *unused)
{
	struct seccomp_notif_resp answer;
	struct seccomp_notif call;

	(void)unused;
	for (;;) {
		memset(&call, 0, sizeof(call));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
			return NULL;
		memset(&answer, 0, sizeof(answer));
		answer.id = call.id;
		answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		if (due > 0 && !makes_page(&call) && --due == 0) {
			swaps += halves ? write_half(&call) : dup2(file, (int)call.data.args[0]) >= 0;
			answer.flags = halves ? 0 : answer.flags;
			answer.error = halves ? -EIO : 0;
		}
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

static void *change(void *argument)
{
	patch_t patch = argument;
	pthread_t supervisor;
	patch_status status;

	/* From now on this thread's writes at an offset wait for supervise(). */
	listener = filter_call(SYS_pwrite64, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	if (listener < 0)
		SKIP("the kernel hands no system calls to others: %s", strerror(errno));
	REQUIRE(pthread_create(&supervisor, NULL, supervise, NULL) == 0);
	for (unsigned int round = 0; round < 2 * PHASES; ++round) {
		bool install = round % 2 == 0;

		CONTEXT("%s, write %u lost", install ? "install" : "remove", 1 + round / 2);
		CHECK_OK(install ? patch_enable(patch) : patch_disable(patch));
		due = 1 + round / 2;
		status = patch_commit();
		CHECK(status != PATCH_OK);
		CHECK_EQ(swaps, round + 1);
		CHECK_EQ(t_push_push(1, 2), 5);
		/* Nobody interferes: what was lost is made up for. */
		CHECK_OK(patch_commit());
		hits = 0;
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, install);
	}
	return NULL;
}

static void lose_writes(void *argument)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));
	pthread_t thread;
	patch_t patch;

	halves = *(const bool *)argument;
	/* Of those on disks, few can be that long. */
	file = memfd_create("file", MFD_CLOEXEC);
	REQUIRE(file >= 0);
	REQUIRE_OK(patch_init(NULL, 0));
	if (text_way() != TEXT_PROC_MEM)
		SKIP("/proc/self/mem cannot be written here");
	REQUIRE_OK(
		make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &patch));
	REQUIRE(pthread_create(&thread, NULL, change, patch) == 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

int main(void)
{
	const bool half[] = { false, true };

	harness_start();
	require_filters();
	harness_isolated("into a file", lose_writes, (void *)(uintptr_t)&half[0]);
	harness_isolated("half a write", lose_writes, (void *)(uintptr_t)&half[1]);
	return harness_end();
}
