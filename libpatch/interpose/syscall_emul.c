/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "interpose/syscall_emul.h"

#include "arch/signal_entry.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "elf/module.h"
#include "interpose/handler_audit.h"
#include "interpose/mask_audit.h"
#include "runtime/app_handlers.h"
#include "runtime/fork.h"
#include "runtime/hook_threads.h"
#include "sys/process.h"
#include "sys/tasks.h"
#include "sys/tls.h"
#include "trap/action.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"
#include "trap/forward.h"
#include "trap/mediated.h"
#include "trap/put_off.h"
#include "trap/signal_frame.h"

#include <sched.h>
#include <stdatomic.h>

#define OWNED SIGNALS_OWNED
/* The kernel's sigset_t (arch/x86/include/asm/signal.h). */
#define SET_SIZE 8

/* ---- memory of the program, which may not be there -------------------------------------------------------------- */

/* The kernel reads the set before it looks at `how` (kernel/signal.c, rt_sigprocmask): EFAULT or EINVAL. */
static bool is_readable(const void *set)
{
	return raw_syscall(SYS_rt_sigprocmask, -1, set, NULL, SET_SIZE) != -EFAULT;
}

static bool are_readable(const void *words, size_t size)
{
	for (size_t at = 0; at < size; at += SET_SIZE)
		if (!is_readable((const char *)words + at))
			return false;
	return true;
}

static bool is_writable(void *info, size_t size)
{
	/* Writes the mask there. */
	return raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, info, SET_SIZE) != -EFAULT &&
	       raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, (char *)info + size - SET_SIZE, SET_SIZE) != -EFAULT;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

/* Nothing is due. */
static void emul_post_nothing(struct mediated *call)
{
	(void)call;
}

static uint64_t changed_mask(long how, uint64_t before, uint64_t set)
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

	if (!call->made || call->program->rax != 0)
		return;
	real = (call->ours.rdx != 0 ? *(uint64_t *)call->ours.rdx : call->mask) & OWNED;
	if (old != NULL)
		*old = ((call->ours.rdx != 0 ? *old : call->mask) & ~put_off_blocked()) | believed;
	if (call->program->rsi == 0)
		return;
	if (call->program->rdi != SIG_UNBLOCK)
		put_off_keep_blocked(call->words[2]);
	/* Blocked by other means than this: so much for them. */
	if (real & ~believed) {
		believed |= real;
		real = OWNED;
		if (!call->interrupted)
			raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &real, NULL, SET_SIZE);
	}
	app_sigstate_set_blocked(changed_mask(call->program->rdi, believed, asked));
	/* What has come since the look. */
	signal_frame_raise_held(OWNED & ~app_sigstate_blocked());
}

/*
 * Some that are held will not be blocked any more: they are raised before that, so that they come when the others do
 * that the call lets through, in the kernel's order.
 */
static void emul_unblock_held(struct mediated *call, uint64_t *kernel)
{
	const uint64_t all = SIGNALS_IN_ENTRY;
	uint64_t now = changed_mask(call->program->rdi, call->words[0], call->words[1]);
	uint64_t *old = (uint64_t *)call->program->rdx;

	if ((app_sigpending_pending() & ~now) == 0 || (old != NULL && !is_writable(old, SET_SIZE)))
		return;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &call->mask, SET_SIZE);
	signal_frame_raise_held(OWNED & ~now);
	*kernel = changed_mask(call->program->rdi, call->mask, *kernel) & ~OWNED;
	call->mask &= ~put_off_blocked();
	call->ours.rdi = SIG_SETMASK;
	call->ours.rdx = 0;
}

