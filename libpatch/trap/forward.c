/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Traps that are not libpatch's: to a tool's handler in front of it, to the program's handler, or to the default
 * action. Runs in the trap handler, so takes no lock and allocates nothing (I9).
 */
#include "trap/forward.h"

#include "arch/signal_entry.h"
#include "arch/trap_bytes.h"
#include "base/syscall.h"
#include "code/pc_map.h"
#include "elf/module.h"
#include "sys/process.h"
#include "trap/action.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"
#include "trap/mediated.h"
#include "trap/signal_frame.h"

#include <libpatch/trap_handler.h>
#include <stdatomic.h>

/*
 * What uc_link of a frame points to while a handler of the program has it: the kernel writes 0 there
 * (arch/x86/kernel/signal_64.c), and a handler that leaves by longjmp() leaves nothing behind. A handler that forwards
 * it back to us goes no further; one in front of us has not handed the trap on yet, or has.
 */
static ucontext_t handing_on, offering, taken;

bool forward_is_ours(uintptr_t handler)
{
	return handler == (uintptr_t)&libpatch_on_trap;
}

bool forward_reaches_us(uintptr_t handler)
{
	struct module module;

	return handler > 1 && !forward_is_ours(handler) && arch_signal_index(handler) < 0 &&
	       module_find(handler, &module) && module_refers_to(&module, "libpatch_on_trap");
}

void forward_take(ucontext_t *context)
{
	if (context->uc_link == &offering)
		context->uc_link = &taken;
}

bool forward_end(ucontext_t *context)
{
	bool offered = context->uc_link == &offering;

	if (offered || context->uc_link == &taken || context->uc_link == &handing_on)
		context->uc_link = NULL;
	return offered;
}

/* By the index of the signal; ACTION_NONE before patch_init(). */
static _Atomic int actions[SIGNALS_OWNABLE] = { ACTION_NONE, ACTION_NONE };

static int forward_index(int signo)
{
	struct kernel_sigaction now;

	return action_get(signo, &now) == 0 ? action_unwrap(&now) : ACTION_NONE;
}

void forward_find_action(int signo)
{
	_Atomic int *action = &actions[signal_index(signo)];
	int index = forward_index(signo);

	/* A borrowing child's handlers end with it; its parent's stay. */
	if (process_is_borrowed())
		return;
	/* Another thread may set one meanwhile: who notes one last has looked behind that. */
	while (index != ACTION_NONE && atomic_load(action) != index) {
		atomic_store(action, index);
		index = forward_index(signo);
	}
}

void forward_find_actions(void)
{
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot)
		forward_find_action(signals_ownable[slot]);
}

int forward_own_signals(void)
{
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		long result = action_take_over(signals_ownable[slot]);

		if (result != 0)
			return (int)-result;
	}
	forward_find_actions();
	signals_set_owned();
	return 0;
}

/* ---- handing on ------------------------------------------------------------------------------------------------- */

/* Raised by the thread's own instruction, so that the kernel would kill rather than ignore it. */
static bool forward_is_synchronous(const siginfo_t *info, const ucontext_t *context)
{
	return arch_is_raised(info, (uintptr_t)context->uc_mcontext.gregs[REG_RIP]);
}

/* Have the default action taken by the kernel, where the program was. */
static void forward_take_default(int signo, siginfo_t *info, ucontext_t *context)
{
	static const struct kernel_sigaction default_action;
	uintptr_t pc = context->uc_mcontext.gregs[REG_RIP];
	const long process = raw_syscall(SYS_getpid);

	/* The first process of a namespace has no default effect of what is sent (pid_namespaces(7)): we stay. */
	if (process == 1 && !forward_is_synchronous(info, context))
		return;
	raw_syscall(SYS_rt_sigaction, signo, &default_action, NULL, sizeof(default_action.mask));
	if (arch_is_int3(info, pc) && *(const uint8_t *)(pc - 1) == 0xCC) {
		/* Once more, without us. */
		context->uc_mcontext.gregs[REG_RIP] = pc - 1;
		return;
	}
	if (signo == SIGILL && forward_is_synchronous(info, context))
		return;
	/* Blocked until the handler returns: then it finds the program as the first one did. */
	raw_syscall(SYS_rt_tgsigqueueinfo, process, raw_syscall(SYS_gettid), signo, info);
}

#define IS(handler, constant) ((uintptr_t)(handler) == (uintptr_t)(constant))

