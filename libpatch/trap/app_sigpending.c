/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps owned signals that the program believes to block, until it takes them: atomics and thread-local words, by which
 * a handler that interrupts either function finds every signal once.
 */
#include "trap/app_sigpending.h"

#include "arch/signal_entry.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Words of a siginfo_t. */
typedef uint64_t __attribute__((may_alias)) word;

/* What the kernel tells of a signal, behind number, error and code: all of it (siginfo_t). */
#define WORDS ARRAY_SIZE(libpatch_held_of_process[0].words)
#define FIRST_WORD 2

enum state { FREE, BUSY, FULL };

_Static_assert(ARCH_SIGNALS_HELD == SIGNALS_OWNABLE, "one each");
_Static_assert(SIGTRAP > SIGILL, "signals_ownable[] descends");
struct signal_held libpatch_held_of_process[SIGNALS_OWNABLE];
/* Alignment that is not given is larger for arrays. */
TLS_INITIAL_EXEC struct signal_held libpatch_held_of_thread[SIGNALS_OWNABLE] __attribute__((aligned(8)));

static void app_sigpending_keep(struct signal_held *held, const siginfo_t *info)
{
	short expected = FREE;

	if (!atomic_compare_exchange_strong(&held->state, &expected, BUSY))
		return;
	held->error = (short)info->si_errno;
	held->code = info->si_code;
	for (size_t i = 0; i < WORDS; ++i)
		held->words[i] = ((const word *)info)[FIRST_WORD + i];
	/* Release pairs with acquire in app_sigpending_release(). */
	atomic_store(&held->state, FULL);
}

static bool app_sigpending_release(struct signal_held *held, int signo, siginfo_t *info)
{
	short expected = FULL;

	if (!atomic_compare_exchange_strong(&held->state, &expected, BUSY))
		return false;
	for (size_t i = 0; i < sizeof(*info) / sizeof(uint64_t); ++i)
		((word *)info)[i] = i - FIRST_WORD < WORDS ? held->words[i - FIRST_WORD] : 0;
	info->si_signo = signo;
	info->si_errno = held->error;
	info->si_code = held->code;
	held->error = 0;
	atomic_store(&held->state, FREE);
	return true;
}

bool app_sigpending_is_threads(const siginfo_t *info)
{
	return info->si_code == SI_TKILL || signal_is_event(info);
}

void app_sigpending_put(int signo, const siginfo_t *info)
{
	int index = signal_index(signo);
	struct signal_held *held = app_sigpending_is_threads(info) ? libpatch_held_of_thread : libpatch_held_of_process;

	app_sigpending_keep(&held[index], info);
}

int app_sigpending_take(uint64_t mask, siginfo_t *info)
{
	struct signal_held *const held[] = { libpatch_held_of_thread, libpatch_held_of_process };

	/* In the kernel's order: those of the thread, then those of the process, the lowest number first. */
	for (size_t i = 0; i < ARRAY_SIZE(held); ++i)
		for (int index = SIGNALS_OWNABLE; index-- > 0;)
			if ((mask & SIGNALS_BIT(signals_ownable[index])) != 0 &&
			    app_sigpending_release(&held[i][index], signals_ownable[index], info))
				return signals_ownable[index];
	return 0;
}

bool app_sigpending_take_of_process(int signo, siginfo_t *info)
{
	return app_sigpending_release(&libpatch_held_of_process[signal_index(signo)], signo, info);
}

bool app_sigpending_is_of_process(int signo)
{
	return atomic_load(&libpatch_held_of_process[signal_index(signo)].state) == FULL;
}

uint64_t app_sigpending_pending(void)
{
	uint64_t pending = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (atomic_load(&libpatch_held_of_thread[index].state) == FULL ||
		    atomic_load(&libpatch_held_of_process[index].state) == FULL)
			pending |= SIGNALS_BIT(signals_ownable[index]);
	return pending;
}

void app_sigpending_discard(int signo)
{
	const uint64_t before = signals_block();
	siginfo_t info;

	app_sigpending_release(&libpatch_held_of_thread[signal_index(signo)], signo, &info);
	app_sigpending_release(&libpatch_held_of_process[signal_index(signo)], signo, &info);
	signals_set_mask(before);
}

static void app_sigpending_drop(struct signal_held *held)
{
	held->error = 0;
	atomic_store(&held->state, FREE);
}

void app_sigpending_forget(void)
{
	for (int index = 0; index < SIGNALS_OWNABLE; ++index) {
		app_sigpending_drop(&libpatch_held_of_thread[index]);
		app_sigpending_drop(&libpatch_held_of_process[index]);
	}
}
