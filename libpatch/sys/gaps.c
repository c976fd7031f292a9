/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gaps are between the mappings of /proc/self/maps. Others may map memory in them at any time: what is remembered is a
 * hint, but for what gaps_map() has mapped.
 */
#include "sys/gaps.h"

#include "base/heap.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "sys/maps.h"

#include <string.h>
#include <sys/resource.h>

/* Room left for the program break to grow, and how much of it even where no other memory serves. */
#define BREAK_ROOM (1UL << 30)
#define BREAK_ROOM_LEAST (128UL << 20)
/* Gap that the kernel keeps below a growing stack (mm/mmap.c, stack_guard_gap), rounded up. */
#define STACK_GAP (2UL << 20)
#define STACK_ROOM_MAX (1UL << 30)

static uintptr_t gaps_stack_room(void)
{
	/* Where the limit cannot be read, as much room is kept as for the largest. */
	struct rlimit limit = { STACK_ROOM_MAX, STACK_ROOM_MAX };

	raw_syscall(SYS_prlimit64, 0, RLIMIT_STACK, NULL, &limit);
	return MIN((uintptr_t)limit.rlim_cur, STACK_ROOM_MAX) + STACK_GAP;
}

/* Where the room for the break ended when the gaps were last read, or something came before it did. */
static uintptr_t break_room_end;
static bool break_room_opened;

struct gaps_reading {
	gaps_visit_fn *visit;
	void *data;
	uintptr_t brk;
	uintptr_t last; /* where the mappings so far end */
};

/* The gap in front of the mapping, or its parts. */
static bool gaps_read_one(const struct maps_mapping *mapping, void *data)
{
	struct gaps_reading *reading = data;
	const uintptr_t brk = reading->brk;
	uintptr_t lower = reading->last;
	uintptr_t upper = MIN(mapping->lower, GAPS_CEILING);
	bool more = true;

	if (mapping->stack)
		upper -= MIN(upper, gaps_stack_room());
	/* Leave [brk, brk + room) out of the gap that the break lies in or touches. */
	if (brk >= lower && brk < upper) {
		if (brk > lower)
			more = reading->visit(lower, brk, reading->data);
		lower = brk + BREAK_ROOM;
		break_room_end = MIN(lower, upper);
	}
	if (more && lower < upper)
		more = reading->visit(lower, upper, reading->data);
	reading->last = MAX(reading->last, mapping->upper);
	return more;
}

static bool gaps_read(gaps_visit_fn *visit, void *data)
{
	struct gaps_reading reading = {
		.visit = visit,
		.data = data,
		/* The heap's mapping ends with the page that the break is in. */
		.brk = ALIGN_UP((uintptr_t)raw_syscall(SYS_brk, NULL), PAGE_SIZE),
		.last = GAPS_FLOOR,
	};

	break_room_end = 0;
	return maps_mappings(gaps_read_one, &reading);
}

/* The gaps that were read last. When there are more than this, they are read anew each time. */
#define GAPS_MAX 4096
static struct {
	uintptr_t lower;
	uintptr_t upper;
} gaps[GAPS_MAX];
static size_t gap_count;
static bool gaps_known;
/* gaps_map() has mapped something since. */
static bool gaps_changed;

static bool gaps_remember(uintptr_t lower, uintptr_t upper, void *data)
{
	(void)data;
	if (gap_count < GAPS_MAX) {
		gaps[gap_count].lower = lower;
		gaps[gap_count].upper = upper;
	}
	++gap_count;
	return true;
}

void gaps_forget(void)
{
	gaps_known = false;
}

/* Of the gap that [lower, upper) was in, what is left on both sides. */
static void gaps_take(uintptr_t lower, uintptr_t upper)
{
	size_t i = 0;

	if (!gaps_known)
		return;
	gaps_changed = true;
	while (i < gap_count && gaps[i].upper < upper)
		++i;
	if (i == gap_count || gaps[i].lower > lower || gap_count == GAPS_MAX) {
		gaps_forget();
		return;
	}
	memmove(&gaps[i + 1], &gaps[i], (gap_count - i) * sizeof(gaps[0]));
	++gap_count;
	gaps[i].upper = lower;
	gaps[i + 1].lower = upper;
}

bool gaps_visit(gaps_visit_fn *visit, void *data)
{
	if (!gaps_known) {
		gap_count = 0;
		if (!gaps_read(gaps_remember, NULL))
			return false;
		gaps_known = gap_count <= GAPS_MAX;
		gaps_changed = false;
	}
	if (!gaps_known)
		return gaps_read(visit, data);
	for (size_t i = 0; i < gap_count && visit(gaps[i].lower, gaps[i].upper, data); ++i)
		;
	return true;
}

void gaps_open_break_room(bool open)
{
	break_room_opened = open;
}

long gaps_map(uintptr_t address, size_t size, int protection)
{
	int injected = INJECT(INJECT_MMAP);
	long result;

	if (injected)
		return -injected;
	result = raw_map_at(address, size, protection, MAP_NORESERVE);
	if (result == 0) {
		gaps_take(address, address + size);
		return 0;
	}
	if (result == -EEXIST)
		gaps_forget();
	else
		heap_note_refusal(result);
	return result;
}

/* The least that the kernel refused, wherever. */
static size_t refused_size = SIZE_MAX;

void gaps_note_refusal(size_t size)
{
	refused_size = MIN(refused_size, size);
}

void gaps_try_again(void)
{
	refused_size = SIZE_MAX;
}

static size_t gaps_allowed(size_t size) REQUIRES(library_lock)
{
	while (size >= refused_size)
		size = ALIGN_DOWN(size / 2, PAGE_SIZE);
	return size;
}

/* ---- search ----------------------------------------------------------------------------------------------------- */

/* How often somebody else may take what was found. */
#define SEARCH_TRIES 8

static bool gaps_consider(uintptr_t lower, uintptr_t upper, void *data)
{
	struct gap_search *search = data;

	lower = ALIGN_UP(lower, PAGE_SIZE);
	upper = ALIGN_DOWN(upper, PAGE_SIZE);
	if (lower < upper)
		search->consider(search, lower, upper);
	return true;
}

/* Gaps as they are remembered; anew where gaps_map() has mapped something since; and what is left for the break. */
static bool gaps_find(struct gap_search *search) REQUIRES(library_lock)
{
	search->taken = 0;
	search->from_above = false;
	if (!gaps_visit(gaps_consider, search))
		return false;
	if (search->taken == 0 && gaps_known && gaps_changed) {
		gaps_forget();
		if (!gaps_visit(gaps_consider, search))
			return false;
	}
	search->from_above = true;
	if (search->taken == 0 && break_room_opened)
		gaps_consider((uintptr_t)raw_syscall(SYS_brk, NULL) + BREAK_ROOM_LEAST, break_room_end, search);
	return search->taken != 0;
}

long gaps_search(struct gap_search *search, size_t least, int protection)
{
	unsigned int tries = 0;
	long error = -ENOMEM;

	/* Somebody else may take the gap that was found; and there may be a limit to what the process maps. */
	while (tries < SEARCH_TRIES && (search->size = gaps_allowed(search->size)) >= least) {
		if (!gaps_find(search))
			return -ENOMEM;
		error = gaps_map(search->lower, search->upper - search->lower, protection);
		if (error == 0)
			break;
		search->size = search->taken;
		if (error == -EEXIST)
			++tries;
		else
			gaps_note_refusal(search->taken);
	}
	return error;
}
