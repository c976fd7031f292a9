/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extents of functions, and where the rows of their frames are, from a module's .eh_frame_hdr and .eh_frame. What the
 * rows say is cfa.c's business. Guarantees:
 *
 * G1 No lock, no allocation, no call.
 * G2 Nothing outside the module's readable segments is read, whatever its tables hold: every read goes through a
 *    cursor whose bounds are those of one segment.
 * G3 O(log n) for n described functions.
 *
 * The module must stay loaded during the call; that is the caller's business.
 *
 * Sources: Linux Standard Base 5.0 core, 10.6 "Exception Frames" (.eh_frame, .eh_frame_hdr); DWARF 5, 6.4.1.
 */
#include "elf/eh_frame.h"

/* One binary search table entry is two sdata4: start of the function, its FDE, both relative to the table's header. */
#define TABLE_ENTRY_SIZE 8

struct search_table {
	uintptr_t header; /* what its entries are relative to */
	uintptr_t entries;
	uint64_t count;
};

static bool search_table_open(const struct module *module, struct search_table *table)
{
	struct cursor cursor;
	uint8_t version, pointer_encoding, count_encoding, table_encoding;
	uint64_t eh_frame;

	table->header = (uintptr_t)module->eh_frame_hdr;
	if (module->eh_frame_hdr == NULL || !cursor_at(module, table->header, &cursor))
		return false;
	if (!cursor_u8(&cursor, &version) || !cursor_u8(&cursor, &pointer_encoding) ||
	    !cursor_u8(&cursor, &count_encoding) || !cursor_u8(&cursor, &table_encoding))
		return false;
	if (version != 1 || table_encoding != (PE_DATAREL | PE_SDATA4) || count_encoding == PE_OMIT ||
	    (count_encoding & ~PE_FORMAT) != 0)
		return false;
	if (pointer_encoding != PE_OMIT && !cursor_encoded_raw(&cursor, pointer_encoding, &eh_frame))
		return false;
	if (!cursor_encoded_raw(&cursor, count_encoding, &table->count))
		return false;
	table->entries = cursor.at;
	return table->count <= (cursor.end - cursor.at) / TABLE_ENTRY_SIZE;
}

static uintptr_t search_table_field(const struct search_table *table, uint64_t index, size_t offset)
{
	int32_t field;

	__builtin_memcpy(&field, (const void *)(table->entries + index * TABLE_ENTRY_SIZE + offset), sizeof(field));
	return table->header + (uint64_t)field;
}

static uintptr_t search_table_start(const struct search_table *table, uint64_t index)
{
	return search_table_field(table, index, 0);
}

static uintptr_t search_table_fde(const struct search_table *table, uint64_t index)
{
	return search_table_field(table, index, 4);
}

/* Index of the first entry that starts above address. */
static uint64_t search_table_above(const struct search_table *table, uintptr_t address)
{
	uint64_t lower = 0;
	uint64_t upper = table->count;

	while (lower < upper) {
		uint64_t middle = lower + (upper - lower) / 2;

		if (search_table_start(table, middle) > address)
			upper = middle;
		else
			lower = middle + 1;
	}
	return lower;
}

/* A CIE or FDE: a cursor over what follows its id field, whose address and value are given. */
static bool entry_open(const struct module *module, uintptr_t address, struct cursor *cursor, uintptr_t *id_field,
		       uint32_t *id)
{
	uint32_t length32;
	uint64_t length;

	if (!cursor_at(module, address, cursor) || !cursor_u32(cursor, &length32))
		return false;
	length = length32;
	if (length32 == 0xffffffff && !cursor_take(cursor, &length, sizeof(length)))
		return false;
	if (!cursor_has(cursor, length))
		return false;
	cursor->end = cursor->at + length;
	*id_field = cursor->at;
	/* Four bytes also with a 64-bit length (LSB 10.6.1.1.1). */
	return cursor_u32(cursor, id);
}

/* What a CIE says of its FDEs. */
struct cie {
	uint8_t encoding; /* of their addresses */
	bool augmented;   /* they have augmentation data */
	uint64_t code_alignment;
	int64_t data_alignment;
	struct cursor rows;
};

