/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Candidates against regions that are there: what is taken in, what a window grows by, what is given way to, and the
 * reason when nothing is left. No text is written, and no region gets a trampoline.
 */
#include "bytes.h"

#include "arch/trap_bytes.h"
#include "plan/candidates.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#define ALLOW PATCH_TRAP_POLICY_ALLOW
#define FORBID PATCH_TRAP_POLICY_FORBID
#define FORCE PATCH_TRAP_POLICY_FORCE
#define UNUSED (-1) /* in place of a policy: the region has no patch */
#define JUMP PATCH_STRATEGY_CONSTRAINED_JUMP
#define TRAP PATCH_STRATEGY_TRAP
#define PUNNED PATCH_STRATEGY_PUNNED_JUMP

/* Its offsets are those of the tests. Around it is padding, but no test lets a window begin there. */
static const uint8_t function[] = {
	0xB8, 0x78, 0x56, 0x34, 0x12,             /*  0: mov eax, 0x12345678 */
	0x89, 0xF8,                               /*  5: mov eax, edi */
	0x31, 0xF0,                               /*  7: xor eax, esi */
	0x48, 0x8D, 0x47, 0x04,                   /*  9: lea rax, [rdi + 4] */
	0x53,                                     /* 13: push rbx */
	0x48, 0x89, 0xF8,                         /* 14: mov rax, rdi */
	0x5B,                                     /* 17: pop rbx */
	0x48, 0x81, 0xC4, 0x08, 0x00, 0x00, 0x00, /* 18: add rsp, 8 */
	0xC3,                                     /* 25: ret */
};
#define END 26

static uint8_t *code;
static struct extent extent;
static struct candidates candidates;
static struct refusal refusal;

static uintptr_t at(unsigned int offset)
{
	return (uintptr_t)code + offset;
}

static void begin(void)
{
	uint8_t *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(page, MAP_FAILED);
	memset(page, ARCH_INT3, PAGE_SIZE);
	code = page + 256;
	memcpy(code, function, sizeof(function));
	extent = (struct extent){ .lower = at(0),
				  .upper = at(END),
				  .limit = UINTPTR_MAX,
				  .barrier = UINTPTR_MAX,
				  .mapped = (uintptr_t)page + PAGE_SIZE };
}

TestSuite(candidates, .init = begin);

#define OFFSETS(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ })

/* A region at `start`, with one patch on its first instruction. */
static struct region *place(unsigned int start, uint8_t strategy, int policy, const uint8_t *offsets, size_t count)
{
	/* Each patch with one attachment behind it. */
	static struct {
		struct patch patch;
		uint8_t attachment[sizeof(struct attachment)];
	} patches[8];
	static size_t patch_count;
	const struct window window = { .start = at(start),
				       .length = offsets[count - 1],
				       .count = (uint8_t)(count - 1),
				       .strategy = strategy,
				       .offsets = offsets,
				       .original = code + start };
	struct region *region = region_create(&window, false);

	cr_assert(region != NULL && region_make_entries(region));
	region_own_entries(region);
	if (policy != UNUSED) {
		struct patch *patch = &patches[patch_count++].patch;

		patch->policy = (uint8_t)policy;
		patch->count = 1;
		patch->attachments[0] = (struct attachment){ .patch = patch, .address = at(start) };
		region_append(region, &patch->attachments[0]);
	}
	return region;
}

/* From now on no window may have a boundary there: control is led there, time and again. */
static void make_hot(unsigned int offset)
{
	struct registry_entry *entry = registry_add(at(offset));

	cr_assert_not_null(entry);
	registry_set_hot(entry);
}

static void search_with(unsigned int site, int policy, uintptr_t from, const struct region *through)
{
	cr_assert_eq(candidates_begin(&candidates, &extent, at(site), policy, from, through, &refusal), PATCH_OK);
}

static void search(unsigned int site, int policy)
{
	search_with(site, policy, 0, NULL);
}

