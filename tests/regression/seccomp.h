/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that refuses: filters on system calls, for the calling thread and all that it starts from then on. They cannot
 * be taken back, so each belongs into a child of its own.
 */
#ifndef TESTS_SECCOMP_H
#define TESTS_SECCOMP_H

#include "harness.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

/* 0, or why there can be no filter: then nothing has changed. */
static inline int try_refuse(long number, int error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		return errno;
	return 0;
}

/* From now on this thread's system call `number` fails with `error`. */
static inline void refuse(long number, int error)
{
	REQUIRE(try_refuse(number, error) == 0);
}

static inline void refuse_nothing_(void *unused)
{
	(void)unused;
	_exit(try_refuse(SYS_fchownat, EPERM));
}

/* Skip the test where filters are not to be had. */
static inline void require_filters(void)
{
	int status = harness_child(refuse_nothing_, NULL);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		SKIP("prctl(PR_SET_SECCOMP) is refused here: %s",
		     WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : strsignal(WTERMSIG(status)));
}

#endif
