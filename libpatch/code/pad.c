/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pads: five bytes at the particular addresses that a constrained rel32 can reach. They lie in zones, reservations of
 * address space of which only the pages with pads take memory; a zone serves every site whose candidates fall into it,
 * so that pads share pages and mappings stay few.
 */
#include "code/pad.h"

#include "arch/trap_bytes.h"
#include "base/heap.h"
#include "base/inject.h"
#include "base/thread_safety.h"
#include "code/code_ranges.h"
#include "code/masked.h"
#include "code/staging.h"
#include "sys/gaps.h"

#include <libpatch/patch.h>
#include <sys/mman.h>

#define ZONE_SIZE (16UL << 20)
#define ZONE_PAGES (ZONE_SIZE / PAGE_SIZE)
/* Where the process may not map more: the page of a pad, the one that it runs on to, and room on both sides. */
#define ZONE_LEAST (4 * PAGE_SIZE)
#define PAGE_WORDS (PAGE_SIZE / 64)

/* Candidates looked at in one zone. Past that another zone is cheaper than more looking. */
#define TRIES 512
/* A search that had to skip this many taken candidates moves the start of the next one. */
#define CROWDED 16

/* Which of the four displacement bytes are fixed. */
#define PATTERNS 16

struct zone {
	struct zone *next;
	uintptr_t lower;
	uintptr_t upper;
	uint64_t **used;            /* per page: a bit per byte; NULL: all free */
	uint64_t has_bits[ZONE_PAGES / 64]; /* bit per page: `used` is not NULL */
	/* Where to begin looking for the pattern of this value, by mask; among the pages with pads, and among all. */
	struct {
		uintptr_t address;
		uint32_t value;
	} start[PATTERNS][2];
};

/* In the order of their making: the first ones fill up first. */
static struct zone *zones GUARDED_BY(library_lock);
static struct zone **last_zone GUARDED_BY(library_lock) = &zones;
static uint64_t pad_count GUARDED_BY(library_lock);
static uint64_t page_count GUARDED_BY(library_lock);

/* A displacement pattern, in biased order: unsigned comparison of disp ^ 0x80000000 is comparison of addresses. */
struct pattern {
	uintptr_t source;
	uint32_t mask;
	uint32_t value;
	unsigned int index;
};

static uint64_t *pad_page_bits(struct zone *zone, uintptr_t address)
{
	return zone->used[(address - zone->lower) / PAGE_SIZE];
}

static bool pad_is_free(struct zone *zone, uintptr_t pad)
{
	for (uintptr_t at = pad; at < pad + ARCH_JMP_SIZE; ++at) {
		const uint64_t *bits = pad_page_bits(zone, at);
		size_t bit = at % PAGE_SIZE;

		if (bits != NULL && (bits[bit / 64] >> (bit % 64) & 1))
			return false;
	}
	return true;
}

static void pad_note_page(struct zone *zone, uintptr_t address) REQUIRES(library_lock)
{
	size_t page = (address - zone->lower) / PAGE_SIZE;

	zone->has_bits[page / 64] |= (uint64_t)1 << (page % 64);
	++page_count;
	staging_fresh_page(ALIGN_DOWN(address, PAGE_SIZE));
}

/* Where the first page with pads at or above the one of `address` begins, or the greatest address. */
static uintptr_t pad_next_page(const struct zone *zone, uintptr_t address)
{
	size_t page = (address - zone->lower) / PAGE_SIZE;
	size_t word = page / 64;
	uint64_t bits = zone->has_bits[word] & ~(uint64_t)0 << (page % 64);

	while (bits == 0) {
		if (++word == ARRAY_SIZE(zone->has_bits))
			return UINTPTR_MAX;
		bits = zone->has_bits[word];
	}
	return zone->lower + (word * 64 + (size_t)__builtin_ctzll(bits)) * PAGE_SIZE;
}

static bool pad_mark(struct zone *zone, uintptr_t pad, bool used) REQUIRES(library_lock)
{
	for (uintptr_t at = pad; at < pad + ARCH_JMP_SIZE; ++at) {
		uint64_t **bits = &zone->used[(at - zone->lower) / PAGE_SIZE];
		size_t bit = at % PAGE_SIZE;

		if (*bits == NULL) {
			*bits = heap_alloc(PAGE_WORDS * sizeof(uint64_t));
			if (*bits != NULL)
				pad_note_page(zone, at);
		}
		if (*bits == NULL) {
			while (at-- > pad)
				pad_page_bits(zone, at)[at % PAGE_SIZE / 64] &= ~((uint64_t)1 << (at % 64));
			return false;
		}
		if (used)
			(*bits)[bit / 64] |= (uint64_t)1 << (bit % 64);
		else
			(*bits)[bit / 64] &= ~((uint64_t)1 << (bit % 64));
	}
	pad_count += used ? 1 : (uint64_t)-1;
	return true;
}

