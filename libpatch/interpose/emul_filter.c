/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Filters of system calls, which the program sets for itself: prctl, seccomp. The calls are the program's to make, but
 * for Syscall User Dispatch.
 */
#include "arch/cpu.h"
#include "arch/signal_entry.h"
#include "interpose/emul.h"
#include "runtime/fork.h"
#include "sys/process.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <sys/prctl.h>

/* Before it is in effect. That of a borrowing child is the child's own, which is about to execute its program. */
static void emul_note_filter(void)
{
	if (process_is_borrowed())
		return;
	lock_note_filter();
	/* A thread with a shadow stack cannot return to a frame of our own. */
	if (!arch_has_shadow_stack())
		atomic_store(&libpatch_signal_filter, 1);
}

/* Linux 5.11; libc's header may not have it. The mode that raises SIGSYS everywhere but in a range. */
#define SET_DISPATCH 59
#define DISPATCH_OUTSIDE 1

bool emul_prctl(struct arch_call *program)
{
	if ((int)program->rdi == PR_SET_SECCOMP)
		emul_note_filter();
	/*
	 * The calls that begin and end handlers, and mediated ones, are made from where the program has not allowed
	 * them: the first of them would raise SIGSYS without end. Kernels without it say the same.
	 */
	if ((int)program->rdi != SET_DISPATCH || program->rsi != DISPATCH_OUTSIDE)
		return false;
	program->rax = -EINVAL;
	return true;
}

bool emul_seccomp(struct arch_call *program)
{
	const unsigned int what = (unsigned int)program->rdi;

	if (what == SECCOMP_SET_MODE_STRICT || what == SECCOMP_SET_MODE_FILTER)
		emul_note_filter();
	return false;
}
