/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the program does on signals: rt_sigaction, and the handlers that were there before.
 */
#include "arch/signal_entry.h"
#include "base/inject.h"
#include "elf/module.h"
#include "interpose/emul.h"
#include "interpose/call_audit.h"
#include "interpose/syscall_emul.h"
#include "runtime/app_handlers.h"
#include "trap/action.h"
#include "trap/app_sigpending.h"
#include "trap/forward.h"

#include <errno.h>
#include <stdatomic.h>

/* SIGSETXID of glibc, which has a handler as soon as there are threads. That one changes ids, and nothing else. */
#define LIBC_SETXID 33

static bool emul_is_libcs(const void *handler)
{
	struct module module;

	return module_find((uintptr_t)handler, &module) && module_is_libc(&module);
}

/* Of the program, and so one that may do anything. */
static bool emul_is_handler(long signo, const struct kernel_sigaction *action)
{
	return action->handler != (void *)(uintptr_t)SIG_DFL && action->handler != (void *)(uintptr_t)SIG_IGN &&
	       !(signo == LIBC_SETXID && emul_is_libcs(action->handler));
}

/*
 * words: of an owned signal, one more than the index of the action that was set, and what was held before. Another
 * thread may have set another action since.
 */
static void emul_post_sigaction(struct mediated *call)
{
	const int signo = (int)call->program->rdi, index = (int)call->words[0] - 1;
	const long result = call->program->rax;

	/* It is set, too, where the kernel could not say what there was. */
	if (!call->made || (result != 0 && result != -EFAULT))
		return;
	(void)INJECT(INJECT_ACTION);
	if (index >= 0) {
		forward_find_action(signo);
		/* What is ignored is not pending. */
		if (action_at((unsigned int)index)->program.handler == (void *)(uintptr_t)SIG_IGN)
			app_sigpending_discard(signo, (struct app_sigpending_names){ call->words[1], call->words[2] });
	}
	/* What the program reads back is what it set. */
	if (result == 0 && call->program->rdx != 0)
		action_unwrap((struct kernel_sigaction *)call->program->rdx);
	(void)INJECT(INJECT_ACTION);
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
	return action_wrap(signo, wanted, behind, kernel);
}

bool emul_sigaction(struct arch_call *program)
{
	const struct kernel_sigaction *action = (const struct kernel_sigaction *)program->rsi;
	struct mediated call = { .program = program, .post = emul_post_sigaction };
	struct kernel_sigaction wanted, kernel;
	int signo = (int)program->rdi, ours;

	if (program->r10 != SET_SIZE || signo < 1 || signo > SIGNALS)
		return false;
	if (action != NULL) {
		if (!emul_are_readable(action, sizeof(*action)))
			return false;
		kernel_sigaction_copy(&wanted, action);
		/* The program was told of it before this was mediated. */
		ours = arch_signal_index((uintptr_t)wanted.handler);
		if (ours >= 0)
			kernel_sigaction_copy(&wanted, &action_at((unsigned int)ours)->program);
		wanted.mask &= ~SIGNALS_NEVER_BLOCKED;
		if (emul_is_handler(signo, &wanted))
			app_handlers_expect();
	}
	mediated_begin(&call);
	if (action != NULL) {
		bool wrapped = signal_index(signo) >= 0 ? emul_wrap_owned(signo, &wanted, &kernel) :
							  action_wrap(signo, &wanted, ACTION_NONE, &kernel);

		call.ours.rsi = (long)&kernel;
		if (!wrapped) {
			mediated_is_made(&call, -ENOMEM);
			mediated_end();
			return true;
		}
		if (signal_index(signo) >= 0) {
			const struct app_sigpending_names held = app_sigpending_names(signo);

			call.words[0] = (uint64_t)arch_signal_index((uintptr_t)kernel.handler) + 1;
			call.words[1] = held.of_thread;
			call.words[2] = held.of_process;
		}
	}
	mediated_make(&call);
	return true;
}

static bool emul_any_handler(void)
{
	for (int signo = 1; signo <= SIGNALS; ++signo) {
		struct kernel_sigaction action;

		if (action_get(signo, &action) != 0)
			continue;
		action_unwrap(&action);
		if (emul_is_handler(signo, &action))
			return true;
	}
	return false;
}

/* Of a tool in front of us, which sets it by a call that is not mediated: it stays (libpatch/trap_handler.h). */
static bool emul_is_in_front(int signo)
{
	struct kernel_sigaction now;

	return signal_index(signo) >= 0 && action_get(signo, &now) == 0 && forward_reaches_us((uintptr_t)now.handler);
}

void emul_take_over_handlers(void)
{
	static atomic_bool done;

	if (atomic_load_explicit(&done, memory_order_acquire))
		return;
	for (int signo = 1; signo <= SIGNALS; ++signo)
		if (signal_index(signo) < 0)
			action_take_over(signo);
	/* Release pairs with the acquire above. */
	atomic_store_explicit(&done, true, memory_order_release);
}

/* It is known whether the program has handlers. */
static bool handlers_known;

void syscall_emul_look_for_handlers(void)
{
	bool over;

	if (handlers_known)
		return;
	/* First: what a call has installed that is over is seen. */
	over = call_audit_is_over();
	for (int signo = 1; signo <= SIGNALS; ++signo)
		if (!emul_is_in_front(signo))
			action_take_over(signo);
	forward_find_actions();
	handlers_known = over;
	if (over && emul_any_handler())
		app_handlers_expect();
	else if (over)
		app_handlers_begin();
}

/* A look costs as much as it saves some dozen calls. */
#define CALLS_PER_LOOK 32

void syscall_emul_poll_handlers(void)
{
	static unsigned int calls;

	if (!handlers_known && ++calls % CALLS_PER_LOOK == 0 && call_audit_is_listed() && call_audit_is_over())
		syscall_emul_look_for_handlers();
}
