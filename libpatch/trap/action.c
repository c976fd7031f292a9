/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A table of distinct actions, which only grows, by atomic states: a handler that interrupts the addition of one takes
 * another place. Nothing is known of what a handler does.
 */
#include "trap/action.h"

#include "arch/signal_entry.h"
#include "arch/translator.h"
#include "base/syscall.h"

#include <stdatomic.h>

#ifndef SA_RESTORER
#define SA_RESTORER 0x04000000
#endif

enum { FREE, BUSY, FULL };

static struct place {
	_Atomic int state;
	struct action action;
} places[ARCH_SIGNAL_THUNKS];

const struct action *action_at(unsigned int index)
{
	return &places[index].action;
}

static bool action_is_equal(const struct action *action, const struct kernel_sigaction *program, int behind)
{
	return action->program.handler == program->handler && action->program.flags == program->flags &&
	       action->program.restorer == program->restorer && action->program.mask == program->mask &&
	       action->behind == behind;
}

/* ACTION_NONE: all places are taken. */
static int action_index(const struct kernel_sigaction *program, int behind)
{
	uint64_t hash = (uintptr_t)program->handler ^ program->mask ^ program->flags << 32;
	size_t first = hash_index(hash, ARRAY_SIZE(places));

	for (size_t i = 0; i < ARRAY_SIZE(places); ++i) {
		struct place *place = &places[(first + i) % ARRAY_SIZE(places)];
		int state = atomic_load_explicit(&place->state, memory_order_acquire);

		if (state == FREE && atomic_compare_exchange_strong(&place->state, &state, BUSY)) {
			kernel_sigaction_copy(&place->action.program, program);
			place->action.behind = behind;
			/* Release pairs with the acquire above. */
			atomic_store(&place->state, FULL);
			state = FULL;
		}
		if (state == FULL && action_is_equal(&place->action, program, behind))
			return (int)(place - places);
	}
	return ACTION_NONE;
}

static bool action_has_handler(const struct kernel_sigaction *action)
{
	return action->handler != (void *)(uintptr_t)SIG_DFL && action->handler != (void *)(uintptr_t)SIG_IGN;
}

bool action_wrap(int signo, const struct kernel_sigaction *program, int behind, struct kernel_sigaction *kernel)
{
	bool owned = signal_index(signo) >= 0;
	int index = ACTION_NONE;

	kernel_sigaction_copy(kernel, program);
	/* The kernel kills a program whose handler has no restorer. */
	if (owned || (action_has_handler(program) && (program->flags & SA_RESTORER) != 0))
		index = action_index(program, behind);
	if (index == ACTION_NONE) {
		if (action_has_handler(program))
			kernel->mask &= ~SIGNALS_OWNED;
		return !owned;
	}
	kernel->handler = (void *)arch_signal_thunk((unsigned int)index);
	kernel->restorer = (void (*)(void))arch_signal_restorer((unsigned int)index);
	kernel->flags |= SA_SIGINFO;
	/*
	 * Code that is about to trap may have a stack that is too small for a frame (goroutines). But valgrind grows no
	 * stack for a frame where the action has SA_ONSTACK, be there a stack of signals or not.
	 */
	if (owned)
		kernel->flags = SA_SIGINFO | SA_RESTORER | (arch_is_translated() ? 0 : SA_ONSTACK) |
				(program->flags & (SA_RESTART | SA_ONSTACK));
	/* What a filter raises must not be blocked (seccomp(2)); all else is, until the handler begins. */
	kernel->mask = SIGNALS_IN_ENTRY;
	return true;
}

/* include/uapi/asm-generic/signal-defs.h and arch/x86: flags that the kernel knows. Linux 5.11 drops all others. */
#define KNOWN_FLAGS                                                                                                    \
	(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | 0x800UL /* SA_EXPOSE_TAGBITS */ | SA_RESTORER | SA_ONSTACK |       \
	 SA_RESTART | SA_NODEFER | (unsigned int)SA_RESETHAND)