/* The letters of an augmentation, whose first one was 'z', up to the one that tells the encoding. */
static bool cie_read_letters(struct cursor letters, struct cursor data, uint8_t *encoding)
{
	uint64_t ignored;
	uint8_t letter, byte;

	for (;;) {
		if (!cursor_u8(&letters, &letter))
			return false;
		switch (letter) {
		case '\0':
			return true;
		case 'R':
			return cursor_u8(&data, encoding);
		case 'P':
			if (!cursor_u8(&data, &byte) || (byte & PE_RELATION) > PE_DATAREL ||
			    !cursor_encoded_raw(&data, byte, &ignored))
				return false;
			break;
		case 'L':
			if (!cursor_skip(&data, 1))
				return false;
			break;
		case 'S':
		case 'B':
			break;
		default:
			return false;
		}
	}
}

static bool cie_read(const struct module *module, uintptr_t address, struct cie *cie)
{
	struct cursor cursor, letters;
	uintptr_t id_field;
	uint32_t id;
	uint64_t ignored, size, data_alignment;
	uint8_t version, letter;

	if (!entry_open(module, address, &cursor, &id_field, &id) || id != 0)
		return false;
	if (!cursor_u8(&cursor, &version) || (version != 1 && version != 3 && version != 4))
		return false;
	letters = cursor;
	do {
		if (!cursor_u8(&cursor, &letter))
			return false;
	} while (letter != '\0');
	/* Version 4: address size and segment selector size. */
	if (version == 4 && !cursor_skip(&cursor, 2))
		return false;
	if (!cursor_leb128(&cursor, false, &cie->code_alignment) || !cursor_leb128(&cursor, true, &data_alignment))
		return false;
	cie->data_alignment = (int64_t)data_alignment;
	/* Return address column. */
	if (version == 1 ? !cursor_skip(&cursor, 1) : !cursor_leb128(&cursor, false, &ignored))
		return false;

	cie->encoding = PE_ABSPTR;
	if (!cursor_u8(&letters, &letter))
		return false;
	cie->augmented = letter != '\0';
	if (cie->augmented) {
		if (letter != 'z' || !cursor_leb128(&cursor, false, &size) ||
		    !cie_read_letters(letters, cursor, &cie->encoding) || !cursor_skip(&cursor, size))
			return false;
	}
	cie->rows = cursor;
	return true;
}

/* False also when the extent is empty or not all inside the module. */
static bool fde_read(const struct module *module, uintptr_t address, struct eh_frame_entry *entry)
{
	struct cursor cursor;
	struct cie cie;
	uintptr_t id_field, start;
	uint32_t id;
	uint64_t size, ignored;

	if (!entry_open(module, address, &cursor, &id_field, &id) || id == 0)
		return false;
	if (!cie_read(module, id_field - id, &cie))
		return false;
	if (!cursor_encoded(&cursor, cie.encoding, &start) ||
	    !cursor_encoded_raw(&cursor, cie.encoding & PE_FORMAT, &size))
		return false;
	if (start < module->lower || start >= module->upper || size == 0 || size > module->upper - start)
		return false;
	if (cie.augmented && (!cursor_leb128(&cursor, false, &ignored) || !cursor_skip(&cursor, ignored)))
		return false;
	*entry = (struct eh_frame_entry){
		.lower = start,
		.upper = start + size,
		.encoding = cie.encoding,
		.code_alignment = cie.code_alignment,
		.data_alignment = cie.data_alignment,
		.common = cie.rows,
		.rows = cursor,
	};
	return true;
}

bool eh_frame_find(const struct module *module, uintptr_t address, struct eh_frame_entry *entry, uintptr_t *next_lower)
{
	struct search_table table;
	uintptr_t next;
	uint64_t above;

	if (next_lower != NULL)
		*next_lower = UINTPTR_MAX;
	if (!search_table_open(module, &table))
		return false;
	above = search_table_above(&table, address);
	next = above < table.count ? search_table_start(&table, above) : UINTPTR_MAX;
	if (next_lower != NULL)
		*next_lower = next;
	if (above == 0 || !fde_read(module, search_table_fde(&table, above - 1), entry))
		return false;
	/* What contradicts the table is not believed: neither another beginning, nor an end in the next function. */
	if (entry->lower != search_table_start(&table, above - 1))
		return false;
	entry->upper = MIN(entry->upper, next);
	return address < entry->upper;
}

bool eh_frame_function(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper,
		       uintptr_t *next_lower)
{
	struct eh_frame_entry entry;

	if (!eh_frame_find(module, address, &entry, next_lower))
		return false;
	*lower = entry.lower;
	*upper = entry.upper;
	return true;
}
