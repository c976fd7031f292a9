/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps owned signals that the program believes to block, until it takes them: atomics and thread-local words, by which
 * a handler that interrupts either function finds every signal once.
 */
#include "trap/app_sigpending.h"

#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Words of a siginfo_t. */
typedef uint64_t __attribute__((may_alias)) word;

/* What the kernel tells of a signal that was sent: number, error, code, and sender or timer, and value (siginfo_t). */
#define WORDS 4

enum state { FREE, BUSY, FULL };

struct pending_signal {
	_Atomic int state;
	uint64_t words[WORDS];
};

_Static_assert(SIGTRAP > SIGILL, "signals_ownable[] descends");
static struct pending_signal of_process[SIGNALS_OWNABLE];
static TLS_INITIAL_EXEC struct pending_signal of_thread[SIGNALS_OWNABLE];

static void app_sigpending_keep(struct pending_signal *held, const siginfo_t *info)
{
	int expected = FREE;

	if (!atomic_compare_exchange_strong(&held->state, &expected, BUSY))
		return;
	for (int i = 0; i < WORDS; ++i)
		held->words[i] = ((const word *)info)[i];
	/* Release pairs with acquire in app_sigpending_release(). */
	atomic_store(&held->state, FULL);
}

static bool app_sigpending_release(struct pending_signal *held, siginfo_t *info)
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
	int index = signal_index(signo);

	app_sigpending_keep(info->si_code == SI_TKILL ? &of_thread[index] : &of_process[index], info);
}

int app_sigpending_take(uint64_t mask, siginfo_t *info)
{
	struct pending_signal *const held[] = { of_thread, of_process };

	/* In the kernel's order: those of the thread, then those of the process, the lowest number first. */
	for (size_t i = 0; i < ARRAY_SIZE(held); ++i)
		for (int index = SIGNALS_OWNABLE; index-- > 0;)
			if ((mask & SIGNALS_BIT(signals_ownable[index])) != 0 &&
			    app_sigpending_release(&held[i][index], info))
				return signals_ownable[index];
	return 0;
}

bool app_sigpending_take_of_process(int signo, siginfo_t *info)
{
	return app_sigpending_release(&of_process[signal_index(signo)], info);
}

bool app_sigpending_is_of_process(int signo)
{
	return atomic_load(&of_process[signal_index(signo)].state) == FULL;
}

uint64_t app_sigpending_pending(void)
{
	uint64_t pending = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (atomic_load(&of_thread[index].state) == FULL || atomic_load(&of_process[index].state) == FULL)
			pending |= SIGNALS_BIT(signals_ownable[index]);
	return pending;
}

void app_sigpending_discard(int signo)
{
	siginfo_t info;

	app_sigpending_release(&of_thread[signal_index(signo)], &info);
	app_sigpending_release(&of_process[signal_index(signo)], &info);
}

void app_sigpending_forget(void)
{
	for (int index = 0; index < SIGNALS_OWNABLE; ++index) {
		atomic_store(&of_thread[index].state, FREE);
		atomic_store(&of_process[index].state, FREE);
	}
}
