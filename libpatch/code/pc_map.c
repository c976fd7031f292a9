/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a pc in generated code to the instruction that it stands for: by the ranges of generated code, the granule table
 * of an arena and the rows of a block; and from a thread's registers there to those that the program is to see. Called
 * in signal handlers: only memory is read, nothing locks or allocates.
 */
#include "code/pc_map.h"

#include "arch/canonical.h"
#include "arch/cpu.h"
#include "arch/put_off.h"
#include "arch/thread_pointer.h"
#include "arch/trap_bytes.h"
#include "arch/upcalls.h"
#include "code/arena.h"
#include "code/code_ranges.h"

/* The rows of the block that the pc is in the code of, or NULL. */
static const struct arch_row *pc_map_rows(const struct code_range *range, uintptr_t pc, uintptr_t *block)
{
	size_t granule = (pc - range->lower) / ARENA_GRANULE;
	uint16_t back = range->granules[granule];
	const struct arch_row *rows;

	if (back == ARENA_NO_BLOCK)
		return NULL;
	*block = range->lower + (granule - back) * ARENA_GRANULE;
	rows = (const struct arch_row *)(*block + ARENA_BLOCK_ROWS);
	/* A block that is not written yet has no rows. */
	return rows->code != 0 && pc - *block >= rows->code ? rows : NULL;
}

static bool pc_map_of_block(const struct code_range *range, uintptr_t pc, uintptr_t *original)
{
	uintptr_t block;
	const struct arch_row *row = pc_map_rows(range, pc, &block);

	if (row == NULL)
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

/* ---- canonical places ------------------------------------------------------------------------------------------- */

bool pc_map_of_code(uintptr_t pc, struct arch_code_map *map)
{
	const struct code_range *range = code_ranges_find(pc);
	const struct arch_row *rows;
	const struct arch_stretch *end;
	uint64_t last;

	if (range == NULL || range->granules == NULL)
		return false;
	rows = pc_map_rows(range, pc, &map->block);
	if (rows == NULL)
		return false;
	map->region = *(const uint64_t *)map->block;
	map->code = map->block + rows->code;
	map->rows = rows;
	while (rows->code != ARENA_ROW_END)
		++rows;
	__builtin_memcpy(&last, rows, sizeof(last));
	map->stretches = (const struct arch_stretch *)(last >> ARENA_FORM_SHIFT);
	end = map->stretches;
	while (end->kind != ARCH_STRETCH_END)
		++end;
	map->hooks = (const struct arch_hook_map *)(end + 1);
	return pc - map->code < end->code;
}

static bool pc_map_read(void *data, uintptr_t address, void *out, size_t size)
{
	(void)data;
	if (size == sizeof(uint64_t))
		*(uint64_t *)out = *(const volatile uint64_t *)address;
	else
		*(uint32_t *)out = *(const volatile uint32_t *)address;
	return true;
}

static void pc_map_write(const struct arch_write *write)
{
	if (write->size == sizeof(uint64_t))
		*(volatile uint64_t *)write->address = write->value;
	else
		*(volatile uint32_t *)write->address = (uint32_t)write->value;
}

bool code_canonical(greg_t *registers, struct code_place *place)
{
	struct arch_registers interrupted;
	struct arch_canonical canonical;
	struct arch_code_map map;
	uintptr_t original;

	arch_registers_from(registers, &interrupted);
	if (pc_map_of_code(interrupted.pc, &map)) {
		/* Where the next pair is noted. */
		if (libpatch_hook_guard.top == HOOK_PAIR_FIRST)
			(void)thread_block();
		if (!arch_canonical(&map, &interrupted, arch_thread_pointer(), pc_map_read, NULL, &canonical))
			return false;
		for (size_t i = 0; i < canonical.write_count; ++i)
			pc_map_write(&canonical.writes[i]);
	} else {
		/* A pad: at the one jump. */
		if (!pc_map_original(interrupted.pc, &original))
			return false;
		canonical.shown = interrupted;
		canonical.shown.pc = original;
		canonical.pc = interrupted.pc;
		canonical.below = 0;
	}
	arch_registers_to(&canonical.shown, registers);
	*place = (struct code_place){ canonical.shown.pc, canonical.pc, canonical.below };
	return true;
}

bool code_shown(const greg_t *registers, uintptr_t *shown, bool *begins)
{
	struct arch_registers interrupted;
	struct arch_canonical canonical;
	struct arch_code_map map;
	const struct arch_row *row;

	arch_registers_from(registers, &interrupted);
	if (!pc_map_of_code(interrupted.pc, &map) ||
	    !arch_canonical(&map, &interrupted, arch_thread_pointer(), pc_map_read, NULL, &canonical) ||
	    canonical.pc != interrupted.pc)
		return false;
	row = map.rows;
	while (row[1].code <= interrupted.pc - map.block && row[1].code != ARENA_ROW_END)
		++row;
	*shown = canonical.shown.pc;
	*begins = row->code == interrupted.pc - map.block && (row == map.rows || row[-1].original != row->original);
	return true;
}

void code_canonical_resume(greg_t *registers, const struct code_place *place)
{
	struct arch_registers shown;

	arch_registers_from(registers, &shown);
	if (shown.pc != place->shown)
		return;
	shown.pc = place->pc;
	shown.general[ARCH_RSP] -= place->below;
	arch_registers_to(&shown, registers);
}

/* ---- calls of hooks --------------------------------------------------------------------------------------------- */

static bool code_find_call(uintptr_t base, uintptr_t rsp, unsigned int *way)
{
	struct arch_code_map map;

	for (*way = 0; *way < ARCH_PUT_OFF_WAYS; ++*way) {
		const uintptr_t *returns = arch_put_off_return(base, *way);
		uintptr_t pc = *returns;

		/* The call has not begun, or has returned. */
		if (rsp > (uintptr_t)returns)
			continue;
		if (arch_put_off_is_done(base, *way) ||
		    (pc_map_of_code(pc, &map) && arch_put_off_is_call(&map, pc, base, *way)))
			return true;
	}
	return false;
}

bool code_is_called(uintptr_t base, uintptr_t rsp)
{
	unsigned int way;

	return code_find_call(base, rsp, &way);
}

bool code_put_off(uintptr_t base, uintptr_t rsp)
{
	unsigned int way;

	/* What a return leads to is on the shadow stack, too. */
	if (arch_has_shadow_stack() || !code_find_call(base, rsp, &way))
		return false;
	if (!arch_put_off_is_done(base, way))
		arch_put_off(base, way);
	return true;
}
