/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of each phase. Pure: computed from the region and from what is in the text, as the caller gives it; nothing
 * here reads or writes live text.
 */
#include "commit/phase.h"

#include "arch/trap_bytes.h"
#include "code/trampoline.h"

#include <libpatch/patch.h>
#include <string.h>

/* A site that stays a trap begins with an int3, whatever its length: users rely on that. */
static uint8_t phase_trap_byte(const struct region *region, unsigned int i)
{
	return region->strategy == PATCH_STRATEGY_TRAP ? ARCH_INT3 : window_trap_byte(region->offsets, i);
}

REQUIRES(library_lock)
void phase_final_bytes(const struct region *region, bool install, uint8_t *bytes)
{
	memcpy(bytes, region->original, region->length);
	if (!install)
		return;
	for (unsigned int i = 0; i < region->count && !region_is_plain(region); ++i)
		if (region->strategy != PATCH_STRATEGY_TRAP || region_is_hooked(region, region->offsets[i]))
			bytes[region->offsets[i]] = phase_trap_byte(region, i);
	/* Where the jump's bytes are on boundaries, they are trap bytes: trampoline_find_pad() saw to it. */
	if (region->strategy != PATCH_STRATEGY_TRAP)
		memcpy(bytes, region_trampoline(region)->jump, MIN(region->length, ARCH_JMP_SIZE));
}

static bool phase_is_trap(uint8_t byte)
{
	return arch_trap_class(byte) != ARCH_TRAP_NONE;
}

/*
 * Phase 0 cuts punned jumps. A jump that is not there any more, because its original byte was put back, is left alone.
 */
void phase_0_bytes(const struct region *region, const uint8_t *live, uint8_t *bytes)
{
	memcpy(bytes, live, region->length);
	for (unsigned int i = 0; i < region->count; ++i)
		if (region->entries[i]->punned && bytes[region->offsets[i]] != region->original[region->offsets[i]])
			bytes[region->offsets[i]] = window_trap_byte(region->offsets, i);
}

/* Has instruction i bytes behind its first one that are not original? Then only its first byte was put back. */
static bool phase_has_strange_tail(const struct region *region, const uint8_t *live, unsigned int i)
{
	unsigned int at = region->offsets[i] + 1U;

	return memcmp(live + at, region->original + at, region->offsets[i + 1] - at) != 0;
}

/*
 * Phase 1 puts trap bytes on the first byte and on every boundary; on a boundary without one it puts the final trap
 * byte (I4). A removal puts them only on instructions that are not original: when a region took another one in, that
 * one's first byte may be all that was ever installed.
 */
static uint8_t phase_trap_for(const struct region *region, bool install, const uint8_t *live, const uint8_t *final,
			      unsigned int i)
{
	/* A removal puts the byte whose class the entry has from when the jump was installed. */
	uint8_t trap = install ? phase_trap_byte(region, i) : window_trap_byte(region->offsets, i);
	unsigned int at = region->offsets[i];

	if (install && at == 0)
		return trap;
	if (phase_is_trap(live[at]))
		return live[at];
	if (install && phase_is_trap(final[at]))
		return final[at];
	return live[at] != region->original[at] || phase_has_strange_tail(region, live, i) ? trap : live[at];
}

static void phase_1_bytes(const struct region *region, bool install, const uint8_t *live, const uint8_t *final,
			  uint8_t *bytes)
{
	memcpy(bytes, live, region->length);
	for (unsigned int i = 0; i < region->count; ++i)
		bytes[region->offsets[i]] = phase_trap_for(region, install, live, final, i);
}

/*
 * Phase 2 writes every byte but the first one and boundaries that are to hold no trap byte: phase 3 writes both (I2).
 */
static void phase_2_bytes(const struct region *region, bool install, const uint8_t *live, const uint8_t *final,
			  uint8_t *bytes)
{
	memcpy(bytes, final, region->length);
	bytes[0] = live[0];
	for (unsigned int i = 1; i < region->count; ++i) {
		unsigned int at = region->offsets[i];

		if (!install || !phase_is_trap(final[at]))
			bytes[at] = live[at];
	}
}

/* Phase 3 writes the first byte and the other boundaries. A punned jump keeps its trap byte until phase 4. */
static void phase_3_bytes(const struct region *region, bool install, const uint8_t *final, uint8_t *bytes)
{
	memcpy(bytes, final, region->length);
	if (install && region->strategy == PATCH_STRATEGY_PUNNED_JUMP)
		bytes[0] = phase_trap_byte(region, 0);
}

REQUIRES(library_lock)
bool phase_texts(const struct region *region, bool install, uint8_t *texts)
{
	const uint8_t *live = texts;
	uint8_t *after_1 = texts + region->length;
	uint8_t *after_2 = after_1 + region->length;
	uint8_t *after_3 = after_2 + region->length;
	uint8_t final[WINDOW_LENGTH_MAX];

	phase_final_bytes(region, install, final);
	phase_1_bytes(region, install, live, final, after_1);
	phase_2_bytes(region, install, after_1, final, after_2);
	phase_3_bytes(region, install, final, after_3);
	return memcmp(final, live, region->length) != 0;
}

REQUIRES(library_lock)
bool phase_is_one_instruction(const struct region *region, bool install, const uint8_t *live)
{
	uint8_t final[WINDOW_LENGTH_MAX];

	phase_final_bytes(region, install, final);
	return memcmp(final + region->offsets[1], live + region->offsets[1], region->length - region->offsets[1]) == 0;
}

REQUIRES(library_lock)
bool phase_changes_text(const struct region *region, bool install)
{
	uint8_t final[WINDOW_LENGTH_MAX];

	phase_final_bytes(region, install, final);
	return memcmp(final, region->live, region->length) != 0;
}
