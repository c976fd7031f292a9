/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starts and branch targets of one function at a time. The long way decodes it; the short way, which answers most
 * questions, looks for displacements that would lead to the address, and may only err on the side of decoding.
 */
#include "plan/scan.h"

#include "arch/insn.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "patch/original.h"

#include <string.h>

#define FUNCTION_MAX (4UL << 20)

static uintptr_t scanned_lower;
static uintptr_t scanned_upper;
static bool is_original; /* the text is what it was without patches, and may be read as it is */
static enum { UNKNOWN, DECODED, REFUSED } decoded;
/* Bit per byte of the function. */
static uint64_t *starts;
static uint64_t *targets;
static size_t words;

/* Bit i: branches may lead to near_lower + i. */
#define NEAR 32
static uintptr_t near_lower;
static uint32_t near_targets;

static void scan_set_bit(uint64_t *bits, uintptr_t offset)
{
	bits[offset / 64] |= (uint64_t)1 << (offset % 64);
}

static bool scan_is_inside(uintptr_t address)
{
	return address >= scanned_lower && address < scanned_upper;
}

static bool scan_get_bit(const uint64_t *bits, uintptr_t address)
{
	uintptr_t offset = address - scanned_lower;

	return bits[offset / 64] >> (offset % 64) & 1;
}

static void scan_begin(uintptr_t lower, uintptr_t upper)
{
	scanned_lower = lower;
	scanned_upper = upper;
	decoded = UNKNOWN;
	near_lower = 0;
}

void scan_set(uintptr_t lower, uintptr_t upper)
{
	is_original = original_is_in_place(lower, upper);
	if (lower != scanned_lower || upper != scanned_upper)
		scan_begin(lower, upper);
}

void scan_forget(void)
{
	scan_begin(0, 0);
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
	uintptr_t lower = MAX(scanned_lower, near - SHORT_REACH);
	uintptr_t upper = MIN(scanned_upper, near + NEAR + SHORT_REACH);
	uintptr_t end = MAX(scanned_upper - 3, scanned_lower); /* of displacements that lie in the function */
	uintptr_t front = MIN(MAX(near - 4, scanned_lower), end);
	uintptr_t behind = MIN(MAX(near + NEAR, scanned_lower), end);
	uint32_t found = 0;

	if (scanned_upper - scanned_lower < HALF_REACH - 2 * NEAR)
		found = scan_look_at_halves(scanned_lower, front, near, false) | scan_look_from(front, behind, near) |
			scan_look_at_halves(behind, end, near, true);
	else
		found = scan_look_from(scanned_lower, end, near);
	if (lower < upper)
		found |= scan_look_at_shorts(lower, upper - 1, near);
	return found;
}

static bool scan_may_be_target(uintptr_t address)
{
	/* What the library wrote is not what the program branches by. */
	if (!is_original)
		return true;
	if (near_lower == 0 || address < near_lower || address >= near_lower + NEAR) {
		/* Most questions that follow are about addresses behind this one, some about addresses in front. */
		near_lower = address - NEAR / 4;
		near_targets = scan_find_near_targets(near_lower);
	}
	return near_targets >> (address - near_lower) & 1;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static bool scan_make_room(size_t needed) REQUIRES(library_lock)
{
	if (needed <= words) {
		memset(starts, 0, needed * sizeof(*starts));
		memset(targets, 0, needed * sizeof(*targets));
		return true;
	}
	heap_free(starts, words * sizeof(*starts));
	heap_free(targets, words * sizeof(*targets));
	words = 0;
	starts = heap_alloc(needed * sizeof(*starts));
	targets = starts != NULL ? heap_alloc(needed * sizeof(*targets)) : NULL;
	if (targets == NULL) {
		heap_free(starts, needed * sizeof(*starts));
		starts = NULL;
		return false;
	}
	words = needed;
	return true;
}

static bool scan_is_direct_branch(const struct arch_insn *insn)
{
	return insn->rel_size != 0 && insn->kind != ARCH_CALL;
}

REQUIRES(library_lock)
static void scan_decode(void)
{
	uintptr_t lower = scanned_lower;
	uintptr_t upper = scanned_upper;

	for (uintptr_t at = lower; at < upper;) {
		const uint8_t *bytes;
		struct arch_insn insn;
		size_t size = original_view(at, &bytes);

		if (size == 0) {
			bytes = (const uint8_t *)at;
			size = MIN(upper - at, INSN_MAX);
		}
		/* Data among the code: step over it byte by byte until it looks like code again. */
		if (!arch_decode(bytes, size, at, &insn)) {
			++at;
			continue;
		}
		scan_set_bit(starts, at - lower);
		if (scan_is_direct_branch(&insn) && insn.target >= lower && insn.target < upper)
			scan_set_bit(targets, insn.target - lower);
		at += insn.length;
	}
}

bool scan_function(void)
{
	if (decoded != UNKNOWN)
		return decoded == DECODED;
	decoded = REFUSED;
	if (scanned_upper - scanned_lower > FUNCTION_MAX || !scan_make_room((scanned_upper - scanned_lower + 63) / 64))
		return false;
	scan_decode();
	decoded = DECODED;
	return true;
}

bool scan_is_start(uintptr_t address)
{
	return scan_is_inside(address) && scan_function() && scan_get_bit(starts, address);
}

bool scan_is_target(uintptr_t address)
{
	if (!scan_is_inside(address) || (decoded == UNKNOWN && !scan_may_be_target(address)))
		return false;
	return scan_function() && scan_get_bit(targets, address);
}
