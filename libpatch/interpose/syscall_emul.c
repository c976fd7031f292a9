/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "interpose/syscall_emul.h"

#include "base/syscall.h"
#include "interpose/handler_audit.h"
#include "interpose/mask_audit.h"
#include "runtime/app_handlers.h"
#include "sys/tasks.h"
#include "trap/app_sigpending.h"
#include "runtime/fork.h"
#include "elf/module.h"
#include "sys/process.h"
#include "trap/forward.h"
#include "trap/own.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"

#include <libpatch/trap_handler.h>
#include <sched.h>

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

/*
 * Signals that were held while the thread believed to block them, and that it does not block any more. The mask is
 * looked at again for each signal: the handler of the one before may have ended a wait, and then the thread blocks as
 * it did before that wait (app_sigwait_blocked_after()).
 */
static void emul_deliver_held(void)
{
	siginfo_t info;
	int signo;

	while ((signo = app_sigpending_take(OWNED & ~app_sigstate_blocked(), &info)) != 0)
		raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signo, &info);
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

static long change_mask(long how, const uint64_t *set, uint64_t *old)
{
	uint64_t believed = app_sigstate_blocked();
	uint64_t asked, kernel, real, now;
	long result;

	if (set == NULL) {
		result = raw_syscall(SYS_rt_sigprocmask, how, NULL, old, SET_SIZE);
		if (result == 0 && old != NULL)
			*old |= believed;
		return result;
	}
	if (!is_readable(set))
		return -EFAULT;
	asked = *(const volatile uint64_t *)set;
	if (how != SIG_BLOCK && how != SIG_UNBLOCK && how != SIG_SETMASK)
		return raw_syscall(SYS_rt_sigprocmask, how, set, old, SET_SIZE);

	kernel = how == SIG_UNBLOCK ? asked : asked & ~OWNED;
	/* What arrives from now on is held, if it is to be. */
	now = changed_mask(how, believed, asked & OWNED);
	app_sigstate_set_blocked(believed | now);
	result = raw_syscall(SYS_rt_sigprocmask, how, &kernel, old != NULL ? old : &real, SET_SIZE);
	if (result == 0) {
		if (old != NULL) {
			real = *old;
			*old |= believed;
		}
		/* Blocked by other means than this: so much for them. */
		if (real & OWNED) {
			now = changed_mask(how, believed | (real & OWNED), asked & OWNED);
			real = OWNED;
			raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &real, NULL, SET_SIZE);
		}
	}
	app_sigstate_set_blocked(now);
	emul_deliver_held();
	return result;
}

/*
 * For the time of a call, the thread has another mask: *place is where the call has its address, `set` a copy for it.
 */
static long wait_with_mask(struct arch_call *call, long *place, uint64_t *set)
{
	uint64_t believed = app_sigstate_blocked();
	uint64_t meanwhile;
	siginfo_t told;
	long result;

	if (!is_readable((const void *)*place))
		return -EFAULT;
	*set = *(const volatile uint64_t *)*place;
	meanwhile = *set & OWNED;
	*set &= ~OWNED;
	*place = (long)set;
	app_sigwait_begin_mask(OWNED & ~meanwhile, believed);
	app_sigstate_set_blocked(meanwhile);
	emul_deliver_held();
	result = app_sigwait_call(call);
	if (app_sigwait_end(&told))
		app_sigwait_pass_on(&told);
	app_sigstate_set_blocked(believed);
	emul_deliver_held();
	return result == APP_SIGWAIT_ARRIVED ? -EINTR : result;
}

static bool emul_sigsuspend(struct arch_call *call)
{
	uint64_t set;

	if (call->rsi != SET_SIZE)
		return false;
	call->rax = wait_with_mask(call, &call->rdi, &set);
	return true;
}

/* ppoll, epoll_pwait, epoll_pwait2: the mask is one of the arguments, its size the next. */
static bool emul_ppoll(struct arch_call *call, long *mask, long size)
{
	long given = *mask;
	uint64_t set;

	if (given == 0 || size != SET_SIZE)
		return false;
	call->rax = wait_with_mask(call, mask, &set);
	*mask = given;
	return true;
}

/* pselect6, io_pgetevents: the last argument points to the mask's address and its size. */
static bool emul_pselect(struct arch_call *call)
{
	struct {
		long mask;
		long size;
	} given, ours;
	long argument = call->r9;
	uint64_t set;

	if (argument == 0 || !are_readable((const void *)argument, sizeof(given)))
		return false;
	given.mask = ((const volatile long *)argument)[0];
	given.size = ((const volatile long *)argument)[1];
	if (given.mask == 0 || given.size != SET_SIZE)
		return false;
	ours.mask = given.mask;
	ours.size = given.size;
	call->r9 = (long)&ours;
	call->rax = wait_with_mask(call, &ours.mask, &set);
	call->r9 = argument;
	return true;
}

/* ---- signals that are taken, not handled ------------------------------------------------------------------------ */

