/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs with all signals but SIGSYS blocked, on the stack of the handler. Takes no lock, allocates nothing, calls
 * nothing that could be patched (I9).
 */
#include "trap/signal_frame.h"

#include "arch/own_stack.h"
#include "arch/signal_entry.h"
#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "base/syscall.h"
#include "code/pc_map.h"
#include "sys/tasks.h"
#include "sys/tls.h"
#include "trap/action.h"
#include "trap/app_sigpending.h"
#include "trap/app_sigstate.h"
#include "trap/app_sigwait.h"
#include "trap/forward.h"
#include "trap/mediated.h"
#include "trap/overflow.h"
#include "trap/put_off.h"
#include "trap/registry.h"
#include "trap/step.h"
#include "trap/trap.h"

#include <stdatomic.h>

_Atomic int libpatch_signal_filter;

static uint64_t *signal_frame_mask(ucontext_t *context)
{
	return (uint64_t *)&context->uc_sigmask;
}

void signal_frame_raise_held(uint64_t open)
{
	siginfo_t info;
	uint64_t before;
	int signo;
	bool alone;

	if ((app_sigpending_pending() & open) == 0)
		return;
	/* What is taken is raised, whatever comes; all come when the mask is put back. */
	before = signals_block();
	/* A signal of the process is this thread's now, as others believe to block it, unless there are no others. */
	alone = tasks_is_single();
	while ((signo = app_sigpending_take(open, &info)) != 0) {
		long pid = raw_syscall(SYS_getpid);

		if (alone && !app_sigpending_is_threads(&info))
			raw_syscall(SYS_rt_sigqueueinfo, pid, signo, &info);
		else
			raw_syscall(SYS_rt_tgsigqueueinfo, pid, raw_syscall(SYS_gettid), signo, &info);
		/* The kernel drops a thread's second one of a number: it comes when the first one's handler returns. */
		open &= alone ? open : ~SIGNALS_BIT(signo);
	}
	signals_set_mask(before);
}

/* ---- where a handler's end goes on ------------------------------------------------------------------------------ */

/*
 * In words of the frame: a struct code_place, and before it a word that tells that they are of this frame, and what is
 * noted in its lowest bits.
 */
enum { NOTED_PLACE = 1, NOTED_OVERFLOW = 2, NOTED_ALL = 3 };

static uint64_t signal_frame_cookie(const ucontext_t *context)
{
	return (0x6C69627061746368 ^ (uintptr_t)context) & ~(uint64_t)NOTED_ALL;
}

/* 0: nothing is noted. */
static uint64_t signal_frame_noted(ucontext_t *context)
{
	const uint64_t noted = arch_signal_words(context)[0] ^ signal_frame_cookie(context);

	return noted <= NOTED_ALL ? noted : 0;
}

static void signal_frame_note(ucontext_t *context, uint64_t what)
{
	arch_signal_words(context)[0] = signal_frame_cookie(context) | signal_frame_noted(context) | what;
}

static void signal_frame_note_place(ucontext_t *context, const struct code_place *place)
{
	uint64_t *words = arch_signal_words(context);

	words[1] = place->shown;
	words[2] = place->pc;
	words[3] = place->below;
	signal_frame_note(context, NOTED_PLACE);
}

/* Does the block stand for the instruction of the entry now? */
static bool signal_frame_is_current_of(const struct registry_entry *entry, uintptr_t block)
{
	struct arch_code_map now;

	switch (REGISTRY_STATE(atomic_load(&entry->state))) {
	case REGISTRY_ACTIVE:
		return pc_map_of_code(atomic_load(&entry->target), &now) && now.block == block;
	case REGISTRY_DORMANT:
		/* There never was a trap byte: the text was changed whole (S4), and leads to the block. */
		return true;
	default:
		return false;
	}
}

/*
 * Is the code that the place is in what stands for the instruction now? Its patches may have changed since, also by the
 * handler, which then goes on at the instruction to meet them. But what has begun there is completed: the instruction
 * shown may be the next one, and have code of its own.
 */
static bool signal_frame_is_current(const struct code_place *place)
{
	registry_token token = registry_read_lock();
	const struct registry_entry *entry = registry_lookup(place->shown);
	struct arch_code_map then;
	bool is_current = entry == NULL || !pc_map_of_code(place->pc, &then) ||
			  signal_frame_is_current_of(entry, then.block) || arch_canonical_has_begun(&then, place->pc);

	registry_read_unlock(token);
	return is_current;
}

static void signal_frame_resume(ucontext_t *context)
{
	const uint64_t *words = arch_signal_words(context);
	struct code_place place = { .shown = words[1], .pc = words[2], .below = words[3] };
	const uint64_t noted = signal_frame_noted(context);

	if (noted & NOTED_OVERFLOW)
		overflow_resume(context);
	if ((noted & NOTED_PLACE) && signal_frame_is_current(&place))
		code_canonical_resume(context->uc_mcontext.gregs, &place);
}

