/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executable memory at wanted addresses: pads at the addresses that a constrained displacement can express, blocks and
 * slots within reach, and nothing where the program break or the main stack will grow.
 */
#include "code/pad.h"

#include "arch/trap_bytes.h"
#include "code/pc_map.h"
#include "code/slots.h"
#include "sys/gaps.h"
#include "sys/maps.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static uint32_t seed = 2463534242U;

static uint32_t random_u32(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

/* Behind a jump in this program. */
static uintptr_t source_here(void)
{
	return (uintptr_t)&source_here & ~0xfffUL;
}

static struct arena_reach everywhere(void)
{
	return (struct arena_reach){ 0, UINTPTR_MAX };
}

/* ---- pads ------------------------------------------------------------------------------------------------------- */

#define PADS 4000
/* Each of the four bytes of a displacement is fixed or free. */
#define PATTERNS 16

static uintptr_t pads[PADS];

static int compare(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return (x > y) - (x < y);
}

static void expect_no_overlap(size_t count)
{
	size_t i;

	qsort(pads, count, sizeof(*pads), compare);
	for (i = 1; i < count; i++)
		cr_assert_geq(pads[i] - pads[i - 1], ARCH_JMP_SIZE, "pads at %#lx and %#lx", pads[i - 1], pads[i]);
}

static bool matches(uintptr_t source, uint32_t mask, uint32_t value, uintptr_t pad)
{
	int64_t distance = (int64_t)(pad - source);

	return distance == (int32_t)distance && ((uint32_t)distance & mask) == value;
}

/* Fixed bytes are int3, as trampoline_find_pad() asks for. */
static void pattern_of(unsigned int boundaries, uint32_t *mask, uint32_t *value)
{
	unsigned int i;

	*mask = 0;
	for (i = 0; i < 4; i++) {
		if (boundaries & 1U << i)
			*mask |= 0xffU << 8 * i;
	}
	*value = *mask & 0xcccccccc;
}

static uint64_t count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t count = 0;
	int c;

	while ((c = getc(maps)) != EOF)
		count += c == '\n';
	fclose(maps);
	return count;
}

static bool is_executable(uintptr_t address)
{
	struct maps_mapping mapping;
	bool readable;

	return maps_mapping(address, &mapping, &readable) && mapping.protection == (PROT_READ | PROT_EXEC) &&
	       !mapping.shared;
}

Test(pad, every_pattern)
{
	uintptr_t pad, source;
	uint32_t mask, value;
	unsigned int boundaries, k;

	for (boundaries = 0; boundaries < PATTERNS; boundaries++) {
		pattern_of(boundaries, &mask, &value);
		for (k = 0; k < 40; k++) {
			source = source_here() + 37 * k;
			cr_assert_eq(pad_alloc(source, mask, value, everywhere(), &pad), PATCH_OK,
				     "pattern %#x from %#lx", boundaries, source);
			cr_expect(matches(source, mask, value, pad), "pattern %#x: displacement %#lx", boundaries,
				  pad - source);
			cr_expect(is_executable(pad) && is_executable(pad + ARCH_JMP_SIZE - 1));
			cr_expect(pc_map_contains(pad) && pc_map_contains(pad + ARCH_JMP_SIZE - 1));
			pads[boundaries * 40 + k] = pad;
		}
	}
	expect_no_overlap(PATTERNS * 40);
}

