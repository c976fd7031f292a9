/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walks over the instructions of a range. x86 cannot be decoded backwards: a walk from the end decodes the range from
 * its start, twice, and notes where each instruction starts. So both walks take time in proportion to the range. This
 * file reads text, and does not decide what may be patched.
 */
#include "plan/range.h"

#include "arch/insn.h"
#include "base/heap.h"
#include "patch/original.h"

#define WORD_BITS 64

/* Text is read in pieces: each costs a system call. */
struct text_piece {
	uintptr_t lower;
	size_t size;
	uint8_t bytes[256];
};

static uintptr_t range_decode(struct text_piece *piece, uintptr_t at) REQUIRES(library_lock)
{
	struct arch_insn insn;

	if (at < piece->lower || at - piece->lower + INSN_MAX > piece->size) {
		piece->lower = at;
		piece->size = original_read(at, piece->bytes, sizeof(piece->bytes));
	}
	if (!arch_decode(piece->bytes + (at - piece->lower), piece->size - (at - piece->lower), at, &insn))
		return 0;
	return at + insn.length;
}

/* Decode from the start. Returns the end of what decodes, or the start of what does not. */
static uintptr_t range_pass(uintptr_t lower, uintptr_t upper, uint64_t *starts) REQUIRES(library_lock)
{
	struct text_piece piece = { .size = 0 };
	uintptr_t next;

	for (uintptr_t at = lower; at < upper; at = next) {
		if (starts != NULL)
			starts[(at - lower) / WORD_BITS] |= 1UL << (at - lower) % WORD_BITS;
		next = range_decode(&piece, at);
		if (next == 0)
			return at + 1;
	}
	return upper;
}

static size_t range_words(const struct range *range)
{
	return (range->upper - range->lower - 1) / WORD_BITS + 1;
}

bool range_begin(struct range *range, uintptr_t lower, uintptr_t upper, bool backward)
{
	*range = (struct range){ .lower = lower, .at = lower, .upper = upper };
	if (!backward)
		return true;
	range->upper = range_pass(lower, upper, NULL);
	range->at = range->upper;
	range->starts = heap_alloc(range_words(range) * sizeof(range->starts[0]));
	if (range->starts == NULL)
		return false;
	range_pass(lower, range->upper, range->starts);
	return true;
}

static bool range_next_backward(struct range *range, uintptr_t *address)
{
	size_t bits = range->at - range->lower;

	while (bits > 0) {
		size_t word = (bits - 1) / WORD_BITS;
		uint64_t left = range->starts[word] & ~0UL >> (WORD_BITS - 1 - (bits - 1) % WORD_BITS);

		if (left != 0) {
			*address = range->lower + word * WORD_BITS + (size_t)(WORD_BITS - 1 - __builtin_clzl(left));
			range->at = *address;
			return true;
		}
		bits = word * WORD_BITS;
	}
	return false;
}

bool range_next(struct range *range, uintptr_t *address)
{
	struct text_piece piece = { .size = 0 };

	if (range->starts != NULL)
		return range_next_backward(range, address);
	if (range->at >= range->upper)
		return false;
	*address = range->at;
	range->at = range_decode(&piece, range->at);
	if (range->at == 0)
		range->at = range->upper;
	return true;
}

void range_end(struct range *range)
{
	if (range->starts != NULL)
		heap_free(range->starts, range_words(range) * sizeof(range->starts[0]));
}
