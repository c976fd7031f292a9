/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of the program, which may not be there: the kernel is asked, so that nothing faults.
 */
#include "base/syscall.h"
#include "interpose/emul.h"

#include <errno.h>

bool emul_is_readable(const void *set)
{
	return raw_is_readable((uintptr_t)set);
}

bool emul_are_readable(const void *words, size_t size)
{
	for (size_t at = 0; at < size; at += SET_SIZE)
		if (!emul_is_readable((const char *)words + at))
			return false;
	return true;
}

bool emul_is_writable(void *info, size_t size)
{
	/* Writes the mask there. */
	return raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, info, SET_SIZE) != -EFAULT &&
	       raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, (char *)info + size - SET_SIZE, SET_SIZE) != -EFAULT;
}