/* All four bytes fixed: there is one address, and it can be had once. */
Test(pad, a_single_address)
{
	uintptr_t source = source_here(), pad = 0, other;

	cr_assert_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, everywhere(), &pad), PATCH_OK);
	cr_expect_eq(pad, source - 0x33333334);
	other = 1;
	cr_expect_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_ENOMEM);
	/* Four bytes on, it would overlap; five bytes on, it does not. */
	cr_expect_eq(pad_alloc(source + 4, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_ENOMEM);
	cr_expect_eq(pad_alloc(source - 4, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_ENOMEM);
	cr_expect_eq(pad_alloc(source + 5, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_OK);
	cr_expect_eq(other, pad + 5);
	cr_expect_eq(pad_alloc(source - 5, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_OK);
	cr_expect_eq(other, pad - 5);
	pad_free(pad);
	cr_expect_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, everywhere(), &other), PATCH_OK);
	cr_expect_eq(other, pad);
}

/* Where something is mapped there is no pad, and it stays mapped. */
Test(pad, never_over_a_mapping)
{
	uintptr_t source = source_here(), target = source - 0x33333334, pad;
	uint8_t *taken = mmap((void *)ALIGN_DOWN(target, PAGE_SIZE), PAGE_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	cr_assert_eq((uintptr_t)taken, ALIGN_DOWN(target, PAGE_SIZE));
	memset(taken, 0x5A, PAGE_SIZE);
	cr_expect_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, everywhere(), &pad), PATCH_ENOMEM);
	cr_expect_eq(taken[0], 0x5A);
	/* Neither one that begins before it and ends in it. */
	source -= (target & (PAGE_SIZE - 1)) + 3;
	cr_expect_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, everywhere(), &pad), PATCH_ENOMEM);
	cr_expect_eq(taken[0], 0x5A);
}

Test(pad, thousands_do_not_overlap)
{
	uint64_t mappings = count_mappings();
	uint32_t mask, value;
	uintptr_t source;
	size_t i;

	for (i = 0; i < PADS; i++) {
		/* Sites in 8 MiB of code, with every pattern that leaves a choice. */
		source = source_here() + random_u32() % (8U << 20);
		pattern_of(random_u32() % (PATTERNS - 1), &mask, &value);
		cr_assert_eq(pad_alloc(source, mask, value, everywhere(), &pads[i]), PATCH_OK, "pad %zu", i);
		cr_assert(matches(source, mask, value, pads[i]));
	}
	expect_no_overlap(PADS);
	/* vm.max_map_count is 65,530. */
	cr_expect_leq(count_mappings(), mappings + 40, "%lu mappings, %lu before", count_mappings(), mappings);
}

Test(pad, freed_ones_are_used_again)
{
	static uintptr_t again[PADS];
	uint32_t mask, value;
	uint64_t mappings;
	size_t i, round;

	pattern_of(0x6, &mask, &value);
	for (i = 0; i < 1000; i++)
		cr_assert_eq(pad_alloc(source_here() + i, mask, value, everywhere(), &pads[i]), PATCH_OK);
	mappings = count_mappings();
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 1000; i++)
			pad_free(pads[i]);
		for (i = 0; i < 1000; i++)
			cr_assert_eq(pad_alloc(source_here() + i, mask, value, everywhere(), &again[i]),
				     PATCH_OK);
		memcpy(pads, again, sizeof(pads));
		expect_no_overlap(1000);
	}
	cr_expect_leq(count_mappings(), mappings + 1, "%lu mappings, %lu before", count_mappings(), mappings);
}

/* Searches skip what they found taken before: not for ever. */
Test(pad, freed_ones_are_used_again_where_it_is_crowded)
{
	uintptr_t lowest = UINTPTR_MAX, highest = 0, pad;
	size_t i;

	for (i = 0; i < 1000; i++) {
		cr_assert_eq(pad_alloc(source_here(), 0, 0, everywhere(), &pads[i]), PATCH_OK);
		lowest = MIN(lowest, pads[i]);
		highest = MAX(highest, pads[i]);
	}
	for (i = 0; i < 1000; i++)
		pad_free(pads[i]);
	for (i = 0; i < 1000; i++) {
		cr_assert_eq(pad_alloc(source_here(), 0, 0, everywhere(), &pad), PATCH_OK);
		cr_assert(pad >= lowest && pad <= highest, "%#lx is new, and all from %#lx to %#lx were free", pad,
			  lowest, highest);
	}
}

