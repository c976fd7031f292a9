/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which process this is. The answer has to be right in the child of any fork, also of one that libc knows nothing
 * about.
 */
#include "sys/process.h"

#include "base/syscall.h"

#include <sys/mman.h>

struct process_own libpatch_process_own;
static bool wipes;

static struct process_own *const own = &libpatch_process_own;

/* Below 0: a filter refuses the call. Then nothing is known, and the process is taken for the one that it was. */
static pid_t process_self(void)
{
	return (pid_t)raw_syscall(SYS_getpid);
}

void process_begin(void)
{
	/* Linux 4.14 (mm/madvise.c). */
	if (!wipes)
		wipes = raw_syscall(SYS_madvise, own, sizeof(*own), MADV_WIPEONFORK) == 0;
	process_forked();
}

void process_forked(void)
{
	atomic_store(&own->owner, process_self());
}

bool process_wipes(void)
{
	return wipes;
}

bool process_is_new(void)
{
	pid_t now = process_self();

	return now > 0 && atomic_load(&own->owner) != now;
}

bool process_is_borrowed(void)
{
	pid_t known = atomic_load(&own->owner);
	pid_t now = process_self();

	/*
	 * The kernel wiped the word: a fork that libc was not asked for, whose child has a copy of the memory all the
	 * same.
	 */
	if (known == 0)
		atomic_store(&own->owner, now);
	return known != 0 && now > 0 && known != now;
}