static bool emul_sigprocmask(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigprocmask };
	long how = program->rdi;
	const uint64_t *set = (const uint64_t *)program->rsi;
	uint64_t kernel;
	bool is_change = set != NULL && (how == SIG_BLOCK || how == SIG_UNBLOCK || how == SIG_SETMASK);

	if (program->r10 != SET_SIZE || (set != NULL && !is_change))
		return false;
	mediated_begin(&call);
	call.ours = *program;
	call.words[0] = app_sigstate_blocked();
	if (set != NULL) {
		if (!is_readable(set)) {
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

/* Of what emul_pend_held() has done: what is still pending comes now, and the thread believes to block it. */
static void emul_hold_again(struct mediated *call)
{
	if (call->words[1] && !call->interrupted)
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &call->words[0], NULL, SET_SIZE);
	call->words[1] = 0;
}

/* A wait is over, or is not to be: what was told to the thread meanwhile is not its alone. */
static void emul_post_wait(struct mediated *call)
{
	if (app_sigwait_withdraw(call))
		app_sigwait_pass_on(call);
	emul_hold_again(call);
}

/* What is held becomes pending for the call, whether it will look at it or not. words: the mask from before, and 1. */
static void emul_pend_held(struct mediated *call)
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
 */
static bool emul_wait(struct mediated *call, long *place)
{
	call->post = emul_post_wait;
	if (!is_readable((const void *)*place)) {
		mediated_is_made(call, -EFAULT);
		mediated_end();
		return true;
	}
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

static bool emul_sigsuspend(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing };

	if (program->rsi != SET_SIZE)
		return false;
	mediated_begin(&call);
	call.ours = *program;
	return emul_wait(&call, &call.ours.rdi);
}

/* ppoll, epoll_pwait, epoll_pwait2: the mask is one of the arguments, its size the next. */
static bool emul_ppoll(struct arch_call *program, size_t mask, long size)
{
	struct mediated call = { .program = program, .post = emul_post_nothing };
	long *place = (long *)((char *)&call.ours + mask);

	mediated_begin(&call);
	call.ours = *program;
	if (*place == 0 || size != SET_SIZE) {
		mediated_end();
		return false;
	}
	return emul_wait(&call, place);
}

/* pselect6, io_pgetevents: the last argument points to the mask's address and its size. */
static bool emul_pselect(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing };
	long argument = program->r9;
	struct {
		long mask;
		long size;
	} ours;

	if (argument == 0 || !are_readable((const void *)argument, sizeof(ours)))
		return false;
	ours.mask = ((const volatile long *)argument)[0];
	ours.size = ((const volatile long *)argument)[1];
	if (ours.mask == 0 || ours.size != SET_SIZE)
		return false;
	mediated_begin(&call);
	call.ours = *program;
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
static bool emul_io_uring_enter(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_nothing };
	const volatile struct getevents_argument *argument = (const struct getevents_argument *)program->r8;
	struct getevents_argument ours;

	if ((program->r10 & ENTER_GETEVENTS) == 0 || program->r8 == 0)
		return false;
	if ((program->r10 & ENTER_EXT_ARG) == 0)
		return emul_ppoll(program, offsetof(struct arch_call, r8), program->r9);
	if (program->r9 != sizeof(ours) || !are_readable((const void *)program->r8, sizeof(ours)))
		return false;
	ours.mask = argument->mask;
	ours.size = argument->size;
	ours.unused = argument->unused;
	ours.time = argument->time;
	if (ours.mask == 0 || ours.size != SET_SIZE)
		return false;
	mediated_begin(&call);
	call.ours = *program;
	call.ours.r8 = (long)&ours;
	return emul_wait(&call, (long *)&ours.mask);
}

/* ---- signals that are taken, not handled ------------------------------------------------------------------------ */

static void emul_copy_info(siginfo_t *out, const siginfo_t *info)
{
	for (size_t i = 0; out != NULL && i < sizeof(*info); ++i)
		((volatile char *)out)[i] = ((const char *)info)[i];
}

/* What the call has taken is in call->info; what was told to the thread may be taken, too. */
static void emul_post_sigtimedwait(struct mediated *call)
{
	long result = call->program->rax;
	bool told = app_sigwait_withdraw(call);
	bool is_wake = call->made && result > 0 && (call->takes & SIGNALS_BIT(result)) != 0 &&
		       app_sigwait_is_wake(&call->info);

	if (told && call->made && (result <= 0 || is_wake)) {
		call->info = call->told;
		call->program->rax = call->told.si_signo;
		atomic_signal_fence(memory_order_seq_cst);
		call->is_told = false;
	} else if (told) {
		app_sigwait_pass_on(call);
	} else if (is_wake) {
		/* It was for the process, and another thread has taken it: wait again, from the start. */
		call->made = false;
	}
	if (call->made && call->program->rax > 0)
		emul_copy_info((siginfo_t *)call->program->rsi, &call->info);
	emul_hold_again(call);
}