/* ---- what was interrupted --------------------------------------------------------------------------------------- */

/* One that submits says how much that was, whatever ended the wait (io_uring_enter(2)). */
static bool signal_frame_is_interrupted(const struct mediated *call, long result)
{
	return result == -EINTR || (call->ours.rax == SYS_io_uring_enter && result > 0);
}

/*
 * A signal has come that ends a wait: the mask that the program's thread has for the time of the call, out of which the
 * handler begins.
 */
static bool signal_frame_ends_wait(const struct mediated *call, int signo, const greg_t *registers)
{
	return call != NULL && call->waits && !call->made && (call->mask & SIGNALS_BIT(signo)) == 0 &&
	       arch_call_is_made((uintptr_t)registers[REG_RIP]) &&
	       signal_frame_is_interrupted(call, (long)registers[REG_RAX]);
}

/* The call is over, or was never begun: the frame shows the program. Returns where a call begins anew, or 0. */
static uintptr_t signal_frame_end_call(struct mediated *call, greg_t *registers)
{
	if (!call->made && arch_call_is_made((uintptr_t)registers[REG_RIP]))
		mediated_is_made(call, (long)registers[REG_RAX]);
	call->interrupted = true;
	call->post(call);
	mediated_end();
	if (!call->made)
		call->program->rax = call->ours.rax;
	arch_call_registers(call->program, call->made, registers);
	return call->made ? 0 : call->program->front;
}

/* The call begins anew, as if it had not been made; it may have blocked owned signals until it is over. */
static void signal_frame_drop_call(struct mediated *call, ucontext_t *context)
{
	greg_t *registers = context->uc_mcontext.gregs;

	registers[REG_RIP] = 0;
	registers[REG_RIP] = (greg_t)signal_frame_end_call(call, registers);
	*signal_frame_mask(context) = app_sigstate_withheld(*signal_frame_mask(context));
}

void signal_frame_begin_anew(ucontext_t *context)
{
	struct mediated *call = mediated_current();
	uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];

	if (call != NULL && !call->made && !arch_call_is_made(pc))
		signal_frame_drop_call(call, context);
}

/* Where the kernel says the address of an instruction: it is the program's. */
static void signal_frame_show_address(int signo, siginfo_t *info, uintptr_t interrupted, uintptr_t shown)
{
	bool is_pc = signo == SIGILL || signo == SIGFPE || signo == SIGTRAP;

	if (is_pc && info->si_code > 0 && (uintptr_t)info->si_addr == interrupted)
		info->si_addr = (void *)shown;
}

/* The frame shows a state of the program, and has a note of where the thread goes on. */
static void signal_frame_show_program(int signo, siginfo_t *info, ucontext_t *context, struct mediated *call,
				      unsigned int index)
{
	greg_t *registers = context->uc_mcontext.gregs;
	const uintptr_t interrupted = (uintptr_t)registers[REG_RIP], stack_pointer = (uintptr_t)registers[REG_RSP];
	struct code_place place = { 0 };

	arch_signal_words(context)[0] = 0;
	if (call != NULL) {
		place.pc = signal_frame_end_call(call, registers);
		place.shown = (uintptr_t)registers[REG_RIP];
		if (place.pc != 0)
			signal_frame_note_place(context, &place);
	} else if (!arch_signal_finish_entry(registers) && code_canonical(registers, &place)) {
		if (place.pc != place.shown || place.below != 0)
			signal_frame_note_place(context, &place);
		signal_frame_show_address(signo, info, interrupted, place.shown);
	}
	if (overflow_is_possible(signo, info, context, stack_pointer) &&
	    overflow_show(info, context, stack_pointer, index))
		signal_frame_note(context, NOTED_OVERFLOW);
}

/*
 * Hooks that the handler meets have their frames where the handler is, if it is on the thread's own stack, above what
 * was interrupted, or on the stack of signals, where the kernel begins anew if the thread is not there (own_stack.h).
 */
static void signal_frame_keep_stack(const ucontext_t *context)
{
	struct own_stack *own = libpatch_hook_guard.own;
	const stack_t *signals = &context->uc_stack;
	const uintptr_t here = (uintptr_t)context;

	if (own->self == own && (own_stack_has(own, here) || here - (uintptr_t)signals->ss_sp < signals->ss_size))
		own->free = 0;
}

/*
 * The kernel calls us for owned signals on the stack of signals, as there may be no room for us elsewhere. A handler
 * that has not asked for it runs where the thread was; where that cannot be written to, on the stack of signals.
 */
static ucontext_t *signal_frame_leave_stack(int signo, const struct action *action, struct arch_signal_entry *entry,
					    uintptr_t stack_pointer)
{
	ucontext_t *context = entry->context, *moved;
	const stack_t *signals = &context->uc_stack;
	const uintptr_t lower = (uintptr_t)signals->ss_sp;

	if (signal_index(signo) < 0 || (action->program.flags & SA_ONSTACK) ||
	    (uintptr_t)context - lower >= signals->ss_size || stack_pointer - lower < signals->ss_size)
		return context;
	moved = arch_signal_move(entry, stack_pointer);
	if (moved == NULL)
		return context;
	if (signal_frame_noted(context) == NOTED_PLACE)
		arch_signal_words(moved)[0] = signal_frame_cookie(moved) | NOTED_PLACE;
	return moved;
}

