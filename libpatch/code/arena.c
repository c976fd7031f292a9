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
#include "sys/maps.h"

#include <sys/mman.h>

#define CODE_SIZE (1UL << 20)
#define GRANULES (CODE_SIZE / ARENA_GRANULE)
#define TABLE_SIZE (GRANULES * sizeof(uint16_t))
#define ARENA_SIZE (TABLE_SIZE + ARENA_SLOTS_SIZE + CODE_SIZE)

_Static_assert(ARENA_SLOTS_SIZE == CODE_SIZE / 256 * sizeof(uint64_t),
	       "no hook is smaller than 256 bytes: a slot for each");

/* Freed blocks are kept by their exact number of granules, up to this many. */
#define CLASSES 128

#define RESERVE_TRIES 8

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
	uintptr_t code;
	uintptr_t bump;
	uintptr_t fresh; /* the first page that no block was ever in */
	struct free_block *free[CLASSES];
};

/* The newest first; the same of their slots. */
static struct arena *arenas GUARDED_BY(library_lock);
static struct arena_slots *first_slots GUARDED_BY(library_lock);
static uint64_t code_bytes;
/* Of freed blocks that could not be noted as free: there was no memory for it, or no class for their size. */
static uint64_t lost_bytes;

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
	struct arena_reach reach;
	uintptr_t near;
	uintptr_t best;
	uintptr_t best_distance;
};

/* Nearest first; below the site's module rather than above it, where the program break and the stacks are. */
static bool arena_consider_gap(uintptr_t lower, uintptr_t upper, void *data)
{
	struct arena_search *search = data;
	uintptr_t base;
	uintptr_t distance;

	lower = MAX(lower, search->reach.lower);
	upper = MIN(upper, search->reach.upper);
	if (lower >= upper || upper - lower < ARENA_SIZE)
		return true;
	if (lower < search->near) {
		base = ALIGN_DOWN(upper - ARENA_SIZE, PAGE_SIZE);
		distance = search->near - base;
	} else {
		base = ALIGN_UP(lower, PAGE_SIZE);
		distance = base - search->near + (1UL << 32);
	}
	if (base >= lower && base + ARENA_SIZE <= upper && distance < search->best_distance) {
		search->best = base;
		search->best_distance = distance;
	}
	return true;
}

/*
 * One mapping, so that nobody can get in between; then its head is made writable, by a mapping, as mprotect() may be
 * filtered. 0: none.
 */
static uintptr_t arena_reserve(uintptr_t near, struct arena_reach reach) REQUIRES(library_lock)
{
	long error = -EEXIST;

	/* Somebody else may take the gap that was found. */
	for (int tries = 0; tries < RESERVE_TRIES && error == -EEXIST; ++tries) {
		struct arena_search search = { .reach = reach, .near = near, .best_distance = UINTPTR_MAX };

		if (!maps_gaps(arena_consider_gap, &search) || search.best == 0)
			return 0;
		error = maps_map(search.best, ARENA_SIZE, PROT_READ | PROT_EXEC);
		if (error != 0)
			continue;
		error = raw_syscall(SYS_mmap, search.best, TABLE_SIZE + ARENA_SLOTS_SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		if (error > 0)
			return search.best;
		heap_note_refusal(error);
		heap_unmap(search.best, ARENA_SIZE);
	}
	return 0;
}

static struct arena *arena_create(uintptr_t near, struct arena_reach reach) REQUIRES(library_lock)
{
	struct arena *arena = heap_alloc(sizeof(*arena));
	uintptr_t base;

	if (arena == NULL)
		return NULL;
	base = arena_reserve(near, reach);
	if (base == 0)
		goto fail;
	arena->granules = (uint16_t *)base;
	arena->slots.lower = base + TABLE_SIZE;
	arena->code = arena->slots.lower + ARENA_SLOTS_SIZE;
	arena->bump = arena->code;
	arena->fresh = arena->code;
	if (!code_ranges_publish(&(struct code_range){ arena->code, arena->code + CODE_SIZE, arena->granules })) {
		heap_unmap(base, ARENA_SIZE);
		goto fail;
	}
	arena->next = arenas;
	arenas = arena;
	arena->slots.next = first_slots;
	first_slots = &arena->slots;
	return arena;
fail:
	heap_free(arena, sizeof(*arena));
	return NULL;
}

struct arena_slots *arena_add_slots(uintptr_t near, struct arena_reach reach)
{
	struct arena *arena = arena_create(near, reach);

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

static uintptr_t arena_take(struct arena *arena, size_t size, struct arena_reach reach) REQUIRES(library_lock)
{
	size_t class = size / ARENA_GRANULE;
	uintptr_t address;

	if (class < CLASSES) {
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
	if (address + size > arena->code + CODE_SIZE || address < reach.lower || address + size > reach.upper)
		return 0;
	arena->bump += size;
	for (; arena->fresh < arena->bump; arena->fresh += PAGE_SIZE)
		staging_fresh_page(arena->fresh);
	return address;
}

uintptr_t arena_next(struct arena_reach reach)
{
	for (const struct arena *arena = arenas; arena != NULL; arena = arena->next)
		if (arena->bump < arena->code + CODE_SIZE && arena->bump >= reach.lower && arena->bump <= reach.upper)
			return arena->bump;
	return 0;
}

patch_status arena_alloc(size_t size, uintptr_t near, struct arena_reach reach, struct arena_block *block)
{
	uintptr_t address = 0;
	struct arena *arena;

	LOCK_ASSERT_HELD();
	size = ALIGN_UP(size, ARENA_GRANULE);
	if (size > CODE_SIZE || INJECT(INJECT_ALLOC))
		return PATCH_ENOMEM;
	for (arena = arenas; arena != NULL; arena = arena->next) {
		address = arena_take(arena, size, reach);
		if (address != 0)
			break;
	}
	if (arena == NULL) {
		arena = arena_create(near, reach);
		if (arena != NULL)
			address = arena_take(arena, size, reach);
		if (address == 0)
			return PATCH_ENOMEM;
	}
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
	while (arena != NULL && block->address - arena->code >= CODE_SIZE)
		arena = arena->next;
	BUG_ON_RETURN(arena == NULL);
	arena_give_back(arena, block->address, block->size);
}

void arena_usage(struct arena_usage *usage)
{
	usage->mappings = code_ranges_count();
	usage->code_bytes = code_bytes;
	usage->lost_bytes = lost_bytes;
}