/* The pad's own jump has to reach the trampoline, too. */
Test(pad, within_reach)
{
	uintptr_t source = source_here(), pad;
	struct arena_reach reach;
	uint32_t mask, value;
	unsigned int boundaries;

	for (boundaries = 0; boundaries < 8; boundaries++) {
		pattern_of(boundaries, &mask, &value);
		reach = (struct arena_reach){ source - (600UL << 20), source - (200UL << 20) };
		cr_assert_eq(pad_alloc(source, mask, value, reach, &pad), PATCH_OK, "pattern %#x", boundaries);
		cr_expect(pad >= reach.lower && pad <= reach.upper && matches(source, mask, value, pad));
		reach = (struct arena_reach){ source - (1800UL << 20), source - (1200UL << 20) };
		cr_assert_eq(pad_alloc(source, mask, value, reach, &pad), PATCH_OK, "pattern %#x", boundaries);
		cr_expect(pad >= reach.lower && pad <= reach.upper && matches(source, mask, value, pad));
		/* What a rel32 cannot express is no pad, whatever else would reach it. */
		reach = (struct arena_reach){ source - (9UL << 30), source - (3UL << 30) };
		cr_expect_eq(pad_alloc(source, mask, value, reach, &pad), PATCH_ENOMEM, "pattern %#x",
			     boundaries);
	}
	/* The one address is outside. */
	reach = (struct arena_reach){ source - (600UL << 20), source };
	cr_expect_eq(pad_alloc(source, UINT32_MAX, 0xcccccccc, reach, &pad), PATCH_ENOMEM);
}

static patch_status alloc(size_t size, uintptr_t near, struct arena_reach reach, struct arena_block *block)
{
	struct arena_tried tried = { 0 };

	return arena_alloc(size, near, reach, &tried, block);
}