/* The next candidate is such a window, and takes in so many regions. */
static void expect(unsigned int start, uint8_t strategy, size_t inner, const uint8_t *offsets, size_t count)
{
	const struct plan *plan = &candidates.plan;
	patch_status status = candidates_next(&candidates, &refusal);

	cr_assert_eq(status, PATCH_OK, "status %d: %s", status, refusal.message);
	cr_expect_eq(plan->start - at(0), start, "starts at %ld, not %u", (long)(plan->start - at(0)), start);
	cr_expect_eq(plan->strategy, strategy, "strategy %u, not %u", plan->strategy, strategy);
	bytes_expect("offsets", plan->offsets, plan->count + 1U, offsets, count);
	cr_expect_eq(candidates.inner_count, inner, "%zu regions, not %zu", candidates.inner_count, inner);
	cr_expect_eq(memcmp(candidates.original, code + plan->start - at(0), plan->length), 0);
}

/* There is no candidate any more. */
static void expect_none(patch_status wanted, const char *message, unsigned int irritant)
{
	patch_status status = candidates_next(&candidates, &refusal);

	cr_assert_eq(status, wanted, "status %d, not %d", status, wanted);
	cr_expect_str_eq(refusal.message, message);
	cr_expect_eq(refusal.irritant, at(irritant), "is about %ld, not %u", (long)(refusal.irritant - at(0)),
		     irritant);
}

static void reject(patch_status status, const char *message)
{
	candidates_reject(&candidates, status, &(struct refusal){ message, at(0) });
}

/* ---- what a window takes in ------------------------------------------------------------------------------------- */

Test(candidates, nothing_around)
{
	search(5, ALLOW);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
}

Test(candidates, regions_inside_are_taken_in)
{
	struct region *first = place(5, TRAP, ALLOW, OFFSETS(0, 2));
	struct region *second = place(7, JUMP, ALLOW, OFFSETS(0, 2, 6));

	search(5, ALLOW);
	expect(5, JUMP, 2, OFFSETS(0, 2, 4, 8));
	cr_expect_eq(candidates.inner[0], first);
	cr_expect_eq(candidates.inner[1], second);
}

/* There it must not end: then it is a trap, as it is where no region is. */
Test(candidates, cannot_grow_to_the_end_of_a_region)
{
	extent.floor = at(7);
	place(9, JUMP, FORBID, OFFSETS(0, 4, 5));
	make_hot(13);
	search(7, ALLOW);
	expect(7, TRAP, 0, OFFSETS(0, 2));
}

Test(candidates, grows_to_the_end_of_a_region)
{
	place(9, JUMP, ALLOW, OFFSETS(0, 4, 5));
	search(5, ALLOW);
	expect(5, JUMP, 1, OFFSETS(0, 2, 4, 8, 9));
	/* The next one, in front of the site, need not reach so far. */
	reject(PATCH_ENOMEM, "no memory");
	expect(0, JUMP, 0, OFFSETS(0, 5, 7));
}

Test(candidates, grows_back_to_the_start_of_a_region)
{
	place(7, JUMP, ALLOW, OFFSETS(0, 2, 6));
	make_hot(17);
	search(14, ALLOW);
	/* From 9, which is inside that region. */
	expect(7, JUMP, 1, OFFSETS(0, 2, 6, 7, 10));
	/* The next one need not begin there. */
	reject(PATCH_ECONF, "in the way");
	expect(14, TRAP, 0, OFFSETS(0, 3));
}

/* Once, and only where it was memory that was missing. */
Test(candidates, begin_anew_with_the_break_room)
{
	place(7, JUMP, ALLOW, OFFSETS(0, 2, 6));
	make_hot(17);
	search(14, ALLOW);
	expect(7, JUMP, 1, OFFSETS(0, 2, 6, 7, 10));
	reject(PATCH_ENOMEM, "no memory");
	expect(7, JUMP, 1, OFFSETS(0, 2, 6, 7, 10));
	reject(PATCH_ENOMEM, "no memory");
	expect(14, TRAP, 0, OFFSETS(0, 3));
	candidates_end(&candidates);
}

Test(candidates, begins_where_it_must)
{
	search_with(9, FORBID, at(5), NULL);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
}

Test(candidates, a_region_that_is_looked_through)
{
	struct region *region = place(9, TRAP, FORCE, OFFSETS(0, 4));

	search_with(5, FORBID, 0, region);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
	/* What it owns is not in the way either. */
	search_with(7, FORBID, 0, region);
	expect(7, JUMP, 0, OFFSETS(0, 2, 6));
}

