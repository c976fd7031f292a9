/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mask that a thread sets and reads: rt_sigprocmask; what a handler of another's goes back to: rt_sigreturn.
 */
#include "base/syscall.h"
#include "interpose/emul.h"
#include "interpose/mask_audit.h"
#include "runtime/fork.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/put_off.h"
#include "trap/signal_frame.h"

#include <errno.h>
#include <stdatomic.h>

static uint64_t emul_changed_mask(int how, uint64_t before, uint64_t set)
{
	switch (how) {
	case SIG_BLOCK:
		return before | set;
	case SIG_UNBLOCK:
		return before & ~set;
	default:
		return set;
	}
}

/*
 * words: what the thread believed, the owned signals that it asked for, and all that it asked for; mask: what the
 * kernel had, if read.
 */
static void emul_post_sigprocmask(struct mediated *call)
{
	uint64_t believed = call->words[0], asked = call->words[1];
	uint64_t *old = (uint64_t *)call->program->rdx;
	uint64_t real;

	/* The mask has changed, too, where the kernel could not say what it was: the new one was read from ours. */
	if (!call->made || (call->program->rax != 0 &&
			    (call->program->rax != -EFAULT || call->ours.rsi == call->program->rsi)))
		return;
	if (call->program->rax != 0) {
		old = NULL;
		call->ours.rdx = 0;
	}
	real = (call->ours.rdx != 0 ? *(uint64_t *)call->ours.rdx : call->mask) & OWNED;
	if (old != NULL)
		*old = ((call->ours.rdx != 0 ? *old : call->mask) & ~put_off_blocked()) | believed;
	if (call->program->rsi == 0)
		return;
	if ((int)call->program->rdi != SIG_UNBLOCK)
		put_off_keep_blocked(call->words[2]);
	/* Blocked by other means than this: so much for them. */
	if (real & ~believed) {
		believed |= real;
		real = OWNED;
		if (!call->interrupted)
			raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &real, NULL, SET_SIZE);
	}
	app_sigstate_set_blocked(emul_changed_mask((int)call->program->rdi, believed, asked));
	/* What has come since the look. */
	signal_frame_raise_held(OWNED & ~app_sigstate_blocked());
}

/*
 * Some that are held will not be blocked any more: they are raised before that, so that they come when the others do
 * that the call lets through, in the kernel's order.
 */
static void emul_unblock_held(struct mediated *call, uint64_t *kernel)
{
	uint64_t now = emul_changed_mask((int)call->program->rdi, call->words[0], call->words[1]);
	uint64_t *old = (uint64_t *)call->program->rdx;

	if ((app_sigpending_pending() & ~now) == 0 || (old != NULL && !emul_is_writable(old, SET_SIZE)))
		return;
	call->mask = signals_block();
	signal_frame_raise_held(OWNED & ~now);
	*kernel = emul_changed_mask((int)call->program->rdi, call->mask, *kernel) & ~OWNED;
	call->mask &= ~put_off_blocked();
	call->ours.rdi = SIG_SETMASK;
	call->ours.rdx = 0;
}

bool emul_sigprocmask(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigprocmask };
	int how = (int)program->rdi;
	const uint64_t *set = (const uint64_t *)program->rsi;
	uint64_t kernel;
	bool is_change = set != NULL && (how == SIG_BLOCK || how == SIG_UNBLOCK || how == SIG_SETMASK);

	if (program->r10 != SET_SIZE || (set != NULL && !is_change))
		return false;
	/* Adopted between the look and the kernel's call, the thread would lose what it has come to believe. */
	emul_adopt_before_call();
	mediated_begin(&call);
	call.words[0] = app_sigstate_blocked();
	if (set != NULL) {
		if (!emul_is_readable(set)) {
			mediated_is_made(&call, -EFAULT);
			mediated_end();
			return true;
		}
		kernel = *(const volatile uint64_t *)set;
		call.words[1] = kernel & OWNED;
		call.words[2] = kernel;
		if (how != SIG_UNBLOCK)
			kernel &= ~OWNED;
		call.ours.rsi = (long)&kernel;
	}
	if (program->rdx == 0)
		call.ours.rdx = (long)&call.mask;
	if (set != NULL)
		emul_unblock_held(&call, &kernel);
	mediated_make(&call);
	return true;
}

/*
 * Out of a handler that the kernel called without us: it was there before patch_init(), or was set by a call that is
 * not mediated. What it goes back to blocks owned signals, as far as the program can see (S7).
 */
bool emul_sigreturn(struct arch_call *call)
{
	/*
	 * Nobody adopts behind the next line what the handler blocks. But a handler of SIGSYS must not be called for a
	 * call that it has not made.
	 */
	if (!lock_fork_is_filtered())
		emul_adopt_before_call();
	signal_frame_return((ucontext_t *)arch_call_stack_pointer(call));
	return false;
}

static atomic_bool begun;

void emul_begin_signals(void)
{
	atomic_store_explicit(&begun, true, memory_order_release);
}

bool emul_signals_are_ours(void)
{
	return atomic_load_explicit(&begun, memory_order_acquire);
}

void emul_adopt_blocked(void)
{
	uint64_t real = 0;

	if (!emul_signals_are_ours())
		return;
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &real, SET_SIZE);
	if (!(real & OWNED))
		return;
	emul_take_over_handlers();
	app_sigstate_set_blocked(app_sigstate_blocked() | (real & OWNED));
	real = OWNED;
	raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &real, NULL, SET_SIZE);
}

void emul_adopt_before_call(void)
{
	if (!mask_audit_is_settled())
		emul_adopt_blocked();
}
