/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starts, branches and their targets of one function at a time. The long way decodes it; the short way, which answers
 * most questions of targets, looks for displacements that would lead to the address, and may only err on the side of
 * decoding.
 */
#include "plan/scan.h"

#include "arch/insn.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "patch/original.h"
#include "sys/mem_read.h"

#include <string.h>

#define FUNCTION_MAX (4UL << 20)

/* Bit i of `near_targets`: branches may lead to near_lower + i. */
#define NEAR 32

static struct scanned {
	struct scan_function function;
	enum { UNKNOWN, DECODED, REFUSED } decoded;
	/* Bit per byte of the function. */
	uint64_t *starts;
	uint64_t *targets;
	size_t words;
	struct scan_branch *branches;
	size_t room;
	uintptr_t near_lower;
	uint32_t near_targets;
} kept[4];
static struct scanned *at_hand = kept;
static bool is_readable; /* the function's code, now */
static bool is_original; /* the text is what it was without patches, and may be read as it is */

static void scan_set_bit(uint64_t *bits, uintptr_t offset)
{
	bits[offset / 64] |= (uint64_t)1 << (offset % 64);
}

static bool scan_is_inside(uintptr_t address)
{
	return address >= at_hand->function.lower && address < at_hand->function.upper;
}

static bool scan_get_bit(const uint64_t *bits, uintptr_t address)
{
	uintptr_t offset = address - at_hand->function.lower;

	return bits[offset / 64] >> (offset % 64) & 1;
}

static void scan_begin(struct scanned *scanned, uintptr_t lower, uintptr_t upper)
{
	scanned->function = (struct scan_function){ .lower = lower, .upper = upper };
	scanned->decoded = UNKNOWN;
	scanned->near_lower = 0;
}

void scan_set(uintptr_t lower, uintptr_t upper)
{
	is_readable = mem_is_readable(lower, upper);
	is_original = is_readable && original_is_in_place(lower, upper);
	for (size_t i = 0; i < ARRAY_SIZE(kept); ++i) {
		if (kept[i].function.lower == lower && kept[i].function.upper == upper) {
			at_hand = &kept[i];
			return;
		}
	}
	/* In turns: the one at hand stays the longest. */
	at_hand = at_hand == &kept[ARRAY_SIZE(kept) - 1] ? kept : at_hand + 1;
	scan_begin(at_hand, lower, upper);
}

void scan_forget(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(kept); ++i)
		scan_begin(&kept[i], 0, 0);
}

/* ---- without decoding ------------------------------------------------------------------------------------------- */

struct __attribute__((packed, may_alias)) unaligned32 {
	int32_t value;
};

struct __attribute__((packed, may_alias)) unaligned64 {
	uint64_t value;
};

#define SHORT_REACH 130
/* Displacements of less have upper halves that are all ones, or all zeros. */
#define HALF_REACH (1UL << 16)

/* The bit of the target of a displacement of 32 bits at `at`, whatever is in front of it. */
static inline uint32_t scan_look(uintptr_t at, uintptr_t near)
{
	uintptr_t target = at + 4 + (intptr_t)((const struct unaligned32 *)at)->value - near;

	return target < NEAR ? 1U << target : 0;
}

static uint32_t scan_look_from(uintptr_t at, uintptr_t end, uintptr_t near)
{
	uint32_t found = 0;

	for (; at < end; ++at)
		found |= scan_look(at, near);
	return found;
}

/*
 * Displacements in [at, end), all of them backwards to `near`, or all forwards. Only where the two upper bytes say that
 * it does not go far is one looked at: eight at a time, this is the longest part of making a patch.
 */
static uint32_t scan_look_at_halves(uintptr_t at, uintptr_t end, uintptr_t near, bool backwards)
{
	uint64_t sign = backwards ? ~(uint64_t)0 : 0;
	uint32_t found = 0;

	for (; end - at >= 8; at += 8) {
		uint64_t upper = (((const struct unaligned64 *)(at + 2))->value ^ sign) |
				 (((const struct unaligned64 *)(at + 3))->value ^ sign);

		if (bytes_have_zero(upper))
			found |= scan_look_from(at, at + 8, near);
	}
	return found | scan_look_from(at, end, near);
}

/* Branches with 8 bits whose opcodes are in [at, end). */
static uint32_t scan_look_at_shorts(uintptr_t at, uintptr_t end, uintptr_t near)
{
	uint32_t found = 0;

	while (at < end) {
		uintptr_t next = MIN(at + 8, end);

		/* By arch_may_be_short_branch(), eight at a time. */
		if (end - at >= 8) {
			uint64_t word = ((const struct unaligned64 *)at)->value;

			if (!arch_may_have_short_branch(word)) {
				at = next;
				continue;
			}
		}
		for (; at < next; ++at) {
			uintptr_t target = at + 2 + *(const int8_t *)(at + 1) - near;

			if (target < NEAR && arch_may_be_short_branch(*(const uint8_t *)at))
				found |= 1U << target;
		}
	}
	return found;
}

/*
 * Every byte of the function as if a displacement began there: of 32 bits, whatever is in front; of 8 bits, only behind
 * a byte that may be an opcode of such a branch. That some are no branches does not matter.
 */
static uint32_t scan_find_near_targets(uintptr_t near)
{
	uintptr_t lower = at_hand->function.lower;
	uintptr_t upper = at_hand->function.upper;
	uintptr_t end = MAX(upper - 3, lower); /* of displacements that lie in the function */
	uintptr_t front = MIN(MAX(near - 4, lower), end);
	uintptr_t behind = MIN(MAX(near + NEAR, lower), end);
	uintptr_t short_lower = MAX(lower, near - SHORT_REACH);
	uintptr_t short_upper = MIN(upper, near + NEAR + SHORT_REACH);
	uint32_t found = 0;

	if (upper - lower < HALF_REACH - 2 * NEAR)
		found = scan_look_at_halves(lower, front, near, false) | scan_look_from(front, behind, near) |
			scan_look_at_halves(behind, end, near, true);
	else
		found = scan_look_from(lower, end, near);
	if (short_lower < short_upper)
		found |= scan_look_at_shorts(short_lower, short_upper - 1, near);
	return found;
}