int action_unwrap(struct kernel_sigaction *kernel)
{
	/* By the restorer: the kernel takes the handler away alone, for SA_RESETHAND. */
	int index = arch_signal_index((uintptr_t)kernel->restorer);
	bool is_reset = kernel->handler == NULL;
	unsigned long kept = kernel->flags | KNOWN_FLAGS;
	const struct kernel_sigaction *program;

	if (index < 0)
		return ACTION_NONE;
	program = &places[index].action.program;
	kernel->handler = is_reset ? NULL : program->handler;
	kernel->flags = program->flags & kept;
	kernel->mask = program->mask;
	/* Last: who is cut short, and begins anew, finds whose it is (mediated.h). */
	atomic_signal_fence(memory_order_seq_cst);
	kernel->restorer = program->restorer;
	return index;
}

long action_get(int signo, struct kernel_sigaction *kernel)
{
	return raw_syscall(SYS_rt_sigaction, signo, NULL, kernel, sizeof(kernel->mask));
}

/* As the kernel has them: it takes out what it does not know, and what is never blocked. */
static bool action_is_same(const struct kernel_sigaction *a, const struct kernel_sigaction *b)
{
	return a->handler == b->handler && a->restorer == b->restorer &&
	       ((a->flags ^ b->flags) & KNOWN_FLAGS) == 0 && ((a->mask ^ b->mask) & ~SIGNALS_NEVER_BLOCKED) == 0;
}

/* Where `change` has nothing to change, it is false. What another thread sets meanwhile is not lost. */
static long action_exchange(int signo, bool (*change)(int signo, struct kernel_sigaction *action))
{
	struct kernel_sigaction before, now, replaced;
	long result = action_get(signo, &before);

	if (result != 0)
		return result;
	kernel_sigaction_copy(&now, &before);
	if (!change(signo, &now))
		return 0;
	for (;;) {
		result = raw_syscall(SYS_rt_sigaction, signo, &now, &replaced, sizeof(now.mask));
		if (result != 0 || action_is_same(&replaced, &before))
			return result;
		/* It came between the look and the exchange, and is to stay: changed, or as it is. */
		kernel_sigaction_copy(&before, &now);
		kernel_sigaction_copy(&now, &replaced);
		change(signo, &now);
	}
}

/*
 * One of ours may come from the program, which was told of it before its calls were mediated, and set it again: libc
 * has given it a restorer of its own then.
 */
static bool action_wrap_own(int signo, struct kernel_sigaction *action)
{
	const int index = arch_signal_index((uintptr_t)action->handler);
	const struct kernel_sigaction *program = index >= 0 ? &places[index].action.program : action;
	struct kernel_sigaction kernel;

	if ((index >= 0 && arch_signal_index((uintptr_t)action->restorer) == index) ||
	    !action_wrap(signo, program, index >= 0 ? places[index].action.behind : ACTION_NONE, &kernel))
		return false;
	/* Setting what is there would discard a signal that is pending and ignored. */
	if (action_is_same(action, &kernel))
		return false;
	kernel_sigaction_copy(action, &kernel);
	return true;
}

static bool action_unwrap_own(int signo, struct kernel_sigaction *action)
{
	(void)signo;
	return action_unwrap(action) != ACTION_NONE;
}

long action_take_over(int signo)
{
	return action_exchange(signo, action_wrap_own);
}

void action_give_back(int signo)
{
	action_exchange(signo, action_unwrap_own);
}

static bool action_arm_own(int signo, struct kernel_sigaction *action)
{
	int index = arch_signal_index((uintptr_t)action->restorer);

	(void)signo;
	if (index < 0 || action->handler != NULL)
		return false;
	action->handler = (void *)arch_signal_thunk((unsigned int)index);
	return true;
}

void action_arm_again(int signo)
{
	action_exchange(signo, action_arm_own);
}

bool action_undo_reset(int signo, unsigned int index)
{
	const struct action *action = action_at(index);
	struct kernel_sigaction now, kernel;

	return action_get(signo, &now) == 0 && now.handler == (void *)(uintptr_t)SIG_DFL &&
	       (action->program.flags & SA_RESETHAND) == 0 &&
	       action_wrap(signo, &action->program, action->behind, &kernel) &&
	       raw_syscall(SYS_rt_sigaction, signo, &kernel, NULL, sizeof(kernel.mask)) == 0;
}