static uintptr_t alloc_slot(uintptr_t near)
{
	return hook_slot_alloc(near, arena_reach_of(near));
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

Test(arena, blocks_do_not_overlap)
{
	static struct arena_block blocks[PADS];
	uintptr_t near = source_here();
	size_t i, size;

	for (i = 0; i < PADS; i++) {
		size = 1 + random_u32() % 700;
		cr_assert_eq(alloc(size, near, arena_reach_of(near), &blocks[i]), PATCH_OK);
		cr_expect_geq(blocks[i].size, size);
		cr_expect_eq(blocks[i].size % ARENA_GRANULE, 0);
		cr_expect_eq(blocks[i].address % ARENA_GRANULE, 0);
		/* Give some back. */
		if (i % 3 == 0 && i > 0) {
			arena_free(&blocks[i / 2]);
			blocks[i / 2].size = 0;
		}
		cr_assert(i % 100 != 0 || is_executable(blocks[i].address));
	}
	for (i = 0, size = 0; i < PADS; i++) {
		size_t k;

		size += blocks[i].size;
		for (k = 0; k < i && blocks[i].size != 0; k++)
			cr_assert(blocks[k].size == 0 || blocks[k].address + blocks[k].size <= blocks[i].address ||
				  blocks[i].address + blocks[i].size <= blocks[k].address);
	}
	{
		struct arena_usage usage;

		arena_usage(&usage);
		cr_expect_eq(usage.code_bytes, size, "%lu bytes in use, not %zu", usage.code_bytes, size);
	}
}

Test(arena, freed_blocks_are_used_again)
{
	struct arena_block a, b, c;
	struct arena_reach reach = arena_reach_of(source_here());

	cr_assert_eq(alloc(160, source_here(), reach, &a), PATCH_OK);
	cr_assert_eq(alloc(160, source_here(), reach, &b), PATCH_OK);
	arena_free(&a);
	cr_assert_eq(alloc(150, source_here(), reach, &c), PATCH_OK);
	cr_expect_eq(c.address, a.address, "the same number of granules");
	cr_assert_eq(alloc(160, source_here(), reach, &a), PATCH_OK);
	cr_expect_eq(a.address, b.address + b.size);
}

Test(arena, within_reach)
{
	uintptr_t near = source_here();
	struct arena_block block;
	struct arena_reach reach;
	uintptr_t original;

	cr_assert_eq(alloc(64, near, arena_reach_of(near), &block), PATCH_OK);
	cr_expect_lt(near - block.address, 0x80000000UL, "below, and within a rel32");
	/* Not a part of the first one's arena. */
	reach = (struct arena_reach){ near - (1900UL << 20), near - (1000UL << 20) };
	cr_assert_eq(alloc(64, near, reach, &block), PATCH_OK);
	cr_expect(block.address >= reach.lower && block.address + 64 <= reach.upper);
	reach = (struct arena_reach){ near, near + 64 };
	cr_expect_eq(alloc(64, near, reach, &block), PATCH_ENOMEM, "in the middle of this program");
	cr_expect_eq(alloc(2UL << 20, near, arena_reach_of(near), &block), PATCH_ENOMEM, "more than an arena");
	cr_expect_not(pc_map_contains(near));
	cr_expect_not(pc_map_original(near, &original));
}

Test(arena, reach_of_a_rel32)
{
	struct arena_reach a = arena_reach_of(0x555500000000), b = arena_reach_of(0x555500000000 + (3UL << 30));

	/* A trampoline anywhere in it can reach, and be reached, from all of its bytes. */
	cr_expect_gt(a.lower + 0x80000000UL, 0x555500000000 + 10000);
	cr_expect_lt(a.upper, 0x555500000000 + 0x7fffffffUL - 10000);
	cr_expect(arena_reach_intersect(&a, b));
	cr_expect_eq(a.lower, b.lower);
	cr_expect_lt(a.lower, a.upper);
	cr_expect_not(arena_reach_intersect(&a, arena_reach_of(0x555600000000 + (3UL << 30))));
	a = arena_reach_of(0x1000);
	cr_expect_eq(a.lower, 0);
	a = arena_reach_of(UINTPTR_MAX - 0x1000);
	cr_expect_eq(a.upper, UINTPTR_MAX);
}

Test(arena, slots)
{
	enum { SLOTS = 10000 };
	static uintptr_t slots[SLOTS];
	uintptr_t near = source_here();
	size_t i;

	/* More than one arena has. */
	for (i = 0; i < SLOTS; i++) {
		slots[i] = alloc_slot(near);
		cr_assert_neq(slots[i], 0);
		cr_assert_eq(*(uint64_t *)slots[i], 0);
		*(uint64_t *)slots[i] = 1;
		cr_assert_lt(near - slots[i], 0x7ff00000UL);
	}
	qsort(slots, SLOTS, sizeof(*slots), compare);
	for (i = 1; i < SLOTS; i++)
		cr_assert_geq(slots[i], slots[i - 1] + 8);
	/* One that is given back is the next one, and 0. */
	hook_slot_free(slots[7]);
	hook_slot_free(slots[8]);
	cr_assert_eq(alloc_slot(near), slots[8]);
	cr_assert_eq(alloc_slot(near), slots[7]);
	cr_assert_eq(*(uint64_t *)slots[7], 0);
	cr_assert_eq(*(uint64_t *)slots[8], 0);
	/* Another part of the address space has its own. */
	slots[0] = alloc_slot(near + (64UL << 30));
	cr_expect_neq(slots[0], 0);
	cr_expect(slots[0] - near > (60UL << 30) && slots[0] - near < (68UL << 30), "%#lx", slots[0]);
}

/* All that is near is taken: what may be far is, and what must be near is refused. */
Test(arena, nothing_near)
{
	const uintptr_t near = 0x300000000000;
	const size_t size = 0x110000000;
	void *taken = mmap((void *)(near - size / 2), size, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	struct arena_reach reach = arena_reach_of(near), everything = arena_reach_everything();
	struct arena_block block, other;
	uintptr_t slot;

	cr_assert_eq(taken, (void *)(near - size / 2));
	cr_expect_eq(alloc(64, near, reach, &block), PATCH_ENOMEM);
	cr_expect_eq(alloc_slot(near), 0);
	slot = hook_slot_alloc(near, everything);
	cr_assert_neq(slot, 0);
	cr_expect_eq(*(uint64_t *)slot, 0);
	*(uint64_t *)slot = 1;
	cr_expect(slot < reach.lower || slot > reach.upper, "%#lx", slot);
	cr_assert_eq(alloc(64, near, everything, &block), PATCH_OK);
	cr_expect(pc_map_contains(block.address));
	cr_expect(block.address < reach.lower || block.address > reach.upper, "%#lx", block.address);
	/* Any arena will do. */
	cr_assert_eq(alloc(64, near - (8UL << 30), everything, &other), PATCH_OK);
	cr_expect_lt(other.address - block.address, 4096);
	cr_expect_eq(munmap(taken, size), 0);
}

Test(arena, nothing_is_known_of_what_is_not_written)
{
	struct arena_block block;
	uintptr_t original, pad;

	cr_assert_eq(alloc(64, source_here(), arena_reach_of(source_here()), &block), PATCH_OK);
	cr_expect_not(pc_map_original(block.address, &original));
	cr_expect_not(pc_map_original(block.address + 20, &original));
	cr_expect_not(pc_map_original(block.address + block.size, &original));
	cr_assert_eq(pad_alloc(source_here(), 0, 0, everywhere(), &pad), PATCH_OK);
	cr_expect_not(pc_map_original(pad, &original));
}

/* ---- room that others will want --------------------------------------------------------------------------------- */

static uintptr_t stack_lower, stack_limit;
static uintptr_t program_break;

static bool check_gap(uintptr_t lower, uintptr_t upper, void *data)
{
	uintptr_t *last = data;

	cr_expect_lt(lower, upper);
	cr_expect_geq(lower, *last, "gaps ascend and do not overlap");
	*last = upper;
	cr_expect(upper <= program_break || lower >= program_break + (1UL << 30), "%#lx-%#lx is where the break grows",
		  lower, upper);
	cr_expect(upper <= stack_limit || lower >= stack_lower, "%#lx-%#lx is where the stack grows", lower, upper);
	return true;
}

static bool count_gap(uintptr_t lower, uintptr_t upper, void *data)
{
	(void)lower;
	(void)upper;
	return --*(int *)data > 0;
}

static void check_room(void)
{
	struct maps_mapping mapping;
	struct rlimit limit;
	uintptr_t last = 0;
	bool readable;

	gaps_forget();
	program_break = (uintptr_t)sbrk(0);
	cr_assert(maps_mapping((uintptr_t)__builtin_frame_address(0), &mapping, &readable));
	getrlimit(RLIMIT_STACK, &limit);
	stack_lower = mapping.lower;
	stack_limit = mapping.lower - MIN((uintptr_t)limit.rlim_cur, 1UL << 30);
	cr_expect(gaps_visit(check_gap, &last));
	cr_expect_neq(last, 0);
}

Test(space, gaps_leave_room)
{
	int left = 2;

	check_room();
	cr_expect(gaps_visit(count_gap, &left));
	cr_expect_eq(left, 0, "it stops when told");
}

/* The kernel keeps it to the byte, and maps whole pages. */
Test(space, gaps_leave_room_for_a_break_within_a_page)
{
	cr_assert_neq((intptr_t)sbrk(100), -1);
	cr_assert_neq((uintptr_t)sbrk(0) % PAGE_SIZE, 0);
	check_room();
}

struct gap_list {
	size_t count;
	struct {
		uintptr_t lower;
		uintptr_t upper;
	} gaps[512];
};

static bool list_gap(uintptr_t lower, uintptr_t upper, void *data)
{
	struct gap_list *list = data;

	if (lower == upper)
		return true;
	list->gaps[list->count].lower = lower;
	list->gaps[list->count].upper = upper;
	return ++list->count < ARRAY_SIZE(list->gaps);
}

/* At the beginning of a gap, in the middle, and at its end: what is remembered is what the kernel says. */
Test(space, gaps_are_remembered_less_what_is_mapped)
{
	static struct gap_list before, remembered, anew;

	gaps_forget();
	cr_expect(gaps_visit(list_gap, &before));
	for (size_t i = 0; i < before.count; ++i) {
		const uintptr_t lower = before.gaps[i].lower, upper = ALIGN_DOWN(before.gaps[i].upper, PAGE_SIZE);
		const uintptr_t places[] = { lower, ALIGN_DOWN(lower + (upper - lower) / 2, PAGE_SIZE),
					     upper - PAGE_SIZE };

		if (lower % PAGE_SIZE != 0 || upper - lower < 16 * PAGE_SIZE)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(places); ++k)
			cr_expect_eq(gaps_map(places[k], PAGE_SIZE, PROT_NONE), 0);
	}
	cr_expect(gaps_visit(list_gap, &remembered));
	gaps_forget();
	cr_expect(gaps_visit(list_gap, &anew));
	cr_expect_gt(anew.count, before.count);
	cr_assert_eq(anew.count, remembered.count);
	cr_expect(memcmp(anew.gaps, remembered.gaps, sizeof(anew.gaps)) == 0);
}

static uintptr_t only_page;

static void consider_only_page(struct gap_search *search, uintptr_t lower, uintptr_t upper)
{
	if (lower > only_page || upper < only_page + PAGE_SIZE)
		return;
	search->taken = PAGE_SIZE;
	search->lower = only_page;
	search->upper = only_page + PAGE_SIZE;
}

static long search_only_page(void)
{
	struct gap_search search = { .consider = consider_only_page, .size = PAGE_SIZE };
	const long error = gaps_search(&search, PAGE_SIZE, PROT_READ);

	cr_expect(error != 0 || search.lower == only_page);
	return error;
}

/* A gap that has come up since gaps were read is missed until memory was mapped, and then it is found. */
Test(space, gaps_are_read_anew)
{
	uint8_t *pages = mmap(NULL, 5 * PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(pages, MAP_FAILED);
	munmap(pages + 3 * PAGE_SIZE, PAGE_SIZE);
	gaps_forget();
	only_page = (uintptr_t)pages + PAGE_SIZE;
	cr_expect_eq(search_only_page(), -ENOMEM);
	munmap((void *)only_page, PAGE_SIZE);
	cr_expect_eq(search_only_page(), -ENOMEM);
	cr_expect_eq(gaps_map((uintptr_t)pages + 3 * PAGE_SIZE, PAGE_SIZE, PROT_READ), 0);
	cr_expect_eq(search_only_page(), 0);
	cr_expect_eq(search_only_page(), -ENOMEM, "it is taken");
}

/* What the kernel refuses is asked for by halves; what somebody else has taken, elsewhere. */
static size_t asked[16];
static unsigned int times;

static void consider_any(struct gap_search *search, uintptr_t lower, uintptr_t upper)
{
	if (search->taken != 0 || upper - lower < search->size)
		return;
	asked[times++ % ARRAY_SIZE(asked)] = search->size;
	search->taken = search->size;
	search->lower = lower;
	search->upper = lower + search->size;
}

Test(space, refused_memory_is_asked_for_by_halves)
{
	struct gap_search search = { .consider = consider_any, .size = 16 * PAGE_SIZE };
	struct rlimit limit = { 0, RLIM_INFINITY };

	gaps_forget();
	times = 0;
	cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
	cr_expect_eq(gaps_search(&search, 3 * PAGE_SIZE, PROT_READ), -ENOMEM);
	cr_expect_eq(times, 3);
	for (unsigned int i = 0; i < 3; ++i)
		cr_expect_eq(asked[i], 16 * PAGE_SIZE >> i);
	limit.rlim_cur = RLIM_INFINITY;
	setrlimit(RLIMIT_AS, &limit);
	search.size = 16 * PAGE_SIZE;
	/* Not in the same call of the library. */
	cr_expect_neq(gaps_search(&search, 3 * PAGE_SIZE, PROT_READ), 0);
	gaps_try_again();
	search.size = 16 * PAGE_SIZE;
	cr_expect_eq(gaps_search(&search, 3 * PAGE_SIZE, PROT_READ), 0);
	cr_expect_eq(search.upper - search.lower, 16 * PAGE_SIZE);
}

/* The heap grows through brk() as far as before, whatever was placed. */
Test(space, program_break_grows_after_placing)
{
	uintptr_t start = (uintptr_t)sbrk(0), source, pad;
	struct arena_block block;
	uint32_t mask, value;
	unsigned int boundaries, k;

	for (boundaries = 0; boundaries < 8; boundaries++) {
		pattern_of(boundaries, &mask, &value);
		for (k = 0; k < 50; k++) {
			source = start + k * (3UL << 20);
			cr_assert_eq(pad_alloc(source, mask, value, arena_reach_of(source), &pad), PATCH_OK);
			cr_expect(pad < start || pad >= start + (1UL << 30), "%#lx is in the way of %#lx", pad, start);
		}
	}
	/* Even when nothing else would do. */
	cr_expect_eq(alloc(64, start, (struct arena_reach){ start, start + (1UL << 30) }, &block), PATCH_ENOMEM);
	cr_expect_neq(sbrk(512L << 20), (void *)-1);
	cr_expect_eq((uintptr_t)sbrk(0), start + (512UL << 20));
}

/* Not even when all that is reachable is below the stack. */
Test(space, main_stack_grows_after_placing)
{
	struct maps_mapping mapping;
	struct arena_block block;
	struct rlimit limit;
	uintptr_t room, pad;
	bool readable;

	cr_assert(maps_mapping((uintptr_t)environ, &mapping, &readable));
	getrlimit(RLIMIT_STACK, &limit);
	room = MIN((uintptr_t)limit.rlim_cur, 1UL << 30);
	cr_expect_eq(alloc(64, mapping.lower, (struct arena_reach){ mapping.lower - room, mapping.lower }, &block),
		     PATCH_ENOMEM);
	cr_expect_eq(pad_alloc(mapping.lower, 0, 0, (struct arena_reach){ mapping.lower - room, mapping.lower },
				     &pad),
		     PATCH_ENOMEM);
}

Test(space, what_is_mapped)
{
	struct maps_mapping mapping;
	bool readable;
	uint8_t *shared = mmap(NULL, 2 * PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(shared, MAP_FAILED);
	munmap(shared + PAGE_SIZE, PAGE_SIZE);
	cr_assert(maps_mapping((uintptr_t)shared, &mapping, &readable));
	cr_expect(mapping.shared && mapping.protection == PROT_READ && !mapping.special);
	cr_assert(maps_mapping((uintptr_t)&source_here, &mapping, &readable));
	cr_expect(!mapping.shared && mapping.protection == (PROT_READ | PROT_EXEC) && !mapping.special);
	cr_expect_not(maps_mapping(0x1000, &mapping, &readable));
	cr_expect(readable, "nothing is there, and that is known");
}

Test(space, mapping_never_replaces)
{
	uint8_t *taken = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(taken, MAP_FAILED);
	*taken = 0x5A;
	cr_expect_eq(gaps_map((uintptr_t)taken, PAGE_SIZE, PROT_READ), -EEXIST);
	cr_expect_eq(*taken, 0x5A);
	munmap(taken, PAGE_SIZE);
	cr_expect_eq(gaps_map((uintptr_t)taken, PAGE_SIZE, PROT_READ), 0);
	cr_expect_eq(*taken, 0);
}