static uintptr_t pad_target_of(const struct pattern *pattern, uint32_t biased)
{
	return pattern->source + (intptr_t)(int32_t)(biased ^ 0x80000000U);
}

/* Clip pads that start in [lower, upper] to what the pattern's rel32 can express, as biased displacements. */
static bool pad_clip(const struct pattern *pattern, uintptr_t lower, uintptr_t upper, uint32_t *first, uint32_t *last)
{
	uintptr_t reach_lower = pattern->source > 0x80000000UL ? pattern->source - 0x80000000UL : 0;

	lower = MAX(lower, reach_lower);
	upper = MIN(upper, pattern->source + 0x7fffffffUL);
	if (lower > upper)
		return false;
	*first = (uint32_t)(lower - pattern->source) ^ 0x80000000U;
	*last = (uint32_t)(upper - pattern->source) ^ 0x80000000U;
	return true;
}

/* The candidate's page, or the one that it runs on to, has no pad yet. */
static bool pad_is_on_new_page(struct zone *zone, uintptr_t pad)
{
	return pad_page_bits(zone, pad) == NULL || pad_page_bits(zone, pad + ARCH_JMP_SIZE - 1) == NULL;
}

/*
 * `reuse`: only on pages that have pads already. What a pattern fixes of the middle bytes decides on the page, and
 * patterns that do are enough to have them everywhere: those that leave the choice must not open others.
 */
static uintptr_t pad_find_in_zone(struct zone *zone, const struct pattern *pattern, struct arena_reach reach,
				  bool reuse) REQUIRES(library_lock)
{
	uint32_t first, last, candidate;
	uintptr_t lower = zone->lower;
	unsigned int tries;

	if (zone->start[pattern->index][reuse].value == pattern->value)
		lower = MAX(lower, zone->start[pattern->index][reuse].address);
	if (!pad_clip(pattern, MAX(lower, reach.lower),
		  MIN(zone->upper - ARCH_JMP_SIZE, reach.upper), &first, &last))
		return 0;
	for (tries = 0; tries < TRIES; ++tries) {
		uintptr_t pad;

		if (!masked_next(first, pattern->mask, pattern->value, &candidate) || candidate > last)
			return 0;
		pad = pad_target_of(pattern, candidate);
		if (reuse && pad_is_on_new_page(zone, pad)) {
			/* From its page on to the next with pads. The page that it runs on to matters to few. */
			uintptr_t next = MAX(pad_next_page(zone, pad), pad + 1);

			if (next > pad_target_of(pattern, last))
				return 0;
			first = candidate + (uint32_t)(next - pad);
			continue;
		}
		if (pad_is_free(zone, pad)) {
			if (!pad_mark(zone, pad, true))
				return 0;
			if (tries > CROWDED) {
				zone->start[pattern->index][reuse].address = pad;
				zone->start[pattern->index][reuse].value = pattern->value;
			}
			return pad;
		}
		if (candidate == UINT32_MAX)
			return 0;
		first = candidate + 1;
	}
	return 0;
}

/* Is any candidate a user address at all? In a program at a low address most negative displacements are none. */
static bool pad_is_possible(const struct pattern *pattern, struct arena_reach reach)
{
	uint32_t first, last, candidate;

	return pad_clip(pattern, MAX(reach.lower, GAPS_FLOOR), MIN(reach.upper, GAPS_CEILING), &first, &last) &&
	       masked_next(first, pattern->mask, pattern->value, &candidate) && candidate <= last;
}

/* ---- new zones -------------------------------------------------------------------------------------------------- */

struct pad_search {
	struct gap_search gap;
	const struct pattern *pattern;
	struct arena_reach reach;
	uintptr_t distance; /* of the pad that was found */
};

/* Room on both sides of the pad, for the module's other sites with the same displacement. */
static void pad_take_of_gap(struct gap_search *gap, uintptr_t pad, uintptr_t lower, uintptr_t upper)
{
	/* The other half of a small gap is for arenas. */
	gap->taken = MIN(gap->size, MAX((upper - lower) / 2, ZONE_LEAST));
	gap->lower = MAX(lower, ALIGN_DOWN(pad - MIN(pad, gap->taken / 2), PAGE_SIZE));
	gap->upper = MIN(upper, gap->lower + ALIGN_UP(gap->taken, PAGE_SIZE));
}

