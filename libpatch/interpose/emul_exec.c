/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Another program in this process: execve, execveat.
 */
#include "base/syscall.h"
#include "interpose/emul.h"
#include "sys/process.h"
#include "sys/tasks.h"
#include "trap/action.h"
#include "trap/app_sigstate.h"
#include "trap/put_off.h"
#include "trap/signal_frame.h"

/* The new program was not executed, or is not to be: words are the thread's mask and the signals that are ignored. */
static void emul_post_execve(struct mediated *call)
{
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction now;

		/* Our words are behind what the kernel has. */
		if ((call->words[1] & SIGNALS_BIT(signals_ownable[slot])) != 0 &&
		    action_get(signals_ownable[slot], &now) == 0 && now.handler == (void *)(uintptr_t)SIG_IGN)
			action_take_over(signals_ownable[slot]);
	}
	if (!call->interrupted)
		signals_set_mask(call->words[0]);
}

/* A new program inherits what is blocked and what is ignored: let it be what this one believes. */
bool emul_execve(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_execve, .lasts = true, .leaves = true };
	bool alone = process_is_borrowed() || tasks_is_single();
	uint64_t blocked;

	emul_adopt_before_call();
	blocked = app_sigstate_blocked();
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action;

		/* Another thread could meet a trap byte meanwhile; it is about to end, but not if the call fails. */
		if (alone && action_get(signals_ownable[slot], &action) == 0 && action_unwrap(&action) != ACTION_NONE &&
		    action.handler == (void *)(uintptr_t)SIG_IGN)
			call.words[1] |= SIGNALS_BIT(signals_ownable[slot]);
	}
	if (blocked == 0 && call.words[1] == 0 && put_off_blocked() == 0)
		return false;
	call.words[0] = signals_block();
	mediated_begin(&call);
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action;

		if ((call.words[1] & SIGNALS_BIT(signals_ownable[slot])) == 0 ||
		    action_get(signals_ownable[slot], &action) != 0 || action_unwrap(&action) == ACTION_NONE)
			continue;
		raw_syscall(SYS_rt_sigaction, signals_ownable[slot], &action, NULL, SET_SIZE);
	}
	signals_set_mask((call.words[0] & ~put_off_blocked()) | blocked);
	/* What is held is pending for the new program; it is held again if the call fails. */
	signal_frame_raise_held(blocked);
	mediated_make(&call);
	return true;
}
