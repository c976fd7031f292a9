/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a pc in generated code to the instruction that it stands for: by the ranges of generated code, the granule table
 * of an arena and the rows of a block. Called in signal handlers: only memory is read, nothing locks or allocates.
 */
#include "code/pc_map.h"

#include "arch/emit.h"
#include "arch/trap_bytes.h"
#include "code/arena.h"
#include "code/code_ranges.h"

static bool pc_map_of_block(const struct code_range *range, uintptr_t pc, uintptr_t *original)
{
	size_t granule = (pc - range->lower) / ARENA_GRANULE;
	uint16_t back = range->granules[granule];
	const struct arch_row *row;
	uintptr_t block;

	if (back == ARENA_NO_BLOCK)
		return false;
	block = range->lower + (granule - back) * ARENA_GRANULE;
	row = (const struct arch_row *)(block + ARENA_BLOCK_ROWS);
	/* A block that is not written yet has no rows. */
	if (row->code == 0 || pc - block < row->code)
		return false;
	while (row[1].code <= pc - block && row[1].code != ARENA_ROW_END)
		++row;
	*original = *(const uint64_t *)block + row->original;
	return true;
}

bool pc_map_original(uintptr_t pc, uintptr_t *original)
{
	const struct code_range *range = code_ranges_find(pc);

	if (range == NULL)
		return false;
	if (range->granules == NULL) {
		/* A pad: one jump to the block that it serves. */
		if (*(const uint8_t *)pc != ARCH_JMP_REL32 || pc + ARCH_JMP_SIZE > range->upper)
			return false;
		pc += ARCH_JMP_SIZE + *(const int32_t *)(pc + 1);
		range = code_ranges_find(pc);
		if (range == NULL || range->granules == NULL)
			return false;
	}
	return pc_map_of_block(range, pc, original);
}

bool pc_map_contains(uintptr_t pc)
{
	return code_ranges_find(pc) != NULL;
}
