/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals that are taken or looked at, not handled: rt_sigtimedwait, rt_sigpending.
 */
#include "base/inject.h"
#include "interpose/emul.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"

#include <errno.h>
#include <stdatomic.h>

static void emul_copy_info(siginfo_t *out, const siginfo_t *info)
{
	for (size_t i = 0; i < sizeof(*info); ++i)
		((volatile char *)out)[i] = ((const char *)info)[i];
}

/* As in the kernel, what was taken is gone where there is no place to say so. */
static void emul_tell_info(struct mediated *call)
{
	siginfo_t *out = (siginfo_t *)call->program->rsi;

	if (out != NULL && emul_is_writable(out, sizeof(*out)))
		emul_copy_info(out, &call->info);
	else if (out != NULL)
		call->program->rax = -EFAULT;
}

/* What the call has taken is in call->info; what was told to the thread may be taken, too: then words[2] is 1. */
static void emul_post_sigtimedwait(struct mediated *call)
{
	long result = call->program->rax;
	bool told = app_sigwait_withdraw(call);
	bool is_wake = call->made && result > 0 && (call->takes & SIGNALS_BIT(result)) != 0 &&
		       app_sigwait_is_wake(&call->info);

	/* By one store: whoever begins anew behind it comes to the same. */
	if (told && call->made && (result <= 0 || is_wake))
		call->words[2] = 1;
	atomic_signal_fence(memory_order_seq_cst);
	if (call->words[2]) {
		call->info = call->told;
		call->program->rax = call->told.si_signo;
		(void)INJECT(INJECT_TAKEN);
		call->is_told = false;
	} else if (told) {
		app_sigwait_pass_on(call);
	} else if (is_wake) {
		/* It was for the process, and another thread has taken it: wait again, from the start. */
		call->made = false;
	}
	if (call->made && call->program->rax > 0)
		emul_tell_info(call);
	emul_hold_again(call);
}

bool emul_sigtimedwait(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigtimedwait, .lasts = true };
	uint64_t wanted;

	if (program->r10 != SET_SIZE || !emul_is_readable((const void *)program->rdi))
		return false;
	wanted = *(const volatile uint64_t *)program->rdi & OWNED;
	if (wanted == 0)
		return false;
	emul_adopt_before_call();
	mediated_begin(&call);
	call.ours.rsi = (long)&call.info;
	call.takes = wanted;
	do {
		program->rax = call.ours.rax;
		app_sigwait_offer(&call, wanted);
		(void)INJECT(INJECT_WAIT);
		/* What comes behind this look makes the call begin anew. */
		emul_pend_held(&call);
		arch_call_kernel(&call.ours, &program->rax, &call.made);
		call.post(&call);
	} while (!call.made);
	mediated_end();
	return true;
}

static void emul_post_sigpending(struct mediated *call)
{
	const uint64_t held = app_sigpending_pending() & app_sigstate_blocked();

	/* A smaller set is the lower end. */
	for (long i = 0; call->made && call->program->rax == 0 && i < call->program->rsi; ++i)
		((volatile uint8_t *)call->program->rdi)[i] |= (uint8_t)(held >> 8 * i);
}

bool emul_sigpending(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigpending };

	mediated_begin(&call);
	mediated_make(&call);
	return true;
}
