/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One word of each thread: the call that it is in. What handlers do with it is signal_frame.c's to know.
 */
#include "trap/mediated.h"

#include "trap/app_sigstate.h"

#include <stdatomic.h>

/* In the lowest bit: of a child that borrows this memory. */
static TLS_INITIAL_EXEC uintptr_t current;
#define BORROWED ((uintptr_t)1)

void mediated_begin(struct mediated *call)
{
	const bool borrowed = app_sigstate_is_child(call->lasts);

	call->ours = *call->program;
	call->made = false;
	call->interrupted = false;
	atomic_signal_fence(memory_order_seq_cst);
	current = (uintptr_t)call | (borrowed ? BORROWED : 0);
	atomic_signal_fence(memory_order_seq_cst);
}

void mediated_is_made(struct mediated *call, long result)
{
	call->program->rax = result;
	atomic_signal_fence(memory_order_seq_cst);
	call->made = true;
	atomic_signal_fence(memory_order_seq_cst);
}

void mediated_make(struct mediated *call)
{
	arch_call_kernel(&call->ours, &call->program->rax, &call->made);
	call->post(call);
	mediated_end();
}

void mediated_end(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	current = 0;
}

struct mediated *mediated_current(void)
{
	/* Its memory may be gone with the child. */
	if ((current & BORROWED) && !app_sigstate_is_child(false))
		current = 0;
	return (struct mediated *)(current & ~BORROWED);
}
