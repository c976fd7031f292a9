/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Actions of signals as the program sets them, and as the kernel gets them: with a thunk of ours as the handler
 * (arch/signal_entry.h). The kernel's table is the only one: what it has there names the program's action. So children
 * that share the memory or not, and threads that set an action at the same time, need nothing else. Async-signal-safe;
 * no lock.
 */
#ifndef LIBPATCH_TRAP_ACTION_H
#define LIBPATCH_TRAP_ACTION_H

#include "base/compiler.h"
#include "trap/owned_signals.h"

#define ACTION_NONE (-1)

/* An action that is set for a signal; does not change. */
struct action {
	struct kernel_sigaction program;
	/*
	 * Owned signals: the program's handler hands traps on to libpatch_on_trap(), and what is not ours goes to the
	 * action with this index. ACTION_NONE: it is no such handler.
	 */
	int behind;
};

const struct action *action_at(unsigned int index);

/*
 * What the kernel is to have when the program sets the action. Where there is no handler, and when there are too many
 * actions already, that is the action itself, without owned signals in a handler's mask; false: an owned signal's
 * action cannot be that.
 */
bool action_wrap(int signo, const struct kernel_sigaction *program, int behind, struct kernel_sigaction *kernel);
/* What the program set, of what the kernel has, in place. The index of the action; ACTION_NONE: it is none of ours. */
int action_unwrap(struct kernel_sigaction *kernel);

/* What the kernel has now; 0 or -errno. */
long action_get(int signo, struct kernel_sigaction *kernel);
/*
 * Exchange the action that the kernel has for one of ours that stands for it, whatever others set meanwhile. 0 or
 * -errno. Nothing happens when it is ours already.
 */
long action_take_over(int signo);
/* The reverse. */
void action_give_back(int signo);
/* The action with this index is there again, if the program has set the default one. True: it had. */
bool action_undo_reset(int signo, unsigned int index);
/* A handler that the kernel has reset for a signal (SA_RESETHAND) is there again: the signal is yet to come. */
void action_arm_again(int signo);

#endif
