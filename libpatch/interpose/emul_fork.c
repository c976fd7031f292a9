/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another thread, or another process: clone, clone3, fork.
 */
#include "base/syscall.h"
#include "interpose/emul.h"
#include "runtime/fork.h"
#include "sys/tls.h"
#include "trap/app_sigstate.h"
#include "trap/signal_frame.h"

#include <errno.h>
#include <sched.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

/* A new thread believes to block what its creator does, before it has set anything. */
static void emul_inherit_masks(uint64_t flags, uintptr_t thread)
{
	/* Nobody would know of one that has them blocked. */
	emul_adopt_blocked();
	if ((flags & CLONE_SETTLS) && (flags & CLONE_VM) && tls_is_libcs(thread))
		app_sigstate_inherit(thread);
}

static long emul_make_call(void *data)
{
	struct mediated *call = data;
	const struct arch_call *ours = &call->ours;
	long result = raw_syscall6(ours->rax, ours->rdi, ours->rsi, ours->rdx, ours->r10, ours->r8, ours->r9);

	mediated_is_made(call, result);
	return result;
}

/*
 * The child has a copy of the memory, of the stack that this runs on, and of the thread's storage. One with a stack of
 * its own could not return from here, nor one with other storage; and with CLONE_VFORK this does not return before the
 * child's end.
 */
static bool emul_fork_like(struct arch_call *program, uint64_t flags, uintptr_t stack, uintptr_t thread)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .busy = true };

	emul_inherit_masks(flags, thread);
	if ((flags & (CLONE_VM | CLONE_VFORK | CLONE_SETTLS)) || stack != 0)
		return false;
	/* A filter may raise it for this call: the handler is not to run under the lock, nor the call to begin anew. */
	if (lock_fork_is_filtered())
		return false;
	mediated_begin(&call);
	lock_over_fork(emul_make_call, &call);
	call.busy = false;
	signal_frame_raise_held(OWNED & ~app_sigstate_blocked());
	mediated_end();
	return true;
}

bool emul_fork(struct arch_call *program)
{
	return emul_fork_like(program, 0, 0, 0);
}

bool emul_clone(struct arch_call *program)
{
	return emul_fork_like(program, (uint64_t)program->rdi, (uintptr_t)program->rsi, (uintptr_t)program->r8);
}

bool emul_clone3(struct arch_call *program)
{
	/* struct clone_args: flags first, stack sixth, tls eighth (include/uapi/linux/sched.h). */
	const volatile uint64_t *arguments = (const volatile uint64_t *)program->rdi;

	if (program->rsi < 8 * SET_SIZE || !emul_are_readable((const void *)program->rdi, 8 * SET_SIZE))
		return false;
	/*
	 * Without our handler the child would die of a trap byte before it executes its program (hazard 7); libc does
	 * without.
	 */
	if (arguments[0] & CLONE_CLEAR_SIGHAND) {
		program->rax = -ENOSYS;
		return true;
	}
	return emul_fork_like(program, arguments[0], arguments[5], arguments[7]);
}
