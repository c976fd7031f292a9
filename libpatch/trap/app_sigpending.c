/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps owned signals that the program believes to block, until it takes them: atomics and thread-local words, by which
 * a handler that interrupts either function finds every signal once.
 */
#include "trap/app_sigpending.h"

#include "arch/signal_entry.h"
#include "trap/app_sigstate.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Words of a siginfo_t. */
typedef uint64_t __attribute__((may_alias)) word;

/* What the kernel tells of a signal, behind number, error and code: all of it (siginfo_t). */
#define WORDS ARRAY_SIZE(libpatch_held_of_process[0].words)
#define FIRST_WORD 2

/* FULL has its name beside it, which tells it from those that come later. */
enum state { FREE, BUSY, FULL };
#define STATE(word) ((word)&3)
#define NAMED(name) ((short)(FULL | (unsigned short)((name) << 2)))
static _Atomic unsigned short names;

_Static_assert(ARCH_SIGNALS_HELD == SIGNALS_OWNABLE, "one each");
_Static_assert(SIGTRAP > SIGILL, "signals_ownable[] descends");
struct signal_held libpatch_held_of_process[SIGNALS_OWNABLE];
/* Alignment that is not given is larger for arrays. */
TLS_INITIAL_EXEC struct signal_held libpatch_held_of_thread[SIGNALS_OWNABLE] __attribute__((aligned(8)));

/*
 * Where they are held: the thread's, and the process's. A child that borrows the memory is another process, and has its
 * own, at a place by its number: of two at a time with the same place, one loses what it holds.
 */
struct held_sets {
	struct signal_held *of_thread;
	struct signal_held *of_process;
};
#define CHILDREN 64
static struct child {
	_Atomic long number;
	struct signal_held of_thread[SIGNALS_OWNABLE];
	struct signal_held of_process[SIGNALS_OWNABLE];
} children[CHILDREN];

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
	atomic_store(&held->state, NAMED(atomic_fetch_add(&names, 1)));
}

static bool app_sigpending_is_full(const struct signal_held *held)
{
	return STATE(atomic_load(&held->state)) == FULL;
}

static bool app_sigpending_release(struct signal_held *held, int signo, siginfo_t *info)
{
	short state = atomic_load(&held->state);

	do {
		if (STATE(state) != FULL)
			return false;
	} while (!atomic_compare_exchange_strong(&held->state, &state, BUSY));
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

static void app_sigpending_drop(struct signal_held *held)
{
	held->error = 0;
	atomic_store(&held->state, FREE);
}

static struct held_sets app_sigpending_sets(void)
{
	struct child *child;

	if (!app_sigstate_is_child(true))
		return (struct held_sets){ libpatch_held_of_thread, libpatch_held_of_process };
	child = &children[(unsigned long)libpatch_signal_belief.child % CHILDREN];
	/* Those of another went with it. */
	if (atomic_load(&child->number) != libpatch_signal_belief.child) {
		for (int index = 0; index < SIGNALS_OWNABLE; ++index) {
			app_sigpending_drop(&child->of_thread[index]);
			app_sigpending_drop(&child->of_process[index]);
		}
		atomic_store(&child->number, libpatch_signal_belief.child);
	}
	return (struct held_sets){ child->of_thread, child->of_process };
}

void app_sigpending_put(int signo, const siginfo_t *info)
{
	const struct held_sets sets = app_sigpending_sets();
	struct signal_held *held = app_sigpending_is_threads(info) ? sets.of_thread : sets.of_process;

	app_sigpending_keep(&held[signal_index(signo)], info);
}

int app_sigpending_take(uint64_t mask, siginfo_t *info)
{
	const struct held_sets sets = app_sigpending_sets();
	struct signal_held *const held[] = { sets.of_thread, sets.of_process };

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
	return app_sigpending_is_full(&libpatch_held_of_process[signal_index(signo)]);
}

static uint64_t app_sigpending_pending_in(struct held_sets sets)
{
	uint64_t pending = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (app_sigpending_is_full(&sets.of_thread[index]) || app_sigpending_is_full(&sets.of_process[index]))
			pending |= SIGNALS_BIT(signals_ownable[index]);
	return pending;
}

uint64_t app_sigpending_pending(void)
{
	const struct held_sets own = { libpatch_held_of_thread, libpatch_held_of_process };

	/* Most have none, and need not ask whose they are. */
	if (libpatch_signal_belief.child == 0 && app_sigpending_pending_in(own) == 0)
		return 0;
	return app_sigpending_pending_in(app_sigpending_sets());
}

/* 0: none. */
static uint64_t app_sigpending_name(const struct signal_held *held)
{
	const short state = atomic_load(&held->state);

	return STATE(state) == FULL ? (unsigned short)state : 0;
}

struct app_sigpending_names app_sigpending_names(int signo)
{
	const struct held_sets sets = app_sigpending_sets();
	const int index = signal_index(signo);

	return (struct app_sigpending_names){ .of_thread = app_sigpending_name(&sets.of_thread[index]),
					      .of_process = app_sigpending_name(&sets.of_process[index]) };
}

static void app_sigpending_discard_named(struct signal_held *held, uint64_t name)
{
	short state = (short)name;

	if (name != 0 && atomic_compare_exchange_strong(&held->state, &state, BUSY))
		app_sigpending_drop(held);
}

void app_sigpending_discard(int signo, struct app_sigpending_names those)
{
	const uint64_t before = signals_block();
	const struct held_sets sets = app_sigpending_sets();

	app_sigpending_discard_named(&sets.of_thread[signal_index(signo)], those.of_thread);
	app_sigpending_discard_named(&sets.of_process[signal_index(signo)], those.of_process);
	signals_set_mask(before);
}

void app_sigpending_forget(void)
{
	for (int index = 0; index < SIGNALS_OWNABLE; ++index) {
		app_sigpending_drop(&libpatch_held_of_thread[index]);
		app_sigpending_drop(&libpatch_held_of_process[index]);
	}
}
