/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where generated code lies: arenas, one mapping each, near the code that they serve; and blocks of code in them, given
 * out and taken back. What the blocks contain is not looked at here, and nothing here writes to code.
 */
#include "code/arena.h"

#include "arch/emit.h"
#include "arch/trap_bytes.h"
#include "base/bug.h"
#include "base/heap.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "code/code_ranges.h"
#include "code/staging.h"
#include "sys/gaps.h"

#include <sys/mman.h>

/* A slot for each hook: none is smaller than 256 bytes. */
#define CODE_PER_SLOTS (256 / sizeof(uint64_t))
#define CODE_SIZE (1UL << 20)
#define ARENA_SIZE (CODE_SIZE + CODE_SIZE / CODE_PER_SLOTS)

/* Freed blocks are kept by their exact number of granules, up to this many. */
#define CLASSES 128

/* What a rel32 may miss: the size of the largest trampoline and then some. */
#define REACH_MARGIN (1UL << 16)

struct free_block {
	struct free_block *next;
	uintptr_t address;
};

struct arena {
	struct arena *next;
	uint16_t *granules;
	struct arena_slots slots;
	uintptr_t code; /* up to `end` */
	uintptr_t end;
	uintptr_t bump;
	uintptr_t seen;  /* arena_visit_new() has seen what is below */
	struct free_block *free[CLASSES];
};

/* The newest first: those that have code, and those that have slots. */
static struct arena *arenas GUARDED_BY(library_lock);
static struct arena_slots *first_slots GUARDED_BY(library_lock);
static uint64_t code_bytes;
/* Of freed blocks that could not be noted as free: there was no memory for it, or no class for their size. */
static uint64_t lost_bytes;
static bool leaves_room;

struct arena_reach arena_reach_of(uintptr_t address)
{
	struct arena_reach reach;

	reach.lower = address > 0x80000000UL - REACH_MARGIN ? address - (0x80000000UL - REACH_MARGIN) : 0;
	reach.upper = address < UINTPTR_MAX - 0x80000000UL ? address + (0x80000000UL - REACH_MARGIN) : UINTPTR_MAX;
	return reach;
}

bool arena_reach_intersect(struct arena_reach *reach, struct arena_reach other)
{
	reach->lower = MAX(reach->lower, other.lower);
	reach->upper = MIN(reach->upper, other.upper);
	return reach->lower <= reach->upper;
}

/* ---- placing a new arena ---------------------------------------------------------------------------------------- */

struct arena_search {
	struct gap_search gap;
	struct arena_reach reach;
	uintptr_t near;
	size_t least;
	uintptr_t distance; /* of what was found */
};

/*
 * Where there is room for all of it, and else where there is most; half of the gap is left for pads, which the code may
 * need to be reached. The nearest first; below the site's module rather
 * than above it, where the program break and the stacks are.
 */
static void arena_consider_gap(struct gap_search *gap, uintptr_t lower, uintptr_t upper)
{
	struct arena_search *search = (struct arena_search *)gap;
	uintptr_t base, distance;
	size_t size;

	lower = ALIGN_UP(MAX(lower, search->reach.lower), PAGE_SIZE);
	upper = ALIGN_DOWN(MIN(upper, search->reach.upper), PAGE_SIZE);
	if (lower >= upper)
		return;
	size = MIN(MAX(ALIGN_DOWN((upper - lower) / 2, PAGE_SIZE), PAGE_SIZE), gap->size);
	base = lower < search->near || gap->from_above ? upper - size : lower;
	distance = lower < search->near ? search->near - base : base - search->near + (1UL << 32);
	if (size >= search->least &&
	    (size > gap->taken || (size == gap->taken && distance < search->distance))) {
		gap->lower = base;
		gap->upper = base + size;
		gap->taken = size;
		search->distance = distance;
	}
}

