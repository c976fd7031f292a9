/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a thread may still be about to make a call that is not mediated: it was interrupted behind the instruction
 * that has changed, with the number loaded, or in the kernel. Until it is certain that none is, a handler may appear
 * that libpatch does not know of, and a thread may block owned signals in the kernel. Nothing is changed here.
 */
#include "interpose/call_audit.h"

#include "base/heap.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "code/pc_map.h"
#include "elf/module.h"
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "sys/process.h"
#include "sys/seize.h"
#include "sys/tasks.h"
#include "sys/tid_set.h"
#include "trap/owned_signals.h"

/*
 * All that were there when calls were mediated already. One is in no such call, or not any more, when it has run since
 * it was looked at, or waits in another call; or, as for the memory of an instruction, at an instruction that is not
 * between one that has changed and its call.
 *
 * That it has run is seen by the kernel's ticks, each of which finds it somewhere: the first one may have found it
 * where it was interrupted.
 */
#define TICKS 2
/*
 * Nor has it, when it had a processor so often, and lost it to others. Each time it may have come no further than to
 * the end of the kernel; but not that often.
 */
#define SWITCHES 8
static struct suspect {
	pid_t tid;
	bool counted;
	unsigned int ticks;
	uint64_t time;
	uint64_t switches;
} *suspects;
static size_t suspect_count, suspect_room;
/* Those of them that are to stop, and whether they did so elsewhere. */
static struct tid_set running;
static bool *elsewhere;
static size_t elsewhere_room;
static enum { NOT_LISTED, LISTED, OVER } calls;

bool call_audit_is_in_front(uintptr_t pc)
{
	return interpose_is_in_window(pc) || pc_map_contains(pc) || module_is_librarys(pc);
}

/* They wait for their arguments' memory; calls that wait with a mask are wait_mask.h's. */
static bool call_audit_is_elsewhere(const struct tasks_wait *wait)
{
	if (wait->call < 0)
		return !call_audit_is_in_front(wait->pc);
	return wait->call != TASKS_RUNS && wait->call != SYS_rt_sigaction && wait->call != SYS_rt_sigprocmask;
}

struct call_audit_listing {
	call_audit_visit_fn *visit;
	void *data;
	pid_t self;
	bool self_seen;
	bool overflown;
	size_t visited;
};

static bool call_audit_list_thread(pid_t tid, void *data) REQUIRES(library_lock)
{
	struct call_audit_listing *listing = data;
	struct suspect suspect = { .tid = tid };
	struct tasks_wait wait;
	bool past;

	++listing->visited;
	listing->self_seen |= tid == listing->self;
	if (tid == listing->self)
		return true;
	/* Before it is looked at: what runs from here on counts. */
	if (!tasks_time(tid, &suspect.time))
		suspect.time = UINT64_MAX;
	tasks_waits_in(tid, &wait);
	past = call_audit_is_elsewhere(&wait) || tasks_is_worker(tid);
	if (!past && heap_reserve(&suspects, &suspect_room, suspect_count + 1, sizeof(*suspects)))
		suspects[suspect_count++] = suspect;
	else if (!past)
		listing->overflown = true;
	if (listing->visit != NULL)
		listing->visit(tid, &wait, past, listing->data);
	return true;
}

/* One that begins or ends meanwhile makes the directory skip others. False: /proc cannot be read. */
static bool call_audit_list(call_audit_visit_fn *visit, void *data)
{
	struct call_audit_listing listing = { .visit = visit, .data = data, .self = tasks_self() };
	size_t count = tasks_count();
	bool read;

	suspect_count = 0;
	read = tasks_visit(call_audit_list_thread, &listing);
	calls = NOT_LISTED;
	if (read && listing.self_seen && !listing.overflown && listing.visited == count && tasks_count() == count)
		calls = LISTED;
	return read;
}

