/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The jump that leads from a window to its trampoline, directly or through a pad.
 */
#include "code/pad.h"
#include "code/trampoline_builder.h"

#include <string.h>

static void trampoline_write_jump(uint8_t bytes[ARCH_JMP_SIZE], uintptr_t from, uintptr_t to)
{
	uint32_t displacement = (uint32_t)(to - (from + ARCH_JMP_SIZE));

	bytes[0] = ARCH_JMP_REL32;
	memcpy(bytes + 1, &displacement, sizeof(displacement));
}

void trampoline_pad_bytes(const struct trampoline *trampoline, uintptr_t pad, uint8_t bytes[ARCH_JMP_SIZE])
{
	trampoline_write_jump(bytes, pad, trampoline_front(trampoline));
}

static bool trampoline_try_top(size_t index, uintptr_t source, uint32_t mask, uint32_t value, struct arena_reach reach,
			       uintptr_t *pad) REQUIRES(library_lock)
{
	uint8_t top = arch_top_trap_bytes[index];

	return pad_alloc(source, mask | 0xff000000U, value | (uint32_t)top << 24, reach, pad) == PATCH_OK;
}

/*
 * A pad for a jump whose bytes on boundaries must be trap bytes, of which only the top one has a choice, and whose
 * bytes behind the window are what they are.
 */
static patch_status trampoline_find_pad(const struct window *window, struct arena_reach reach, uintptr_t *pad)
	REQUIRES(library_lock)
{
	static size_t worked GUARDED_BY(library_lock);
	uintptr_t source = window->start + ARCH_JMP_SIZE;
	uint32_t mask = 0;
	uint32_t value = 0;
	uint8_t traps[4];
	size_t first;

	window_rel32_traps(window->offsets, window->count, traps);
	for (unsigned int i = 0; i < 4; ++i) {
		bool punned = i + 1 >= window->length;

		if (punned || (traps[i] && i < 3)) {
			mask |= 0xffU << (8 * i);
			value |= (uint32_t)(punned ? window->original[i + 1] : traps[i]) << (8 * i);
		}
	}
	if (!traps[3])
		return pad_alloc(source, mask, value, reach, pad);

	/*
	 * What last worked, if it may be here: the neighbours of a site have the same memory around them, and pads of
	 * one top byte share pages, which those of two would not.
	 */
	first = traps[3] == ARCH_INT3 ? 0 : 1;
	if (worked >= first && trampoline_try_top(worked, source, mask, value, reach, pad))
		return PATCH_OK;
	for (size_t i = first; i < arch_top_trap_byte_count; ++i) {
		if (i != worked && trampoline_try_top(i, source, mask, value, reach, pad)) {
			worked = i;
			return PATCH_OK;
		}
	}
	*pad = 0;
	return PATCH_ENOMEM;
}

bool trampoline_link_jump(struct trampoline *trampoline, struct window *window)
{
	const uintptr_t front = trampoline_front(trampoline);

	if (window->strategy == PATCH_STRATEGY_TRAP)
		return true;
	if (window->strategy == PATCH_STRATEGY_JUMP) {
		trampoline_write_jump(trampoline->jump, window->start, front);
		return true;
	}
	if (window->pad == 0 && trampoline_find_pad(window, arena_reach_of(front), &window->pad) != PATCH_OK)
		return false;
	trampoline_write_jump(trampoline->jump, window->start, window->pad);
	return true;
}

bool trampoline_find_pad_beyond(const struct trampoline *trampoline, struct window *window)
{
	const struct arena_reach reach = arena_reach_of(trampoline_front(trampoline));
	struct arena_reach beyond = arena_reach_everything();

	if (trampoline_front(trampoline) < window->start)
		beyond.lower = reach.upper;
	else
		beyond.upper = reach.lower;
	return trampoline_find_pad(window, beyond, &window->pad) == PATCH_OK;
}