static bool emul_sigtimedwait(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigtimedwait };
	siginfo_t *out = (siginfo_t *)program->rsi;
	long number = program->rax;
	uint64_t wanted;

	if (program->r10 != SET_SIZE || !is_readable((const void *)program->rdi))
		return false;
	wanted = *(const volatile uint64_t *)program->rdi & OWNED;
	if (wanted == 0)
		return false;
	if (out != NULL && !is_writable(out, sizeof(*out))) {
		program->rax = -EFAULT;
		return true;
	}
	mediated_begin(&call);
	call.ours = *program;
	call.ours.rsi = (long)&call.info;
	call.takes = wanted;
	do {
		program->rax = number;
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
	if (call->made && call->program->rax == 0 && call->program->rsi == SET_SIZE)
		*(uint64_t *)call->program->rdi |= app_sigpending_pending() & app_sigstate_blocked();
}

static bool emul_sigpending(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_sigpending };

	mediated_begin(&call);
	call.ours = *program;
	mediated_make(&call);
	return true;
}

/*
 * Out of a handler that the kernel called without us: it was there before patch_init(), or was set by a call that is
 * not mediated. What it goes back to blocks owned signals, as far as the program can see (S7).
 */
static bool emul_sigreturn(struct arch_call *call)
{
	signal_frame_return((ucontext_t *)arch_call_stack_pointer(call));
	return false;
}

/* ---- handlers --------------------------------------------------------------------------------------------------- */

/* SIGSETXID of glibc, which has a handler as soon as there are threads. That one changes ids, and nothing else. */
#define LIBC_SETXID 33

static bool is_libcs(const void *handler)
{
	struct module libc;

	return module_find((uintptr_t)&sigaction, &libc) && (uintptr_t)handler - libc.lower < libc.upper - libc.lower;
}

/* Of the program, and so one that may do anything. */
static bool is_handler(long signo, const struct kernel_sigaction *action)
{
	return action->handler != (void *)(uintptr_t)SIG_DFL && action->handler != (void *)(uintptr_t)SIG_IGN &&
	       !(signo == LIBC_SETXID && is_libcs(action->handler));
}

/* What the program reads back is what it set. */
static void emul_post_sigaction(struct mediated *call)
{
	if (call->made && call->program->rax == 0 && call->program->rdx != 0)
		action_unwrap((struct kernel_sigaction *)call->program->rdx);
}

/*
 * For an owned signal. A handler that hands traps on to us is in front of the one that is there; of ours, the one that
 * is there stays.
 */
static bool emul_wrap_owned(int signo, const struct kernel_sigaction *program, struct kernel_sigaction *kernel)
{
	const struct kernel_sigaction *wanted = program;
	struct kernel_sigaction now;
	int behind = ACTION_NONE, index;

	if (forward_reaches_us((uintptr_t)program->handler) || forward_is_ours((uintptr_t)program->handler)) {
		if (action_get(signo, &now) != 0)
			return false;
		index = action_unwrap(&now);
		if (index == ACTION_NONE)
			return false;
		behind = action_at((unsigned int)index)->behind;
		if (behind == ACTION_NONE)
			behind = index;
		if (forward_is_ours((uintptr_t)program->handler)) {
			wanted = &action_at((unsigned int)behind)->program;
			behind = ACTION_NONE;
		}
	}
	if (!action_wrap(signo, wanted, behind, kernel))
		return false;
	forward_set_action(signo, arch_signal_index((uintptr_t)kernel->handler));
	/* What is ignored is not pending. */
	if (wanted->handler == (void *)(uintptr_t)SIG_IGN)
		app_sigpending_discard(signo);
	return true;
}