static void emul_copy_info(siginfo_t *out, const siginfo_t *info)
{
	for (size_t i = 0; out != NULL && i < sizeof(*info); ++i)
		((volatile char *)out)[i] = ((const char *)info)[i];
}

static bool emul_sigtimedwait(struct arch_call *call)
{
	siginfo_t *out = (siginfo_t *)call->rsi;
	struct arch_call ours = *call;
	uint64_t wanted;
	siginfo_t info, told;
	bool taken;
	long result;

	if (call->r10 != SET_SIZE || !is_readable((const void *)call->rdi))
		return false;
	wanted = *(const volatile uint64_t *)call->rdi & OWNED;
	if (wanted == 0)
		return false;
	call->rax = -EFAULT;
	if (out != NULL && !is_writable(out, sizeof(*out)))
		return true;
	ours.rsi = (long)&info;
	do {
		app_sigwait_begin(wanted);
		/* Held since before that; or it comes to this thread, or to another one, which tells it. */
		result = app_sigpending_take(wanted, &info);
		if (result == 0)
			result = app_sigwait_call(&ours);
		if (result == APP_SIGWAIT_ARRIVED)
			result = app_sigpending_take(wanted, &info);
		taken = result > 0 && !((wanted & SIGNALS_BIT(result)) != 0 && app_sigwait_is_wake(&info));
		if (app_sigwait_end(&told)) {
			if (taken) {
				app_sigwait_pass_on(&told);
			} else {
				info = told;
				result = told.si_signo;
				taken = true;
			}
		}
		/* What has arrived was for the process, and another thread has taken it: wait again, from the start. */
	} while (!taken && result >= 0);
	if (taken)
		emul_copy_info(out, &info);
	call->rax = result;
	return true;
}

static bool emul_sigpending(struct arch_call *call)
{
	uint64_t *set = (uint64_t *)call->rdi;

	call->rax = raw_syscall(SYS_rt_sigpending, set, call->rsi);
	if (call->rax == 0 && call->rsi == SET_SIZE)
		*set |= app_sigpending_pending() & app_sigstate_blocked();
	return true;
}

/* ---- handlers --------------------------------------------------------------------------------------------------- */

/* The action is of a signal that libpatch owns: the kernel keeps ours. */
static long change_owned(long signo, const struct kernel_sigaction *action, struct kernel_sigaction *old)
{
	static const struct kernel_sigaction none;
	struct kernel_sigaction before;
	int slot = signal_index((int)signo);

	if (old != NULL) {
		/* The kernel finds out whether it can be written. */
		long result = raw_syscall(SYS_rt_sigaction, signo, NULL, old, SET_SIZE);

		if (result != 0)
			return result;
		app_sigstate_action(slot + APP_SIGSTATE_FRONT, &before);
		if (before.handler == NULL)
			app_sigstate_action(slot, &before);
		kernel_sigaction_copy(old, &before);
	}
	if (action == NULL)
		return 0;
	if (forward_reaches_us((uintptr_t)action->handler)) {
		app_sigstate_set_action(slot + APP_SIGSTATE_FRONT, action);
		return 0;
	}
	app_sigstate_set_action(slot + APP_SIGSTATE_FRONT, &none);
	/* Our own: there is no front, and the program's stays. */
	if (!own_is_handler((uintptr_t)action->handler))
		app_sigstate_set_action(slot, action);
	return 0;
}

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

static bool change_action(struct arch_call *call)
{
	const struct kernel_sigaction *action = (const struct kernel_sigaction *)call->rsi;
	struct kernel_sigaction *old = (struct kernel_sigaction *)call->rdx;
	struct kernel_sigaction now;
	uint64_t before;
	long signo = call->rdi;

	if (call->r10 != SET_SIZE || signo < 1 || signo > SIGNALS || own_is_installing())
		return false;
	if (action != NULL) {
		if (!are_readable(action, sizeof(*action)))
			return false;
		kernel_sigaction_copy(&now, action);
		if (is_handler(signo, &now))
			app_handlers_expect();
	}
	if (signals_owned((int)signo)) {
		call->rax = change_owned(signo, action != NULL ? &now : NULL, old);
		return true;
	}
	before = app_sigstate_handler_mask(signo);
	if (action != NULL) {
		uint64_t withheld = now.mask & OWNED;

		now.mask &= ~OWNED;
		call->rax = raw_syscall(SYS_rt_sigaction, signo, &now, old, SET_SIZE);
		if (call->rax == 0)
			app_sigstate_set_handler_mask(signo, withheld);
	} else {
		call->rax = raw_syscall(SYS_rt_sigaction, signo, NULL, old, SET_SIZE);
	}
	if (call->rax == 0 && old != NULL)
		old->mask |= before;
	return true;
}

/* ---- other programs --------------------------------------------------------------------------------------------- */