/* ---- begin ------------------------------------------------------------------------------------------------------ */

/*
 * The thread has storage that is not libc's: nothing is known of it, and nothing of it may be touched. Its handler is
 * entered and returns as the kernel would have it, but for owned signals, which stay open.
 */
static uintptr_t signal_frame_enter_without_storage(int signo, siginfo_t *info, ucontext_t *context,
						    const struct action *action, struct arch_signal_entry *entry)
{
	uint64_t mask = action->program.mask;

	if (signal_index(signo) >= 0 && !trap_enter_without_storage(signo, info, context, action))
		return 0;
	if (!(action->program.flags & SA_NODEFER))
		mask |= SIGNALS_BIT(signo);
	entry->mask = *signal_frame_mask(context) | app_sigstate_withheld(mask & ~SIGNALS_NEVER_BLOCKED);
	arch_signal_return_at_once(entry);
	signal_frame_leave_stack(signo, action, entry, (uintptr_t)context->uc_mcontext.gregs[REG_RSP]);
	return (uintptr_t)action->program.handler;
}

uintptr_t libpatch_signal_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index,
				struct arch_signal_entry *entry)
{
	const struct action *action = action_at(index);
	greg_t *registers = context->uc_mcontext.gregs;
	uint64_t *before = signal_frame_mask(context);
	const uintptr_t interrupted = (uintptr_t)registers[REG_RSP];
	struct mediated *call;
	bool ends_wait;
	uint64_t base;

	entry->moved = 0;
	if (!tls_is_own_libcs())
		return signal_frame_enter_without_storage(signo, info, context, action, entry);
	if (step_is_made(info, context) && step_is_inner(context))
		return 0;
	call = mediated_current();
	ends_wait = signal_frame_ends_wait(call, signo, registers);
	arch_own_stack_finish(registers);
	arch_signal_leave_anew(registers);
	put_off_end(context);
	/* It is over, with what it has changed, before it is asked whether the signal is blocked. */
	if (call != NULL && !ends_wait && (call->made || arch_call_is_made((uintptr_t)registers[REG_RIP]))) {
		signal_frame_end_call(call, registers);
		*before = app_sigstate_withheld(*before);
		call = NULL;
	}
	if ((call == NULL || !call->leaves) && put_off_signal(signo, info, context)) {
		if (ends_wait)
			signal_frame_end_call(call, registers);
		*before = app_sigstate_withheld(*before);
		return 0;
	}
	if (signal_index(signo) >= 0 && !trap_enter(signo, info, context, index, ends_wait)) {
		/*
		 * Without a handler the kernel begins a wait anew, if it is one that a handler would have ended; the
		 * others end. The next handler does not come out of it.
		 */
		if (ends_wait && call->restarts)
			signal_frame_drop_call(call, context);
		else if (ends_wait)
			call->waits = false;
		return 0;
	}
	/* In a call that is not made, or ends a wait, the kernel may block owned signals that the program does not. */
	base = (call != NULL ? app_sigstate_withheld(*before) : *before) | app_sigstate_blocked();
	*before = base;
	put_off_forget(context);
	base = *before;
	if (ends_wait)
		base = call->mask;
	signal_frame_show_program(signo, info, context, call, index);
	base |= action->program.mask;
	if (!(action->program.flags & SA_NODEFER))
		base |= SIGNALS_BIT(signo);
	base &= ~SIGNALS_NEVER_BLOCKED;
	app_sigstate_set_blocked(base & SIGNALS_OWNED);
	entry->mask = app_sigstate_withheld(base);
	arch_signal_words(context)[ARCH_SIGNAL_STORAGE] = arch_thread_pointer();
	context = signal_frame_leave_stack(signo, action, entry, MIN(interrupted, (uintptr_t)registers[REG_RSP]));
	signal_frame_keep_stack(context);
	return (uintptr_t)action->program.handler;
}

/* ---- end -------------------------------------------------------------------------------------------------------- */

void signal_frame_return(ucontext_t *context)
{
	uint64_t *after = signal_frame_mask(context);

	/* The frame has what is blocked, in whole. */
	put_off_keep_blocked(~(uint64_t)0);
	app_sigstate_set_blocked(*after & SIGNALS_OWNED);
	*after = app_sigstate_withheld(*after);
	/* They come when the kernel has put the mask in effect. */
	signal_frame_raise_held(SIGNALS_OWNED & ~app_sigstate_blocked());
}

void libpatch_signal_leave(ucontext_t *context)
{
	trap_leave(context);
	signal_frame_resume(context);
	signal_frame_return(context);
}