/* ---- regions without patches ------------------------------------------------------------------------------------ */

Test(candidates, an_unused_region_gives_way)
{
	place(7, TRAP, UNUSED, OFFSETS(0, 2));
	search(5, ALLOW);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
	cr_expect_null(region_at(at(7)));
}

/* It begins in front of the window, and is met by what its last bytes are. */
Test(candidates, an_unused_region_in_front_gives_way)
{
	place(0, JUMP, UNUSED, OFFSETS(0, 5, 7));
	search(5, ALLOW);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
	cr_expect_null(region_at(at(0)));
}

/* A trap's window is two bytes here, but a jump's bytes are what is looked at. */
Test(candidates, an_unused_region_behind_a_trap_gives_way)
{
	place(9, TRAP, UNUSED, OFFSETS(0, 4));
	search(5, FORCE);
	expect(5, TRAP, 0, OFFSETS(0, 2));
	cr_expect_null(region_at(at(9)));
}

Test(candidates, an_unused_region_with_the_same_window_stays)
{
	struct region *region = place(5, JUMP, UNUSED, OFFSETS(0, 2, 4, 8));

	search(5, ALLOW);
	expect(5, JUMP, 1, OFFSETS(0, 2, 4, 8));
	cr_expect_eq(candidates.inner[0], region);
}

/* ---- what cannot be taken in ------------------------------------------------------------------------------------ */

/* The punned jump at 5 reads the first byte of the instruction at 9. */
Test(candidates, bytes_that_a_punned_jump_reads)
{
	struct region *region = place(5, PUNNED, ALLOW, OFFSETS(0, 2, 4));

	search(9, ALLOW);
	expect(5, JUMP, 1, OFFSETS(0, 2, 4, 8));
	/* Nothing in front of the instruction may be changed: neither by a jump nor by a trap. */
	extent.floor = at(9);
	search(9, ALLOW);
	expect_none(PATCH_ECONF, "the bytes are part of another patch's jump", 5);
	search_with(9, ALLOW, 0, region);
	expect(9, JUMP, 0, OFFSETS(0, 4, 5));
}

Test(candidates, bytes_that_a_punned_jump_would_read)
{
	extent.floor = at(5);
	make_hot(9);
	search(5, ALLOW);
	expect(5, PUNNED, 0, OFFSETS(0, 2, 4));
}

Test(candidates, bytes_of_others_are_not_read)
{
	extent.floor = at(5);
	make_hot(9);
	place(9, JUMP, ALLOW, OFFSETS(0, 4, 5));
	search(5, ALLOW);
	expect(5, TRAP, 0, OFFSETS(0, 2));
}

/* But those that it reads itself. */
Test(candidates, bytes_of_the_same_region_are_read)
{
	extent.floor = at(5);
	make_hot(9);
	place(5, PUNNED, ALLOW, OFFSETS(0, 2, 4));
	search(5, ALLOW);
	expect(5, PUNNED, 1, OFFSETS(0, 2, 4));
}

Test(candidates, a_region_that_must_be_a_trap)
{
	extent.floor = at(5);
	place(7, TRAP, FORCE, OFFSETS(0, 2));
	search(5, FORBID);
	expect_none(PATCH_ECONF, "the bytes belong to a patch that must be resident as a trap", 7);
	search(5, ALLOW);
	expect(5, TRAP, 0, OFFSETS(0, 2));
}

/* The instruction at 8 is another one than those of the window. */
Test(candidates, regions_of_other_instructions)
{
	extent.floor = at(5);
	place(8, TRAP, ALLOW, OFFSETS(0, 1));
	search(5, FORBID);
	expect_none(PATCH_EBOUNDARY, "patched instructions around it start at other addresses", 5);
	search(5, ALLOW);
	expect(5, TRAP, 0, OFFSETS(0, 2));
	search(7, FORCE);
	expect_none(PATCH_EBOUNDARY, "the instruction overlaps patched ones that start at other addresses", 8);
}

Test(candidates, a_trap_on_a_region_of_that_instruction)
{
	place(7, TRAP, ALLOW, OFFSETS(0, 2));
	search(7, FORCE);
	expect(7, TRAP, 1, OFFSETS(0, 2));
}

