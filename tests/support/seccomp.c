/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filters on system calls: see seccomp.h. */
#include "seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <stddef.h>

int filter_call(long number, unsigned int action, unsigned int flags)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int try_refuse(long number, int error)
{
	return filter_call(number, SECCOMP_RET_ERRNO | (unsigned int)error, 0) == 0 ? 0 : errno;
}

void refuse(long number, int error)
{
	REQUIRE(try_refuse(number, error) == 0);
}

static void refuse_nothing_(void *unused)
{
	(void)unused;
	_exit(try_refuse(SYS_fchownat, EPERM));
}

void require_filters(void)
{
	int status = harness_child(refuse_nothing_, NULL);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		SKIP("seccomp() is refused here: %s",
		     WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : strsignal(WTERMSIG(status)));
}