static bool scan_may_be_target(uintptr_t address)
{
	/* What the library wrote is not what the program branches by. */
	if (!is_original)
		return true;
	if (at_hand->near_lower == 0 || address < at_hand->near_lower || address >= at_hand->near_lower + NEAR) {
		/* Most questions that follow are about addresses behind this one, some about addresses in front. */
		at_hand->near_lower = address - NEAR / 4;
		at_hand->near_targets = scan_find_near_targets(at_hand->near_lower);
	}
	return at_hand->near_targets >> (address - at_hand->near_lower) & 1;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static bool scan_make_room(struct scanned *scanned, size_t needed) REQUIRES(library_lock)
{
	if (needed <= scanned->words) {
		memset(scanned->starts, 0, needed * sizeof(*scanned->starts));
		memset(scanned->targets, 0, needed * sizeof(*scanned->targets));
		return true;
	}
	heap_free(scanned->starts, scanned->words * sizeof(*scanned->starts));
	heap_free(scanned->targets, scanned->words * sizeof(*scanned->targets));
	scanned->words = 0;
	scanned->starts = heap_alloc(needed * sizeof(*scanned->starts));
	scanned->targets = scanned->starts != NULL ? heap_alloc(needed * sizeof(*scanned->targets)) : NULL;
	if (scanned->targets == NULL) {
		heap_free(scanned->starts, needed * sizeof(*scanned->starts));
		scanned->starts = NULL;
		return false;
	}
	scanned->words = needed;
	return true;
}

static bool scan_is_branch(const struct arch_insn *insn)
{
	return insn->kind == ARCH_RET || insn->kind == ARCH_JMP_IND ||
	       (insn->rel_size != 0 && insn->kind != ARCH_CALL);
}

/* False: out of memory. */
static bool scan_add_branch(struct scanned *scanned, uintptr_t at, const uint8_t *bytes, const struct arch_insn *insn)
	REQUIRES(library_lock)
{
	const bool direct = insn->rel_size != 0;

	if (!heap_reserve(&scanned->branches, &scanned->room, scanned->function.count + 1, sizeof(struct scan_branch)))
		return false;
	scanned->branches[scanned->function.count++] = (struct scan_branch){
		.offset = (uint32_t)(at - scanned->function.lower),
		.displacement = direct ? (int32_t)(insn->target - at - insn->length) : 0,
		.length = insn->length,
		.kind = insn->kind,
		.far = !direct && arch_is_far(bytes, insn),
	};
	return true;
}

/* Skip plain instructions of a text that may be read as it is. */
static uintptr_t scan_skip_plain(struct scanned *scanned, uintptr_t at)
{
	struct scan_function *function = &scanned->function;

	while (is_original && function->upper - at >= INSN_MAX) {
		const size_t length = arch_plain_length((const uint8_t *)at);

		if (length == 0)
			break;
		scan_set_bit(scanned->starts, at - function->lower);
		function->last = at;
		function->falls = true;
		at += length;
	}
	return at;
}

REQUIRES(library_lock)
static bool scan_decode(struct scanned *scanned)
{
	struct scan_function *function = &scanned->function;
	uintptr_t lower = function->lower;
	uintptr_t upper = function->upper;

	function->falls = true;
	for (uintptr_t at = lower; (at = scan_skip_plain(scanned, at)) < upper;) {
		const uint8_t *bytes;
		struct arch_insn insn;
		size_t size = is_original ? 0 : original_view(at, &bytes);

		if (size == 0) {
			bytes = (const uint8_t *)at;
			size = MIN(upper - at, INSN_MAX);
		}
		/* Data among the code: step over it byte by byte until it looks like code again. */
		if (!arch_decode(bytes, size, at, &insn)) {
			if (function->undecodable == 0)
				function->undecodable = at;
			++at;
			continue;
		}
		scan_set_bit(scanned->starts, at - lower);
		if (scan_is_branch(&insn)) {
			if (!scan_add_branch(scanned, at, bytes, &insn))
				return false;
			if (insn.rel_size != 0 && insn.target >= lower && insn.target < upper)
				scan_set_bit(scanned->targets, insn.target - lower);
		}
		function->last = at;
		if (!(insn.flags & ARCH_F_NOP))
			function->falls = arch_runs_on(&insn);
		at += insn.length;
	}
	function->branches = scanned->branches;
	return true;
}

bool scan_function(void)
{
	struct scanned *scanned = at_hand;
	size_t size = scanned->function.upper - scanned->function.lower;

	if (!is_readable)
		return false;
	if (scanned->decoded != UNKNOWN)
		return scanned->decoded == DECODED;
	scanned->decoded = REFUSED;
	if (size > FUNCTION_MAX || !scan_make_room(scanned, (size + 63) / 64) || !scan_decode(scanned))
		return false;
	scanned->decoded = DECODED;
	return true;
}

const struct scan_function *scan_get(void)
{
	return scan_function() ? &at_hand->function : NULL;
}

bool scan_is_start(uintptr_t address)
{
	return scan_is_inside(address) && scan_function() && scan_get_bit(at_hand->starts, address);
}

bool scan_is_target(uintptr_t address)
{
	if (!scan_is_inside(address) || (at_hand->decoded == UNKNOWN && !scan_may_be_target(address)))
		return false;
	return scan_function() && scan_get_bit(at_hand->targets, address);
}