static void pad_consider_gap(struct gap_search *gap, uintptr_t lower, uintptr_t upper)
{
	struct pad_search *search = (struct pad_search *)gap;
	const struct pattern *pattern = search->pattern;
	uint32_t first, last, candidate;
	uintptr_t pad, distance;
	bool found;

	if (!pad_clip(pattern, MAX(lower, search->reach.lower), MIN(upper - ARCH_JMP_SIZE, search->reach.upper), &first,
		      &last))
		return;
	if (lower < pattern->source || gap->from_above)
		found = masked_previous(last, pattern->mask, pattern->value, &candidate) && candidate >= first;
	else
		found = masked_next(first, pattern->mask, pattern->value, &candidate) && candidate <= last;
	if (!found)
		return;
	pad = pad_target_of(pattern, candidate);
	/* Below the image rather than above it, where the program break and the stacks are. */
	distance = pad < pattern->source ? pattern->source - pad : pad - pattern->source + (1UL << 32);
	if (gap->taken == 0 || distance < search->distance) {
		pad_take_of_gap(gap, pad, lower, upper);
		search->distance = distance;
	}
}

static struct zone *pad_create_zone(const struct pattern *pattern, struct arena_reach reach) REQUIRES(library_lock)
{
	struct pad_search search = {
		.gap = { .consider = pad_consider_gap, .size = ZONE_SIZE },
		.pattern = pattern,
		.reach = reach,
	};
	/* Before a gap is looked for: this maps memory, too. */
	struct zone *zone = heap_alloc(sizeof(*zone));
	uint64_t **used = heap_alloc(ZONE_PAGES * sizeof(*used));

	if (zone == NULL || used == NULL || gaps_search(&search.gap, ZONE_LEAST, PROT_READ | PROT_EXEC) != 0)
		goto fail;
	zone->lower = search.gap.lower;
	zone->upper = search.gap.upper;
	zone->used = used;
	if (!code_ranges_publish(&(struct code_range){ zone->lower, zone->upper, NULL })) {
		heap_unmap(zone->lower, zone->upper - zone->lower);
		goto fail;
	}
	*last_zone = zone;
	last_zone = &zone->next;
	return zone;
fail:
	heap_free(used, ZONE_PAGES * sizeof(*used));
	heap_free(zone, sizeof(*zone));
	return NULL;
}

patch_status pad_alloc(uintptr_t source, uint32_t fixed_mask, uint32_t fixed_value, struct arena_reach reach,
			     uintptr_t *pad)
{
	struct pattern pattern = {
		.source = source,
		.mask = fixed_mask,
		.value = (fixed_value ^ 0x80000000U) & fixed_mask,
		.index = (fixed_mask & 1) | (fixed_mask >> 7 & 2) | (fixed_mask >> 14 & 4) | (fixed_mask >> 21 & 8),
	};
	struct zone *zone;

	LOCK_ASSERT_HELD();
	*pad = 0;
	if (!pad_is_possible(&pattern, reach) || INJECT(INJECT_ALLOC))
		return PATCH_ENOMEM;
	for (int pass = 0; pass < 2; ++pass) {
		for (zone = zones; zone != NULL; zone = zone->next) {
			*pad = pad_find_in_zone(zone, &pattern, reach, pass == 0);
			if (*pad != 0)
				return PATCH_OK;
		}
	}
	zone = pad_create_zone(&pattern, reach);
	if (zone == NULL)
		return PATCH_ENOMEM;
	*pad = pad_find_in_zone(zone, &pattern, reach, false);
	return *pad != 0 ? PATCH_OK : PATCH_ENOMEM;
}

void pad_usage(struct pad_usage *usage)
{
	usage->pads = pad_count;
	usage->bytes = page_count * PAGE_SIZE;
}

void pad_free(uintptr_t pad)
{
	for (struct zone *zone = zones; zone != NULL; zone = zone->next) {
		if (pad >= zone->lower && pad < zone->upper) {
			pad_mark(zone, pad, false);
			for (size_t i = 0; i < PATTERNS; ++i)
				for (size_t k = 0; k < 2; ++k)
					zone->start[i][k].address = MIN(zone->start[i][k].address, pad);
			return;
		}
	}
}
