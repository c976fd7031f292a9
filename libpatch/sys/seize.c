/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * By a child that traces them, some at a time (tracer.h).
 */
#include "sys/seize.h"

#include "arch/thread_pointer.h"
#include "sys/tls.h"
#include "sys/tracer.h"

#include <sys/ptrace.h>
#include <sys/user.h>

/* Of the kernel, which libc's header may not have. */
#define GETSIGMASK 0x420a
#define SETSIGMASK 0x420b

struct seize;
/* SEIZED_TOO_EARLY: the thread is to go on for a moment. */
enum seized { SEIZED_REFUSED, SEIZED_DONE, SEIZED_TOO_EARLY };
/* What is done with a thread that is stopped, whose memory is ours, too. */
typedef enum seized seize_act_fn(const struct seize *seize, pid_t number, bool may_go_on);

struct seize {
	const pid_t *threads;
	bool *done;
	size_t count;
	seize_act_fn *act;
	/* seize_change() */
	uint64_t signals;
	intptr_t word;
	seize_passing_fn *is_passing;
	/* seize_is_at() */
	seize_place_fn *is_place;
};

static enum seized seize_change(const struct seize *seize, pid_t number, bool may_go_on)
{
	/* Neither memcheck nor gcc -O0 knows that the kernel writes them. */
	struct user_regs_struct registers = { 0 };
	uint64_t mask = 0, now;

	if (tracer_call(PTRACE_GETREGS, number, 0, &registers) != 0 ||
	    tracer_call(GETSIGMASK, number, sizeof(mask), &mask) != 0)
		return SEIZED_REFUSED;
	if (may_go_on && seize->is_passing(registers.rip, (long)registers.orig_rax, mask))
		return SEIZED_TOO_EARLY;
	now = mask & ~seize->signals;
	if (now != mask) {
		/*
		 * Of other storage nothing is known, nor whether it is there. A thread that clone() has made without
		 * any has that of who made it, which, if it is the caller, must not believe what the thread blocks.
		 */
		if (!tls_is_libcs(registers.fs_base) || registers.fs_base == arch_thread_pointer())
			return SEIZED_REFUSED;
		*(uint64_t *)(registers.fs_base + (uintptr_t)seize->word) |= mask & seize->signals;
	}
	/* Also when it is the same: while the thread waited it had another, which is seen until it goes on. */
	return tracer_call(SETSIGMASK, number, sizeof(now), &now) == 0 ? SEIZED_DONE : SEIZED_REFUSED;
}

static enum seized seize_is_at(const struct seize *seize, pid_t number, bool may_go_on)
{
	struct user_regs_struct registers = { 0 };

	(void)may_go_on;
	if (tracer_call(PTRACE_GETREGS, number, 0, &registers) != 0 ||
	    !seize->is_place(registers.rip, (long)registers.orig_rax))
		return SEIZED_REFUSED;
	return SEIZED_DONE;
}

/*
 * Threads that are interrupted at once: where many want a processor, each of them would else have to be waited for as
 * long as all others run. Not more: the first to stop may stand until the last one was interrupted.
 */
#define AT_ONCE 32
/*
 * So often a thread goes on for a moment. One that is found so each time is there for good: it is of a tool that has
 * the library linked in, and runs the tool's code, which cannot be told from the library's.
 */
#define MOMENTS 64

/*
 * Those that were interrupted, and are not done with: their places in the list, their numbers in system calls, and
 * whether they go on for a moment.
 */
struct seize_open {
	size_t places[AT_ONCE];
	pid_t numbers[AT_ONCE];
	bool goes_on[AT_ONCE];
	unsigned int moments[AT_ONCE];
	size_t count;
};

/* Which is let alone if it cannot be. */
static void seize_interrupt(const struct seize *seize, size_t place, struct seize_open *open)
{
	const pid_t number = tracer_interrupt(seize->threads[place]);

	if (number == 0)
		return;
	open->places[open->count] = place;
	open->goes_on[open->count] = false;
	open->moments[open->count] = 0;
	open->numbers[open->count++] = number;
}

static void seize_close(struct seize_open *open, size_t i)
{
	--open->count;
	open->places[i] = open->places[open->count];
	open->numbers[i] = open->numbers[open->count];
	open->goes_on[i] = open->goes_on[open->count];
	open->moments[i] = open->moments[open->count];
}

/*
 * A thread has stopped, or ended. It may be one that was not waited for any more, which goes on. False: it is not done
 * with.
 */
static bool seize_finish(const struct seize *seize, struct seize_open *open, pid_t number,
			 const struct tracer_event *event)
{
	enum seized seized = SEIZED_REFUSED;
	size_t i = 0;

	while (i < open->count && open->numbers[i] != number)
		++i;
	if (i < open->count && event->stopped)
		seized = seize->act(seize, number, open->moments[i]++ < MOMENTS);
	if (seized == SEIZED_TOO_EARLY && tracer_go_on(number, event)) {
		open->goes_on[i] = true;
		return false;
	}
	if (i < open->count) {
		seize->done[open->places[i]] = seized == SEIZED_DONE;
		seize_close(open, i);
	}
	tracer_let_go(number, event);
	return true;
}

static void seize_interrupt_again(struct seize_open *open)
{
	for (size_t i = 0; i < open->count; ++i)
		if (open->goes_on[i])
			open->goes_on[i] = !tracer_interrupt_again(open->numbers[i]);
}

static void seize_close_hopeless(const struct seize *seize, struct seize_open *open)
{
	for (size_t i = open->count; i-- > 0;)
		if (tracer_is_hopeless(seize->threads[open->places[i]], open->numbers[i]))
			seize_close(open, i);
}

/* Returns how many are done with, or ended, since it was called last; -ECHILD: there is none that could. */
static long seize_finish_stopped(const struct seize *seize, struct seize_open *open)
{
	struct tracer_event event;
	long found, finished = 0;

	while ((found = tracer_look(-1, &event)) > 0)
		finished += seize_finish(seize, open, (pid_t)found, &event);
	return found < 0 ? found : finished;
}

static void seize_child(void *data)
{
	const struct seize *seize = data;
	struct seize_open open = { .count = 0 };
	struct tracer_patience patience;
	size_t next = 0;
	long finished;

	tracer_begin_to_wait(&patience);
	while (tracer_is_patient(&patience)) {
		while (next < seize->count && open.count < AT_ONCE)
			seize_interrupt(seize, next++, &open);
		finished = seize_finish_stopped(seize, &open);
		if (finished < 0)
			open.count = 0;
		if (open.count == 0 && next == seize->count)
			break;
		if (finished > 0)
			tracer_begin_to_wait(&patience);
		if (finished == 0) {
			tracer_nap(&patience);
			seize_close_hopeless(seize, &open);
			seize_interrupt_again(&open);
		}
	}
}

static void seize_all(struct seize *seize)
{
	for (size_t i = 0; i < seize->count; ++i)
		seize->done[i] = false;
	tracer_run(seize_child, seize);
}

void seize_and_unblock(const pid_t *threads, bool *done, size_t count, uint64_t signals, intptr_t word,
		       seize_passing_fn *is_passing)
{
	seize_all(&(struct seize){ .threads = threads, .done = done, .count = count, .act = seize_change,
				   .signals = signals, .word = word, .is_passing = is_passing });
}

void seize_and_look(const pid_t *threads, bool *done, size_t count, seize_place_fn *is_place)
{
	seize_all(&(struct seize){ .threads = threads, .done = done, .count = count, .act = seize_is_at,
				   .is_place = is_place });
}
