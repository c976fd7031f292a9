/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One word of each thread: the call that it is in. What handlers do with it is signal_frame.c's to know.
 */
#include "trap/mediated.h"

#include <stdatomic.h>

static TLS_INITIAL_EXEC struct mediated *current;

void mediated_begin(struct mediated *call)
{
	call->made = false;
	call->interrupted = false;
	atomic_signal_fence(memory_order_seq_cst);
	current = call;
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
	current = NULL;
}

struct mediated *mediated_current(void)
{
	return current;
}
