/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwind description of blocks for a reader that can evaluate no look-up in the process's memory: what unwind_emit.c
 * leaves to expressions is spelled out here, row by row. The rules are the same: a frame looks like a signal frame,
 * whose caller is the program at the original instruction. Pure, but for reading the blocks.
 *
 * Sources: as in unwind_emit.c; and Linux Standard Base 5.0 core, 10.6.2 (.eh_frame_hdr).
 */
#include "arch/unwind.h"
#include "arch/x86_64/unwind_tables.h"
#include "arch/x86_64/unwind_writer.h"

#include <string.h>

/* At most: of an FDE without its rows, of a row, of what ends the file beside the table, of an entry of the table. */
#define FDE_MAX 48
#define ROW_MAX 32
#define END_MAX 64
#define ENTRY_SIZE (2 * sizeof(int32_t))

/* The offset of the length and the CIE's distance in an FDE, behind which the code's address is. */
#define FDE_PC (2 * sizeof(uint32_t))

static void unwind_file_put_uleb(struct arch_code *writer, uint32_t value)
{
	for (; value >= 0x80; value >>= 7)
		arch_emit_u8(writer, (uint8_t)(value | 0x80));
	arch_emit_u8(writer, (uint8_t)value);
}

static void unwind_file_put_cie(struct arch_code *writer)
{
	static const char augmentation[] = "zRS";
	size_t cie = unwind_begin_entry(writer);

	arch_emit_u32(writer, 0); /* CIE id */
	arch_emit_u8(writer, 1);  /* version */
	arch_emit_bytes(writer, augmentation, sizeof(augmentation));
	arch_emit_u8(writer, 1);            /* code alignment factor */
	arch_emit_u8(writer, 0x78);         /* data alignment factor, -8 */
	arch_emit_u8(writer, REGISTER_RIP); /* return address column */
	arch_emit_u8(writer, 1);            /* size of the augmentation data */
	arch_emit_u8(writer, PE_PCREL | PE_SDATA4);
	unwind_put_operator(writer, CFA_DEF_CFA, REGISTER_RSP);
	arch_emit_u8(writer, 0);
	unwind_end_entry(writer, cie);
}

static void unwind_file_put_row(struct arch_code *writer, const struct arch_row *row, uint64_t region,
				unsigned int distance)
{
	const uint32_t above = (row->cfa & (ARCH_ROW_DEREF - 1U)) * sizeof(uint64_t);
	size_t expression;

	if (distance < 0x100) {
		unwind_put_operator(writer, CFA_ADVANCE_LOC1, (uint8_t)distance);
	} else {
		arch_emit_u8(writer, CFA_ADVANCE_LOC2);
		unwind_put_u16(writer, (uint16_t)distance);
	}
	if ((row->cfa & ARCH_ROW_DEREF) == 0) {
		unwind_put_operator(writer, CFA_DEF_CFA, REGISTER_RSP);
		unwind_file_put_uleb(writer, above);
	} else {
		arch_emit_u8(writer, CFA_DEF_CFA_EXPRESSION);
		expression = unwind_begin_expression(writer);
		unwind_put_operator(writer, OP_BREG0 + REGISTER_RSP, 0);
		unwind_put_operator(writer, OP_DEREF, OP_PLUS_UCONST);
		unwind_file_put_uleb(writer, above);
		unwind_end_expression(writer, expression);
	}
	unwind_put_operator(writer, CFA_VAL_EXPRESSION, REGISTER_RIP);
	expression = unwind_begin_expression(writer);
	unwind_put_const(writer, region + row->original);
	unwind_end_expression(writer, expression);
}

static struct arch_code unwind_file_writer(struct arch_unwind_file *file)
{
	return (struct arch_code){ .bytes = file->bytes, .capacity = sizeof(file->bytes), .size = file->size };
}

void arch_unwind_file_begin(struct arch_unwind_file *file)
{
	struct arch_code writer;

	file->size = 0;
	file->count = 0;
	writer = unwind_file_writer(file);
	unwind_file_put_cie(&writer);
	file->size = writer.size;
}

static size_t unwind_file_count_rows(const struct arch_row *rows)
{
	size_t count = 0;

	while (rows[count].code != 0xffff)
		++count;
	return count;
}

bool arch_unwind_file_add(struct arch_unwind_file *file, uintptr_t block, size_t size)
{
	const struct arch_row *rows = (const struct arch_row *)(block + BLOCK_ROWS);
	const size_t count = unwind_file_count_rows(rows);
	struct arch_code writer = unwind_file_writer(file);
	uint64_t region;
	size_t fde;

	if (file->count == ARCH_UNWIND_FILE_BLOCKS ||
	    FDE_MAX + count * ROW_MAX + END_MAX + (file->count + 1) * ENTRY_SIZE > writer.capacity - writer.size)
		return false;
	memcpy(&region, (const void *)block, sizeof(region));
	file->blocks[file->count++] = (struct arch_unwind_file_block){ block, writer.size };
	fde = unwind_begin_entry(&writer);
	arch_emit_u32(&writer, (uint32_t)writer.size); /* back to the CIE */
	arch_emit_u32(&writer, 0);                     /* arch_unwind_file_end() fills it in */
	arch_emit_u32(&writer, (uint32_t)size);
	arch_emit_u8(&writer, 0); /* size of the augmentation data */
	for (size_t i = 0; i < count; ++i)
		unwind_file_put_row(&writer, &rows[i], region, rows[i].code - (i > 0 ? rows[i - 1].code : 0U));
	unwind_end_entry(&writer, fde);
	file->size = writer.size;
	return true;
}

void arch_unwind_file_end(struct arch_unwind_file *file, uintptr_t lower, uintptr_t upper)
{
	struct arch_code writer = unwind_file_writer(file);
	const uintptr_t frames = lower + ALIGN_UP(upper - lower, 8); /* where .eh_frame is, as if it were in memory */
	size_t header;

	arch_emit_u64(&writer, 0);
	header = writer.size;
	unwind_put_operator(&writer, 1, PE_PCREL | PE_SDATA4); /* the version; of the next field but one */
	unwind_put_operator(&writer, PE_UDATA4, PE_DATAREL | PE_SDATA4);
	arch_emit_u32(&writer, (uint32_t)-writer.size);
	arch_emit_u32(&writer, (uint32_t)file->count);
	for (size_t i = 0; i < file->count; ++i) {
		const struct arch_unwind_file_block *block = &file->blocks[i];
		const size_t field = block->fde + FDE_PC;
		const uint32_t distance = (uint32_t)(block->block - (frames + field));

		unwind_patch_at(&writer, field, &distance, sizeof(distance));
		arch_emit_u32(&writer, (uint32_t)(block->block - (frames + header)));
		arch_emit_u32(&writer, (uint32_t)(block->fde - header));
	}
	file->header = writer.size - header;
	file->size = writer.size;
}