/* By a mapping, as mprotect() may be filtered. */
static bool arena_make_writable(uintptr_t address, size_t size)
{
	long result = raw_syscall(SYS_mmap, address, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (result < 0)
		heap_note_refusal(result);
	return result > 0;
}

/* One mapping, so that nobody can get in between; then its head is made writable, if there is room beside the code. */
static bool arena_map(struct arena *arena, uintptr_t near, struct arena_reach reach, size_t least)
	REQUIRES(library_lock)
{
	struct arena_search search = {
		.gap = { .consider = arena_consider_gap, .size = ARENA_SIZE },
		.reach = reach,
		.near = near,
		.least = MAX(least, PAGE_SIZE),
	};
	uintptr_t base;
	size_t size, slots_size;

	if (gaps_search(&search.gap, search.least, PROT_READ | PROT_EXEC) != 0)
		return false;
	base = search.gap.lower;
	size = search.gap.taken;
	slots_size = ALIGN_UP(size / (CODE_PER_SLOTS + 1), PAGE_SIZE);
	if (size - slots_size < least)
		slots_size = 0;
	if (slots_size > 0 && !arena_make_writable(base, slots_size)) {
		heap_unmap(base, size);
		gaps_note_refusal(size);
		return false;
	}
	arena->slots.lower = base;
	arena->slots.fresh = base;
	arena->slots.upper = base + slots_size;
	arena->code = arena->slots.upper;
	arena->bump = arena->code;
	arena->seen = arena->code;
	arena->end = base + size;
	return true;
}

static size_t arena_table_size(const struct arena *arena)
{
	return (arena->end - arena->code) / ARENA_GRANULE * sizeof(uint16_t);
}

/* Memory for code, not for structures: the heap does not count it. */
static bool arena_map_table(struct arena *arena)
{
	const size_t size = arena_table_size(arena);

	arena->granules = heap_map(size);
	if (arena->granules != NULL)
		heap_disown(size);
	return arena->granules != NULL;
}

static bool arena_publish(struct arena *arena) REQUIRES(library_lock)
{
	if (!arena_map_table(arena))
		return false;
	if (!code_ranges_publish(&(struct code_range){ arena->code, arena->end, arena->granules })) {
		heap_unmap((uintptr_t)arena->granules, ALIGN_UP(arena_table_size(arena), PAGE_SIZE));
		return false;
	}
	arena->next = arenas;
	arenas = arena;
	return true;
}

/* For so many bytes of code at least; 0: for slots. */
static struct arena *arena_create(uintptr_t near, struct arena_reach reach, size_t least) REQUIRES(library_lock)
{
	struct arena *arena = heap_alloc(sizeof(*arena));

	if (arena == NULL)
		return NULL;
	if (!arena_map(arena, near, reach, least))
		goto fail;
	if (arena->code < arena->end && !arena_publish(arena)) {
		heap_unmap(arena->slots.lower, arena->end - arena->slots.lower);
		gaps_note_refusal(arena->end - arena->slots.lower);
		goto fail;
	}
	if (arena->slots.lower < arena->slots.upper) {
		arena->slots.next = first_slots;
		first_slots = &arena->slots;
	}
	return arena;
fail:
	heap_free(arena, sizeof(*arena));
	return NULL;
}

struct arena_slots *arena_add_slots(uintptr_t near, struct arena_reach reach)
{
	struct arena *arena = arena_create(near, reach, 0);

	return arena != NULL ? &arena->slots : NULL;
}

struct arena_slots *arena_slots(void)
{
	return first_slots;
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static void arena_set_granules(struct arena *arena, uintptr_t address, size_t size, bool used)
{
	size_t first = (address - arena->code) / ARENA_GRANULE;

	for (size_t i = 0; i < size / ARENA_GRANULE; ++i)
		arena->granules[first + i] = used ? (uint16_t)i : ARENA_NO_BLOCK;
}

/* For the description of what is new, which has half its size at most, as a rule, and of the block. */
static size_t arena_room_for(const struct arena *arena, size_t size)
{
	return leaves_room ? (arena->bump - arena->seen + size) / 2 + PAGE_SIZE : 0;
}

static uintptr_t arena_take(struct arena *arena, size_t size, struct arena_reach reach) REQUIRES(library_lock)
{
	size_t class = size / ARENA_GRANULE;
	uintptr_t address;

	if (class < CLASSES && !leaves_room) {
		struct free_block **link = &arena->free[class];

		while (*link != NULL && ((*link)->address < reach.lower || (*link)->address + size > reach.upper))
			link = &(*link)->next;
		if (*link != NULL) {
			struct free_block *block = *link;

			address = block->address;
			*link = block->next;
			heap_free(block, sizeof(*block));
			return address;
		}
	}
	address = arena->bump;
	if (size + arena_room_for(arena, size) > arena->end - address || address < reach.lower ||
	    address + size > reach.upper)
		return 0;
	arena->bump += size;
	return address;
}

static bool arena_is_small(const struct arena *arena)
{
	return arena->end - arena->code < ARENA_SMALL;
}

uintptr_t arena_next(struct arena_reach reach)
{
	for (const struct arena *arena = arenas; arena != NULL; arena = arena->next)
		if (!arena_is_small(arena) && arena->bump < arena->end && arena->bump >= reach.lower &&
		    arena->bump <= reach.upper)
			return arena->bump;
	return 0;
}

/* The next arena that has room. NULL: none has, and there is no memory for another. */
static struct arena *arena_try(size_t size, uintptr_t near, struct arena_reach reach, struct arena_tried *tried,
			       uintptr_t *address) REQUIRES(library_lock)
{
	struct arena *arena = tried->last == NULL ? arenas : tried->last->next;

	*address = 0;
	while (!tried->new_ones && arena != NULL) {
		if (!tried->not_small || !arena_is_small(arena))
			*address = arena_take(arena, size, reach);
		if (*address != 0)
			return arena;
		arena = arena->next;
	}
	tried->new_ones = true;
	arena = arena_create(near, reach, tried->not_small ? MAX(size, ARENA_SMALL) : size);
	if (arena != NULL)
		*address = arena_take(arena, size, reach);
	return *address != 0 ? arena : NULL;
}

patch_status arena_alloc(size_t size, uintptr_t near, struct arena_reach reach, struct arena_tried *tried,
			 struct arena_block *block)
{
	struct arena *arena;
	uintptr_t address;

	LOCK_ASSERT_HELD();
	size = ALIGN_UP(size, ARENA_GRANULE);
	if (size > CODE_SIZE || INJECT(INJECT_ALLOC))
		return PATCH_ENOMEM;
	staging_make_room((uint32_t)size);
	arena = arena_try(size, near, reach, tried, &address);
	if (arena == NULL)
		return PATCH_ENOMEM;
	tried->last = arena;
	arena_set_granules(arena, address, size, true);
	code_bytes += size;
	block->address = address;
	block->size = (uint32_t)size;
	return PATCH_OK;
}

static void arena_give_back(struct arena *arena, uintptr_t address, size_t size) REQUIRES(library_lock)
{
	size_t class = size / ARENA_GRANULE;
	struct free_block *freed;

	arena_set_granules(arena, address, size, false);
	code_bytes -= size;
	if (address + size == arena->bump) {
		arena->bump = address;
		arena->seen = MIN(arena->seen, address);
		return;
	}
	freed = class < CLASSES ? heap_alloc(sizeof(*freed)) : NULL;
	if (freed == NULL) {
		lost_bytes += size;
		return;
	}
	freed->address = address;
	freed->next = arena->free[class];
	arena->free[class] = freed;
}

void arena_free(const struct arena_block *block)
{
	struct arena *arena = arenas;

	LOCK_ASSERT_HELD();
	while (arena != NULL && block->address - arena->code >= arena->end - arena->code)
		arena = arena->next;
	BUG_ON_RETURN(arena == NULL);
	arena_give_back(arena, block->address, block->size);
}

void arena_visit_new(arena_new_fn *function)
{
	for (struct arena *arena = arenas; arena != NULL; arena = arena->next) {
		if (arena->bump > arena->seen) {
			const size_t room = arena->end - arena->bump;

			arena->bump += MIN(ALIGN_UP(function(arena->seen, arena->bump, room), ARENA_GRANULE), room);
		}
		arena->seen = arena->bump;
	}
}

void arena_leave_room(void)
{
	leaves_room = true;
}

void arena_usage(struct arena_usage *usage)
{
	usage->mappings = code_ranges_count();
	usage->code_bytes = code_bytes;
	usage->lost_bytes = lost_bytes;
}