static bool call_audit_is_past(struct suspect *suspect)
{
	struct tasks_wait wait;
	uint64_t time;

	if (suspect->ticks < TICKS && tasks_time(suspect->tid, &time) && time > suspect->time) {
		suspect->time = time;
		++suspect->ticks;
	}
	if (suspect->ticks == TICKS)
		return true;
	tasks_waits_in(suspect->tid, &wait);
	return call_audit_is_elsewhere(&wait);
}

static void call_audit_forget_past(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < suspect_count; ++i)
		if (!call_audit_is_past(&suspects[i]))
			suspects[kept++] = suspects[i];
	suspect_count = kept;
}

bool call_audit_is_over(void)
{
	if (!mask_audit_is_complete())
		return false;
	/* Whose threads are not those of a parent whose memory it has. */
	if (calls != OVER && process_is_borrowed())
		return false;
	if (calls != OVER && tasks_is_single())
		calls = OVER;
	if (calls == NOT_LISTED)
		call_audit_list(NULL, NULL);
	if (calls == LISTED)
		call_audit_forget_past();
	if (calls == LISTED && suspect_count == 0)
		calls = OVER;
	return calls == OVER;
}

/* Where the kernel does not say who waits, all seem to run: the calling thread, too, which else is in a call. */
static bool call_audit_is_told(void)
{
	struct tasks_wait wait;

	return tasks_waits_in(tasks_self(), &wait) != TASKS_RUNS;
}

pid_t call_audit_suspect(void)
{
	struct tasks_wait wait;

	if (calls != LISTED || suspect_count == 0 || !mask_audit_is_complete() || !call_audit_is_told())
		return 0;
	for (size_t i = 0; i < suspect_count; ++i)
		if (tasks_waits_in(suspects[i].tid, &wait) != SYS_rt_sigaction)
			return suspects[i].tid;
	return 0;
}

/* Asked by a child, with the same memory. */
static bool call_audit_is_outside(uintptr_t pc, long call)
{
	/* Behind a call it has been made: what it blocks is seen. */
	return call >= 0 || !call_audit_is_in_front(pc);
}

/* False: there is no memory. */
static bool call_audit_list_running(void) REQUIRES(library_lock)
{
	struct tasks_wait wait;

	running.count = 0;
	for (size_t i = 0; i < suspect_count; ++i)
		if (tasks_waits_in(suspects[i].tid, &wait) == TASKS_RUNS && !tid_set_add(&running, suspects[i].tid))
			return false;
	return heap_reserve(&elsewhere, &elsewhere_room, running.count + 1, sizeof(*elsewhere));
}

void call_audit_stop(void)
{
	uint64_t before;
	size_t past = 0;

	if (call_audit_suspect() == 0 || process_is_borrowed() || !call_audit_list_running() || running.count == 0)
		return;
	before = signals_block();
	seize_and_look(running.tids, elsewhere, running.count, call_audit_is_outside);
	signals_set_mask(before);
	for (size_t i = 0; i < running.count; ++i)
		if (elsewhere[i])
			running.tids[past++] = running.tids[i];
	running.count = past;
	for (size_t i = 0; i < suspect_count; ++i)
		if (tid_set_has(&running, suspects[i].tid))
			suspects[i].ticks = TICKS;
}

void call_audit_count_switches(void)
{
	uint64_t switches;

	if (call_audit_suspect() == 0 || process_is_borrowed())
		return;
	for (struct suspect *suspect = suspects; suspect < suspects + suspect_count; ++suspect) {
		if (suspect->ticks == TICKS || !tasks_switches(suspect->tid, &switches))
			continue;
		if (!suspect->counted)
			suspect->switches = switches;
		suspect->counted = true;
		if (switches - suspect->switches >= SWITCHES)
			suspect->ticks = TICKS;
	}
}

bool call_audit_is_listed(void)
{
	return calls == LISTED;
}

bool call_audit_begin(call_audit_visit_fn *visit, void *data)
{
	return call_audit_list(visit, data);
}
