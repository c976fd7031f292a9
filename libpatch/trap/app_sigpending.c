/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trap/app_sigpending.h"

#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Words of a siginfo_t. */
typedef uint64_t __attribute__((may_alias)) word;

/* What the kernel tells of a signal that was sent: number, error, code, and sender or timer, and value (siginfo_t). */
#define WORDS 4

enum state { FREE, BUSY, FULL };

struct held {
	_Atomic int state;
	uint64_t words[WORDS];
};

static struct held of_process[SIGNALS_OWNABLE];
static TLS_INITIAL_EXEC struct held of_thread[SIGNALS_OWNABLE];

static void put(struct held *held, const siginfo_t *info)
{
	int expected = FREE;

	if (!atomic_compare_exchange_strong(&held->state, &expected, BUSY))
		return;
	for (int i = 0; i < WORDS; ++i)
		held->words[i] = ((const word *)info)[i];
	/* Release pairs with acquire in take(). */
	atomic_store(&held->state, FULL);
}

static bool take(struct held *held, siginfo_t *info)
{
	int expected = FULL;

	if (!atomic_compare_exchange_strong(&held->state, &expected, BUSY))
		return false;
	for (size_t i = 0; i < sizeof(*info) / sizeof(uint64_t); ++i)
		((word *)info)[i] = i < WORDS ? held->words[i] : 0;
	atomic_store(&held->state, FREE);
	return true;
}

void app_sigpending_put(int signo, const siginfo_t *info)
{
	int slot = signal_index(signo);

	put(info->si_code == SI_TKILL ? &of_thread[slot] : &of_process[slot], info);
}

int app_sigpending_take(uint64_t mask, siginfo_t *info)
{
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot)
		if ((mask & SIGNALS_BIT(signals_ownable[slot])) != 0 &&
		    (take(&of_thread[slot], info) || take(&of_process[slot], info)))
			return signals_ownable[slot];
	return 0;
}

uint64_t app_sigpending_pending(void)
{
	uint64_t pending = 0;

	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot)
		if (atomic_load(&of_thread[slot].state) == FULL || atomic_load(&of_process[slot].state) == FULL)
			pending |= SIGNALS_BIT(signals_ownable[slot]);
	return pending;
}

void app_sigpending_forget(void)
{
	for (int slot = 0; slot < SIGNALS_OWNABLE; ++slot) {
		atomic_store(&of_thread[slot].state, FREE);
		atomic_store(&of_process[slot].state, FREE);
	}
}
