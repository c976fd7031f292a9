/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signals that trap bytes raise, and whether libpatch's handler for them is in place. Atomics only; who installs
 * the handler (own.c) says so here, everybody asks here.
 */
#include "trap/owned_signals.h"

#include <stdatomic.h>

const int signals_ownable[SIGNALS_OWNABLE] = { SIGTRAP, SIGILL };

static _Atomic bool signals_known[SIGNALS_OWNABLE]; /* the program's action is */
static _Atomic bool signals_in_place[SIGNALS_OWNABLE]; /* our handler is */

int signal_index(int signo)
{
	for (int i = 0; i < SIGNALS_OWNABLE; ++i)
		if (signals_ownable[i] == signo)
			return i;
	return -1;
}

bool signals_owned(int signo)
{
	int index = signal_index(signo);

	return index >= 0 && atomic_load_explicit(&signals_in_place[index], memory_order_acquire);
}

void signals_set_owned(int signo, bool owned)
{
	atomic_store_explicit(&signals_in_place[signal_index(signo)], owned, memory_order_release);
}

bool signals_action_known(int index)
{
	return atomic_load_explicit(&signals_known[index], memory_order_acquire);
}

void signals_set_action_known(int index)
{
	/* Release pairs with the acquire in signals_action_known(). */
	atomic_store_explicit(&signals_known[index], true, memory_order_release);
}

bool signals_are_blocked(uint64_t blocked)
{
	/*
	 * Those that can be blocked, without the two that libc keeps for itself
	 * (sysdeps/unix/sysv/linux/internal-signals.h).
	 */
	uint64_t others =
		~(SIGNALS_OWNED | SIGNALS_BIT(SIGKILL) | SIGNALS_BIT(SIGSTOP) | SIGNALS_BIT(32) | SIGNALS_BIT(33));
	uint64_t of_ours = blocked & SIGNALS_OWNED;

	/* Exactly one, and everything else: that is how our handler runs. */
	return of_ours != 0 && ((of_ours & (of_ours - 1)) != 0 || (blocked & others) != others);
}