static bool emul_sigaction(struct arch_call *program)
{
	const struct kernel_sigaction *action = (const struct kernel_sigaction *)program->rsi;
	struct mediated call = { .program = program, .post = emul_post_sigaction };
	struct kernel_sigaction wanted, kernel;
	int signo = (int)program->rdi;

	if (program->r10 != SET_SIZE || program->rdi < 1 || program->rdi > SIGNALS)
		return false;
	if (action != NULL) {
		if (!are_readable(action, sizeof(*action)))
			return false;
		kernel_sigaction_copy(&wanted, action);
		if (is_handler(signo, &wanted))
			app_handlers_expect();
	}
	mediated_begin(&call);
	call.ours = *program;
	if (action != NULL) {
		bool wrapped = signal_index(signo) >= 0 ? emul_wrap_owned(signo, &wanted, &kernel) :
							  action_wrap(signo, &wanted, ACTION_NONE, &kernel);

		call.ours.rsi = (long)&kernel;
		if (!wrapped) {
			mediated_is_made(&call, -ENOMEM);
			mediated_end();
			return true;
		}
	}
	mediated_make(&call);
	return true;
}

/* ---- other programs --------------------------------------------------------------------------------------------- */

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
		raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &call->words[0], NULL, SET_SIZE);
}

/* A new program inherits what is blocked and what is ignored: let it be what this one believes. */
static bool emul_execve(struct arch_call *program)
{
	struct mediated call = { .program = program, .post = emul_post_execve, .leaves = true };
	const uint64_t all = SIGNALS_IN_ENTRY;
	uint64_t blocked = app_sigstate_blocked();
	bool alone = process_is_borrowed() || tasks_is_single();
	uint64_t mask;

	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action;

		/* Another thread could meet a trap byte meanwhile; it is about to end, but not if the call fails. */
		if (alone && action_get(signals_ownable[slot], &action) == 0 && action_unwrap(&action) != ACTION_NONE &&
		    action.handler == (void *)(uintptr_t)SIG_IGN)
			call.words[1] |= SIGNALS_BIT(signals_ownable[slot]);
	}
	if (blocked == 0 && call.words[1] == 0 && put_off_blocked() == 0)
		return false;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &call.words[0], SET_SIZE);
	mediated_begin(&call);
	call.ours = *program;
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action;

		if ((call.words[1] & SIGNALS_BIT(signals_ownable[slot])) == 0 ||
		    action_get(signals_ownable[slot], &action) != 0 || action_unwrap(&action) == ACTION_NONE)
			continue;
		raw_syscall(SYS_rt_sigaction, signals_ownable[slot], &action, NULL, SET_SIZE);
	}
	mask = (call.words[0] & ~put_off_blocked()) | blocked;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, SET_SIZE);
	mediated_make(&call);
	return true;
}

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

/* What the thread blocks in the kernel, by other means than these calls or since before them. */
static void adopt_own(void)
{
	uint64_t real = 0;

	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &real, SET_SIZE);
	if (!(real & OWNED))
		return;
	app_sigstate_set_blocked(app_sigstate_blocked() | (real & OWNED));
	real = OWNED;
	raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &real, NULL, SET_SIZE);
}

/* A new thread believes to block what its creator does, before it has set anything. */
static void emul_inherit_masks(uint64_t flags, uintptr_t thread)
{
	/* Nobody would know of one that has them blocked. */
	adopt_own();
	if ((flags & CLONE_SETTLS) && (flags & CLONE_VM) && tls_is_libcs(thread))
		app_sigstate_inherit(thread);
}

static long make_call(void *data)
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
static bool fork_call(struct arch_call *program, uint64_t flags, uintptr_t stack)
{
	struct mediated call = { .program = program, .post = emul_post_nothing, .busy = true };

	if ((flags & (CLONE_VM | CLONE_VFORK | CLONE_SETTLS)) || stack != 0)
		return false;
	call.ours = *program;
	mediated_begin(&call);
	lock_over_fork(make_call, &call);
	call.busy = false;
	signal_frame_raise_held(OWNED & ~app_sigstate_blocked());
	mediated_end();
	return true;
}