/* A new program inherits what is blocked and what is ignored: let it be what this one believes. */
static bool emul_execve(struct arch_call *call)
{
	uint64_t blocked = app_sigstate_blocked();
	bool alone = process_is_borrowed() || tasks_is_single();
	struct kernel_sigaction ours[SIGNALS_OWNABLE];
	bool ignored[SIGNALS_OWNABLE] = { false };
	bool any = blocked != 0;

	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action;

		if (!signals_owned(signals_ownable[slot]))
			continue;
		app_sigstate_action(slot, &action);
		/* Another thread could meet a trap byte meanwhile; it is about to end, but not if the call fails. */
		ignored[slot] = alone && (uintptr_t)action.handler == (uintptr_t)SIG_IGN;
		any |= ignored[slot];
	}
	if (!any)
		return false;
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, SET_SIZE);
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		struct kernel_sigaction action = { .handler = (void *)(uintptr_t)SIG_IGN };

		if (ignored[slot])
			raw_syscall(SYS_rt_sigaction, signals_ownable[slot], &action, &ours[slot], SET_SIZE);
	}
	call->rax = raw_syscall6(call->rax, call->rdi, call->rsi, call->rdx, call->r10, call->r8, call->r9);
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot)
		if (ignored[slot])
			raw_syscall(SYS_rt_sigaction, signals_ownable[slot], &ours[slot], NULL, SET_SIZE);
	raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &blocked, NULL, SET_SIZE);
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
	if ((flags & CLONE_SETTLS) && (flags & CLONE_VM))
		app_sigstate_inherit(thread);
}

static long make_call(void *data)
{
	const struct arch_call *call = data;

	return raw_syscall6(call->rax, call->rdi, call->rsi, call->rdx, call->r10, call->r8, call->r9);
}

/*
 * The child has a copy of the memory, of the stack that this runs on, and of the thread's storage. One with a stack of
 * its own could not return from here, nor one with other storage; and with CLONE_VFORK this does not return before the
 * child's end.
 */
static bool fork_call(struct arch_call *call, uint64_t flags, uintptr_t stack)
{
	if ((flags & (CLONE_VM | CLONE_VFORK | CLONE_SETTLS)) || stack != 0)
		return false;
	call->rax = lock_over_fork(make_call, call);
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
	if (!signals_owned(SIGTRAP))
		return false;
	switch (call->rax) {
	case SYS_rt_sigprocmask:
		if (call->r10 != SET_SIZE)
			return false;
		call->rax = change_mask(call->rdi, (const uint64_t *)call->rsi, (uint64_t *)call->rdx);
		return true;
	case SYS_rt_sigaction:
		return change_action(call);
	case SYS_rt_sigsuspend:
		return emul_sigsuspend(call);
	case SYS_rt_sigtimedwait:
		return emul_sigtimedwait(call);
	case SYS_rt_sigpending:
		return emul_sigpending(call);
	case SYS_ppoll:
		return emul_ppoll(call, &call->r10, call->r8);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return emul_ppoll(call, &call->r8, call->r9);
	case SYS_pselect6:
	case SYS_io_pgetevents:
		return emul_pselect(call);
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
	for (long signo = 1; signo <= SIGNALS; ++signo) {
		struct kernel_sigaction action;

		if (signals_owned((int)signo))
			app_sigstate_action(signal_index((int)signo), &action);
		else if (raw_syscall(SYS_rt_sigaction, signo, NULL, &action, SET_SIZE) != 0)
			continue;
		if (is_handler(signo, &action))
			return true;
	}
	return false;
}

/* In this order: what a call has installed that is over is seen. */
void syscall_emul_look_for_handlers(void)
{
	if (app_handlers_are_known() || !handler_audit_is_over())
		return;
	if (any_handler())
		app_handlers_expect();
	else
		app_handlers_begin();
}

void syscall_emul_adopt(uint64_t *mask)
{
	for (long signo = 1; signo <= SIGNALS; ++signo) {
		struct kernel_sigaction action;
		uint64_t withheld;

		if (signals_owned((int)signo) || raw_syscall(SYS_rt_sigaction, signo, NULL, &action, SET_SIZE) != 0)
			continue;
		withheld = action.mask & OWNED;
		if (withheld == 0)
			continue;
		app_sigstate_set_handler_mask(signo, withheld);
		action.mask &= ~OWNED;
		raw_syscall(SYS_rt_sigaction, signo, &action, NULL, SET_SIZE);
	}
	adopt_own();
	*mask &= ~OWNED;
	mask_audit_look();
	handler_audit_begin();
	syscall_emul_look_for_handlers();
}

void syscall_emul_release(void)
{
	uint64_t blocked = app_sigstate_blocked();

	for (long signo = 1; signo <= SIGNALS; ++signo) {
		struct kernel_sigaction action;

		if (app_sigstate_handler_mask(signo) == 0 ||
		    raw_syscall(SYS_rt_sigaction, signo, NULL, &action, SET_SIZE) != 0)
			continue;
		action.mask |= app_sigstate_handler_mask(signo);
		raw_syscall(SYS_rt_sigaction, signo, &action, NULL, SET_SIZE);
	}
	app_sigstate_end();
	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, SET_SIZE);
}