/* From a handler of somebody else's, which has a frame on the stack. */
static void forward_call_handler(const struct kernel_sigaction *program, int signo, siginfo_t *info,
				 ucontext_t *context)
{
	void (*handler)(int, siginfo_t *, void *) = (void (*)(int, siginfo_t *, void *))(uintptr_t)program->handler;
	uint64_t blocked = app_sigstate_blocked();
	uint64_t mask = *(const uint64_t *)&context->uc_sigmask | program->mask;
	struct ucontext_t *mark = context->uc_link;
	greg_t *registers = context->uc_mcontext.gregs;
	struct code_place place;
	const bool generated = code_canonical(registers, &place);
	uint64_t before;

	if (!(program->flags & SA_NODEFER))
		mask |= SIGNALS_BIT(signo);
	app_sigstate_set_blocked(mask & SIGNALS_OWNED);
	mask = app_sigstate_withheld(mask);
	context->uc_link = &handing_on;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof(mask));
	/* With or without SA_SIGINFO: in this calling convention a handler may ignore arguments. */
	handler(signo, info, context);
	signals_set_mask(before);
	context->uc_link = mark;
	if (generated)
		code_canonical_resume(registers, &place);
	app_sigstate_set_blocked(blocked);
}

/* Sent by others, to a thread that believes to block it or waits for it: true when the program does not get it now. */
static bool forward_put_off(int signo, siginfo_t *info, ucontext_t *context, bool ends_wait)
{
	struct mediated *call = mediated_current();
	bool takes = call != NULL && !call->made && (call->takes & SIGNALS_BIT(signo)) != 0;
	bool busy = call != NULL && call->busy;

	if (app_sigwait_is_wake(info)) {
		if (ends_wait && app_sigwait_withdraw(call)) {
			*info = call->told;
			call->is_told = false;
			return false;
		}
	} else {
		if (!busy && (ends_wait || !(app_sigstate_blocked() & SIGNALS_BIT(signo))))
			return false;
		if (signal_is_event(info))
			signal_tell_event_late(info);
		app_sigpending_put(signo, info);
		if (!app_sigpending_is_threads(info))
			app_sigwait_tell(signo);
	}
	/* The call looks at what is held before it waits. */
	if (takes)
		signal_frame_begin_anew(context);
	return true;
}

bool forward_offer(int signo, siginfo_t *info, ucontext_t *context, bool ends_wait)
{
	if (!forward_is_synchronous(info, context) && forward_put_off(signo, info, context, ends_wait))
		return false;
	context->uc_link = &offering;
	return true;
}

/*
 * The program's action takes the default effect, or none. The kernel ends a process whose instruction raises what is
 * blocked or ignored.
 */
static bool forward_ends_here(const struct kernel_sigaction *program, int signo, siginfo_t *info, ucontext_t *context)
{
	bool synchronous = forward_is_synchronous(info, context);

	if (IS(program->handler, SIG_DFL) ||
	    (synchronous && (IS(program->handler, SIG_IGN) || (app_sigstate_blocked() & SIGNALS_BIT(signo)) != 0))) {
		forward_take_default(signo, info, context);
		return true;
	}
	return IS(program->handler, SIG_IGN);
}

/* The kernel's part of SA_RESETHAND: the rest of the action stays. */
static void forward_reset(const struct kernel_sigaction *program, int signo)
{
	struct kernel_sigaction reset, kernel;

	kernel_sigaction_copy(&reset, program);
	reset.handler = (void *)(uintptr_t)SIG_DFL;
	if (action_wrap(signo, &reset, ACTION_NONE, &kernel))
		raw_syscall(SYS_rt_sigaction, signo, &kernel, NULL, sizeof(kernel.mask));
}

bool forward_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index, bool ends_wait)
{
	const struct kernel_sigaction *program = &action_at(index)->program;

	if (!forward_is_synchronous(info, context) && forward_put_off(signo, info, context, ends_wait))
		return false;
	if (forward_ends_here(program, signo, info, context))
		return false;
	if (program->flags & SA_RESETHAND)
		forward_reset(program, signo);
	context->uc_link = &handing_on;
	return true;
}

bool forward_enter_without_storage(const struct kernel_sigaction *program, int signo, siginfo_t *info,
				   ucontext_t *context)
{
	if (IS(program->handler, SIG_DFL) || (forward_is_synchronous(info, context) && IS(program->handler, SIG_IGN))) {
		forward_take_default(signo, info, context);
		return false;
	}
	if (IS(program->handler, SIG_IGN))
		return false;
	if (program->flags & SA_RESETHAND)
		forward_reset(program, signo);
	return true;
}

void forward_hand_on(int signo, siginfo_t *info, ucontext_t *context)
{
	int slot = signal_index(signo);
	int index = slot >= 0 ? atomic_load(&actions[slot]) : ACTION_NONE;
	const struct action *action;

	if (index == ACTION_NONE || context->uc_link == &handing_on)
		return;
	/* What a handler in front has was not put off before it got it. */
	if (context->uc_link != &taken && !forward_is_synchronous(info, context) &&
	    forward_put_off(signo, info, context, false))
		return;
	action = action_at((unsigned int)index);
	if (action->behind != ACTION_NONE)
		action = action_at((unsigned int)action->behind);
	if (!forward_ends_here(&action->program, signo, info, context))
		forward_call_handler(&action->program, signo, info, context);
}