static bool clone3_call(struct arch_call *call)
{
	/* struct clone_args: flags first, stack sixth, tls eighth (include/uapi/linux/sched.h). */
	const volatile uint64_t *arguments = (const volatile uint64_t *)call->rdi;

	if (call->rsi < 8 * SET_SIZE || !are_readable((const void *)call->rdi, 8 * SET_SIZE))
		return false;
	/*
	 * Without our handler the child would die of a trap byte before it executes its program (hazard 7); libc does
	 * without.
	 */
	if (arguments[0] & CLONE_CLEAR_SIGHAND) {
		call->rax = -ENOSYS;
		return true;
	}
	emul_inherit_masks(arguments[0], arguments[7]);
	return fork_call(call, arguments[0], arguments[5]);
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

bool syscall_emul_concerns(long number)
{
	switch (number) {
	case SYS_rt_sigreturn:
	case SYS_rt_sigprocmask:
	case SYS_rt_sigaction:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_rt_sigpending:
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
	case SYS_execve:
	case SYS_execveat:
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
		return true;
	default:
		return false;
	}
}

bool syscall_emulate(struct arch_call *call)
{
	if (!signals_owned())
		return false;
	/* The procedure was left by a jump. */
	if (put_off_blocked() != 0 && hook_threads_own_guard() == 0)
		put_off_abandon();
	switch (call->rax) {
	case SYS_rt_sigprocmask:
		return emul_sigprocmask(call);
	case SYS_rt_sigaction:
		return emul_sigaction(call);
	case SYS_rt_sigsuspend:
		return emul_sigsuspend(call);
	case SYS_rt_sigtimedwait:
		return emul_sigtimedwait(call);
	case SYS_rt_sigpending:
		return emul_sigpending(call);
	case SYS_rt_sigreturn:
		return emul_sigreturn(call);
	case SYS_ppoll:
		return emul_ppoll(call, offsetof(struct arch_call, r10), call->r8);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return emul_ppoll(call, offsetof(struct arch_call, r8), call->r9);
	case SYS_pselect6:
	case SYS_io_pgetevents:
		return emul_pselect(call);
	case SYS_io_uring_enter:
		return emul_io_uring_enter(call);
	case SYS_execve:
	case SYS_execveat:
		return emul_execve(call);
	case SYS_clone:
		emul_inherit_masks((uint64_t)call->rdi, (uintptr_t)call->r8);
		return fork_call(call, (uint64_t)call->rdi, (uintptr_t)call->rsi);
	case SYS_clone3:
		return clone3_call(call);
	case SYS_fork:
		emul_inherit_masks(0, 0);
		return fork_call(call, 0, 0);
	default:
		return false;
	}
}

/* ---- what was there before -------------------------------------------------------------------------------------- */

static bool any_handler(void)
{
	for (int signo = 1; signo <= SIGNALS; ++signo) {
		struct kernel_sigaction action;

		if (action_get(signo, &action) != 0)
			continue;
		action_unwrap(&action);
		if (is_handler(signo, &action))
			return true;
	}
	return false;
}

/* Of a tool in front of us, which sets it by a call that is not mediated: it stays (libpatch/trap_handler.h). */
static bool is_in_front(int signo)
{
	struct kernel_sigaction now;

	return signal_index(signo) >= 0 && action_get(signo, &now) == 0 && forward_reaches_us((uintptr_t)now.handler);
}

void syscall_emul_look_for_handlers(void)
{
	static bool settled;
	bool over;

	if (settled)
		return;
	/* First: what a call has installed that is over is seen. */
	over = handler_audit_is_over();
	for (int signo = 1; signo <= SIGNALS; ++signo)
		if (!is_in_front(signo))
			action_take_over(signo);
	forward_find_actions();
	settled = over;
	if (over && any_handler())
		app_handlers_expect();
	else if (over)
		app_handlers_begin();
}

void syscall_emul_adopt(uint64_t *mask)
{
	adopt_own();
	*mask &= ~OWNED;
	mask_audit_adopt(true);
	mask_audit_look();
	handler_audit_begin();
	syscall_emul_look_for_handlers();
}

void syscall_emul_release(void)
{
	uint64_t blocked = app_sigstate_blocked();

	for (int signo = 1; signo <= SIGNALS; ++signo)
		if (signal_index(signo) < 0)
			action_give_back(signo);
	app_sigstate_end();
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, SET_SIZE);
}