/* Larger ones are not for a trap. */
Test(candidates, a_trap_on_a_region_of_more)
{
	place(7, JUMP, ALLOW, OFFSETS(0, 2, 6));
	search(7, FORCE);
	expect_none(PATCH_EBOUNDARY, "the instruction overlaps patched ones that start at other addresses", 7);
}

/* ---- bytes of others (I8) --------------------------------------------------------------------------------------- */

#define FOREIGN "an int3 that libpatch did not write is within the bytes of a jump"

Test(candidates, an_int3_in_the_window)
{
	extent.floor = at(9);
	code[13] = ARCH_INT3;
	search(9, FORBID);
	expect_none(PATCH_ECHANGED, FOREIGN, 13);
	search(9, ALLOW);
	expect(9, TRAP, 0, OFFSETS(0, 4));
}

Test(candidates, an_int3_that_a_punned_jump_would_read)
{
	extent.floor = at(5);
	make_hot(9);
	code[9] = ARCH_INT3;
	search(5, ALLOW);
	expect(5, TRAP, 0, OFFSETS(0, 2));
}

Test(candidates, an_int3_behind_the_function_is_padding)
{
	extent.floor = at(25);
	search(25, FORBID);
	expect(25, JUMP, 0, OFFSETS(0, 1, 2, 3, 4, 5));
}

/* Where the next function begins there is none: neither in the window, nor in what a jump is made of. */
Test(candidates, an_int3_where_the_next_function_begins)
{
	extent.floor = at(9);
	extent.upper = extent.limit = at(13);
	code[13] = ARCH_INT3;
	search(9, ALLOW);
	expect(9, TRAP, 0, OFFSETS(0, 4));
	search(9, FORBID);
	expect_none(PATCH_ECHANGED, FOREIGN, 13);
}

/* Where the function ends is not known: then by whether control gets there. */
Test(candidates, an_int3_where_the_end_is_unknown)
{
	extent.lower = extent.upper = 0;
	extent.no_rmw = true; /* no punned jump */
	memcpy(code + END + 1, function + 9, 4);
	search(25, FORBID);
	expect(25, JUMP, 0, OFFSETS(0, 1, 2, 6));
	code[18] = ARCH_INT3;
	search(17, FORBID);
	expect_none(PATCH_ECHANGED, FOREIGN, 18);
}

/* ---- which reason ----------------------------------------------------------------------------------------------- */

Test(candidates, the_first_reason_counts)
{
	extent.floor = at(5);
	search(5, FORBID);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
	reject(PATCH_ENOMEM, "first");
	while (candidates_next(&candidates, &refusal) == PATCH_OK)
		reject(PATCH_ESYS, "another");
	expect_none(PATCH_ENOMEM, "first", 0);
}

Test(candidates, but_where_a_trap_was_tried_last)
{
	extent.floor = at(5);
	search(5, ALLOW);
	expect(5, JUMP, 0, OFFSETS(0, 2, 4, 8));
	reject(PATCH_ENOMEM, "first");
	while (candidates_next(&candidates, &refusal) == PATCH_OK)
		reject(candidates.plan.strategy == TRAP ? PATCH_EBLOCKED : PATCH_ESYS, "last");
	expect_none(PATCH_EBLOCKED, "last", 0);
}

/* ---- what is there ---------------------------------------------------------------------------------------------- */

Test(candidates, nothing_is_there)
{
	munmap((void *)ALIGN_DOWN((uintptr_t)code, PAGE_SIZE), PAGE_SIZE);
	cr_expect_eq(candidates_begin(&candidates, &extent, at(5), ALLOW, 0, NULL, &refusal), PATCH_EFAULT);
	cr_expect_str_eq(refusal.message, "the address is not mapped");
	cr_expect_eq(refusal.irritant, at(5));
}

/* Of an unknown function nothing in front of the site is known to be an instruction. */
Test(candidates, nothing_in_front_is_known)
{
	extent.lower = extent.upper = 0;
	extent.mapped = 0;
	make_hot(17);
	search(14, ALLOW);
	expect(14, TRAP, 0, OFFSETS(0, 3));
}
