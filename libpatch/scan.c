/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scan.h"

#include "arch/arch.h"
#include "heap.h"

#include <string.h>

#define FUNCTION_MAX (4UL << 20)

static uintptr_t scanned_lower;
static uintptr_t scanned_upper;
/* Bit per byte of the function. */
static uint64_t *starts;
static uint64_t *targets;
static size_t words;

static void set(uint64_t *bits, uintptr_t offset)
{
	bits[offset / 64] |= (uint64_t)1 << (offset % 64);
}

static bool get(const uint64_t *bits, uintptr_t address)
{
	uintptr_t offset = address - scanned_lower;

	return address >= scanned_lower && address < scanned_upper && (bits[offset / 64] >> (offset % 64) & 1);
}

bool scan_is_start(uintptr_t address)
{
	return get(starts, address);
}

bool scan_is_target(uintptr_t address)
{
	return get(targets, address);
}

void scan_forget(void)
{
	scanned_lower = 0;
	scanned_upper = 0;
}

static bool make_room(size_t needed)
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

static bool is_direct_branch(const struct arch_insn *insn)
{
	return insn->rel_size != 0 && insn->kind != ARCH_CALL;
}

bool scan_function(uintptr_t lower, uintptr_t upper, scan_original_fn *original)
{
	if (lower == scanned_lower && upper == scanned_upper)
		return true;
	scan_forget();
	if (upper - lower > FUNCTION_MAX || !make_room((upper - lower + 63) / 64))
		return false;

	for (uintptr_t at = lower; at < upper;) {
		const uint8_t *bytes;
		struct arch_insn insn;
		size_t size = original(at, &bytes);

		if (size == 0) {
			bytes = (const uint8_t *)at;
			size = MIN(upper - at, INSN_MAX);
		}
		/* Data among the code: step over it byte by byte until it looks like code again. */
		if (!arch_decode(bytes, size, at, &insn)) {
			++at;
			continue;
		}
		set(starts, at - lower);
		if (is_direct_branch(&insn) && insn.target >= lower && insn.target < upper)
			set(targets, insn.target - lower);
		at += insn.length;
	}
	scanned_lower = lower;
	scanned_upper = upper;
	return true;
}
