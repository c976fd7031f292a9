/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that wait with another mask: rt_sigsuspend, ppoll, pselect6 and their like.
 */
#include "base/inject.h"
#include "base/syscall.h"
#include "interpose/emul.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigwait.h"
#include "trap/signal_frame.h"

#include <errno.h>
#include <stdatomic.h>

void emul_hold_again(struct mediated *call)
{
	if (call->words[1] && !call->interrupted)
		signals_set_mask(call->words[0]);
	call->words[1] = 0;
}

/* A wait is over, or is not to be: what was told to the thread meanwhile is not its alone. */
static void emul_post_wait(struct mediated *call)
{
	if (app_sigwait_withdraw(call))
		app_sigwait_pass_on(call);
	emul_hold_again(call);
}

void emul_pend_held(struct mediated *call)
{
	uint64_t held = app_sigpending_pending() & call->takes;

	if (held == 0)
		return;
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &held, &call->words[0], SET_SIZE);
	call->words[1] = 1;
	signal_frame_raise_held(held);
}

/*
 * For the time of a call, the thread has another mask: *place is where call->ours has its address. It goes to the
 * kernel as it is: nothing outside the kernel runs meanwhile, and each handler begins with a mask of its own (S8).
 * One that is not there goes to the kernel as the program gave it, which may find something else before it.
 */
static bool emul_wait(struct mediated *call, long *place)
{
	if (!emul_is_readable((const void *)*place)) {
		mediated_end();
		return false;
	}
	call->post = emul_post_wait;
	call->mask = *(const volatile uint64_t *)*place;
	*place = (long)&call->mask;
	atomic_signal_fence(memory_order_seq_cst);
	call->takes = OWNED & ~call->mask;
	call->waits = true;
	call->restarts = call->program->rax != SYS_epoll_pwait && call->program->rax != SYS_epoll_pwait2 &&
			 call->program->rax != SYS_io_uring_enter;
	app_sigwait_offer(call, call->takes);
	(void)INJECT(INJECT_WAIT);
	/* What comes behind this look makes the call begin anew. */
	emul_pend_held(call);
	mediated_make(call);
	return true;
}

bool emul_sigsuspend(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .lasts = true };

	if (program->rsi != SET_SIZE)
		return false;
	emul_adopt_before_call();
	mediated_begin(&call);
	return emul_wait(&call, &call.ours.rdi);
}

bool emul_ppoll(struct arch_call *program, size_t mask, long size)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .lasts = true };

	if (*(const long *)((const char *)program + mask) == 0 || size != SET_SIZE)
		return false;
	emul_adopt_before_call();
	mediated_begin(&call);
	return emul_wait(&call, (long *)((char *)&call.ours + mask));
}

/* pselect6, io_pgetevents: the last argument points to the mask's address and its size. */
bool emul_pselect(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .lasts = true };
	long argument = program->r9;
	struct {
		long mask;
		long size;
	} ours;

	if (argument == 0 || !emul_are_readable((const void *)argument, sizeof(ours)))
		return false;
	ours.mask = ((const volatile long *)argument)[0];
	ours.size = ((const volatile long *)argument)[1];
	if (ours.mask == 0 || ours.size != SET_SIZE)
		return false;
	emul_adopt_before_call();
	mediated_begin(&call);
	call.ours.r9 = (long)&ours;
	return emul_wait(&call, &ours.mask);
}

/* With IORING_ENTER_EXT_ARG, the fifth argument points to this (include/uapi/linux/io_uring.h). */
struct getevents_argument {
	uint64_t mask; /* its address */
	uint32_t size;
	uint32_t unused;
	uint64_t time;
};
#define ENTER_GETEVENTS 1
#define ENTER_EXT_ARG 8

/* io_uring_enter: where it waits, the mask is the fifth argument or in what that points to. */
bool emul_io_uring_enter(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .lasts = true };
	const volatile struct getevents_argument *argument = (const struct getevents_argument *)program->r8;
	struct getevents_argument ours;

	if ((program->r10 & ENTER_GETEVENTS) == 0 || program->r8 == 0)
		return false;
	if ((program->r10 & ENTER_EXT_ARG) == 0)
		return emul_ppoll(program, offsetof(struct arch_call, r8), program->r9);
	if (program->r9 != sizeof(ours) || !emul_are_readable((const void *)program->r8, sizeof(ours)))
		return false;
	ours.mask = argument->mask;
	ours.size = argument->size;
	ours.unused = argument->unused;
	ours.time = argument->time;
	if (ours.mask == 0 || ours.size != SET_SIZE)
		return false;
	emul_adopt_before_call();
	mediated_begin(&call);
	call.ours.r8 = (long)&ours;
	return emul_wait(&call, (long *)&ours.mask);
}
