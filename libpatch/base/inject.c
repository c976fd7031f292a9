/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault injection, for tests only: empty in the library that is installed.
 */
#include "base/inject.h"

#ifdef LIBPATCH_INJECT
#include <sys/syscall.h>

int (*libpatch_inject)(enum inject_point point);

int libpatch_inject_system_call(long nr)
{
	switch (nr) {
	case SYS_close: /* whatever it returns, the descriptor is gone */
	case SYS_getpid:
	case SYS_gettid:
	case SYS_rt_sigprocmask:
		return 0;
	default:
		return INJECT(INJECT_SYSCALL);
	}
}
#else
typedef int inject_is_empty; /* ISO C wants a declaration in every unit */
#endif
