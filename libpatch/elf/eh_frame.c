/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * eh_frame_function(): extents of functions from a module's .eh_frame_hdr and .eh_frame. Guarantees:
 *
 * G1 No lock, no allocation, no call.
 * G2 Nothing outside the module's readable segments is read, whatever its tables hold: every read goes through a
 *    cursor whose bounds are those of one segment.
 * G3 O(log n) for n described functions.
 *
 * The module must stay loaded during the call; that is the caller's business.
 *
 * Sources: Linux Standard Base 5.0 core, 10.6 "Exception Frames" (.eh_frame, .eh_frame_hdr), 10.5 (DW_EH_PE_*);
 * DWARF 5, 6.4.1 and 7.6 (LEB128).
 */
#include "elf/eh_frame.h"

#include "elf/segments.h"

/* DW_EH_PE_*: the low four bits are the format, the next three what the value is relative to. */
enum {
	PE_ABSPTR = 0x00,
	PE_ULEB128 = 0x01,
	PE_UDATA2 = 0x02,
	PE_UDATA4 = 0x03,
	PE_UDATA8 = 0x04,
	PE_SLEB128 = 0x09,
	PE_SDATA2 = 0x0a,
	PE_SDATA4 = 0x0b,
	PE_SDATA8 = 0x0c,
	PE_FORMAT = 0x0f,
	PE_PCREL = 0x10,
	PE_DATAREL = 0x30,
	PE_RELATION = 0x70,
	PE_INDIRECT = 0x80,
	PE_OMIT = 0xff
};

/* One binary search table entry is two sdata4: start of the function, its FDE, both relative to the table's header. */
#define TABLE_ENTRY_SIZE 8

/* Bytes from `at` up to `end`, all of them readable. */
struct cursor {
	uintptr_t at;
	uintptr_t end;
};

struct __attribute__((packed, may_alias)) unaligned16 {
	uint16_t value;
};
struct __attribute__((packed, may_alias)) unaligned32 {
	uint32_t value;
};
struct __attribute__((packed, may_alias)) unaligned64 {
	uint64_t value;
};

/* From address to the end of the readable segment around it. */
static bool cursor_at(const struct module *module, uintptr_t address, struct cursor *cursor)
{
	if (address < module->lower || address >= module->upper)
		return false;
	cursor->at = address;
	if (module->headers == NULL) {
		cursor->end = module->upper;
		return true;
	}
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_R) {
		if (segment_contains(segment, module->bias, address)) {
			cursor->end = module->bias + segment->p_vaddr + segment->p_memsz;
			return true;
		}
	}
	return false;
}

static bool cursor_has(const struct cursor *cursor, size_t size)
{
	return cursor->end - cursor->at >= size;
}

static bool cursor_skip(struct cursor *cursor, uint64_t size)
{
	if (!cursor_has(cursor, size))
		return false;
	cursor->at += size;
	return true;
}

static bool cursor_u8(struct cursor *cursor, uint8_t *value)
{
	if (!cursor_has(cursor, 1))
		return false;
	*value = *(const uint8_t *)cursor->at;
	cursor->at += 1;
	return true;
}

static bool cursor_u16(struct cursor *cursor, uint16_t *value)
{
	if (!cursor_has(cursor, 2))
		return false;
	*value = ((const struct unaligned16 *)cursor->at)->value;
	cursor->at += 2;
	return true;
}

static bool cursor_u32(struct cursor *cursor, uint32_t *value)
{
	if (!cursor_has(cursor, 4))
		return false;
	*value = ((const struct unaligned32 *)cursor->at)->value;
	cursor->at += 4;
	return true;
}

static bool cursor_u64(struct cursor *cursor, uint64_t *value)
{
	if (!cursor_has(cursor, 8))
		return false;
	*value = ((const struct unaligned64 *)cursor->at)->value;
	cursor->at += 8;
	return true;
}

/* LEB128 of at most 64 bits; `is_signed` extends its sign. */
static bool cursor_leb128(struct cursor *cursor, bool is_signed, uint64_t *value)
{
	uint64_t result = 0;

	for (unsigned int shift = 0; shift < 64; shift += 7) {
		uint8_t byte;

		if (!cursor_u8(cursor, &byte))
			return false;
		result |= (uint64_t)(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0) {
			if (is_signed && (byte & 0x40) != 0 && shift + 7 < 64)
				result |= ~(uint64_t)0 << (shift + 7);
			*value = result;
			return true;
		}
	}
	return false;
}

/* The value of an encoded field, sign extended, relative to nothing. */
static bool cursor_encoded_raw(struct cursor *cursor, uint8_t encoding, uint64_t *value)
{
	uint16_t value16;
	uint32_t value32;

	switch (encoding & PE_FORMAT) {
	case PE_ABSPTR:
	case PE_UDATA8:
	case PE_SDATA8:
		return cursor_u64(cursor, value);
	case PE_UDATA4:
	case PE_SDATA4:
		if (!cursor_u32(cursor, &value32))
			return false;
		*value = (encoding & PE_FORMAT) == PE_SDATA4 ? (uint64_t)(int32_t)value32 : value32;
		return true;
	case PE_UDATA2:
	case PE_SDATA2:
		if (!cursor_u16(cursor, &value16))
			return false;
		*value = (encoding & PE_FORMAT) == PE_SDATA2 ? (uint64_t)(int16_t)value16 : value16;
		return true;
	case PE_ULEB128:
		return cursor_leb128(cursor, false, value);
	case PE_SLEB128:
		return cursor_leb128(cursor, true, value);
	default:
		return false;
	}
}

/* An encoded address. What x86-64 toolchains do not emit there (textrel, funcrel, aligned, indirect) is refused. */
static bool cursor_encoded(struct cursor *cursor, uint8_t encoding, uintptr_t *value)
{
	uintptr_t field = cursor->at;
	uint64_t raw;

	if (encoding == PE_OMIT || (encoding & PE_INDIRECT) != 0 || !cursor_encoded_raw(cursor, encoding, &raw))
		return false;
	switch (encoding & PE_RELATION) {
	case 0:
		*value = raw;
		return true;
	case PE_PCREL:
		*value = field + raw;
		return true;
	default:
		return false;
	}
}

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
	const struct unaligned32 *field = (const void *)(table->entries + index * TABLE_ENTRY_SIZE + offset);

	return table->header + (uint64_t)(int32_t)field->value;
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
	if (length32 == 0xffffffff && !cursor_u64(cursor, &length))
		return false;
	if (!cursor_has(cursor, length))
		return false;
	cursor->end = cursor->at + length;
	*id_field = cursor->at;
	/* Four bytes also with a 64-bit length (LSB 10.6.1.1.1). */
	return cursor_u32(cursor, id);
}

/* Encoding of the addresses in the FDEs of a CIE. */
static bool cie_encoding(const struct module *module, uintptr_t address, uint8_t *encoding)
{
	struct cursor cursor, letters;
	uintptr_t id_field;
	uint32_t id;
	uint64_t ignored;
	uint8_t version, letter, byte;

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
	/* Code alignment, data alignment, return address column. */
	if (!cursor_leb128(&cursor, false, &ignored) || !cursor_leb128(&cursor, true, &ignored))
		return false;
	if (version == 1 ? !cursor_skip(&cursor, 1) : !cursor_leb128(&cursor, false, &ignored))
		return false;

	*encoding = PE_ABSPTR;
	if (!cursor_u8(&letters, &letter))
		return false;
	if (letter == '\0')
		return true;
	if (letter != 'z' || !cursor_leb128(&cursor, false, &ignored))
		return false;
	for (;;) {
		if (!cursor_u8(&letters, &letter))
			return false;
		switch (letter) {
		case '\0':
			return true;
		case 'R':
			return cursor_u8(&cursor, encoding);
		case 'P':
			if (!cursor_u8(&cursor, &byte) || (byte & PE_RELATION) > PE_DATAREL ||
			    !cursor_encoded_raw(&cursor, byte, &ignored))
				return false;
			break;
		case 'L':
			if (!cursor_skip(&cursor, 1))
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

/* Extent that an FDE describes; false also when it is empty or not all inside the module. */
static bool fde_extent(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper)
{
	struct cursor cursor;
	uintptr_t id_field, start;
	uint32_t id;
	uint64_t size;
	uint8_t encoding;

	if (!entry_open(module, address, &cursor, &id_field, &id) || id == 0)
		return false;
	if (!cie_encoding(module, id_field - id, &encoding))
		return false;
	if (!cursor_encoded(&cursor, encoding, &start) || !cursor_encoded_raw(&cursor, encoding & PE_FORMAT, &size))
		return false;
	if (start < module->lower || start >= module->upper || size == 0 || size > module->upper - start)
		return false;
	*lower = start;
	*upper = start + size;
	return true;
}

bool eh_frame_function(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper,
		       uintptr_t *next_lower)
{
	struct search_table table;
	uintptr_t start, end;
	uint64_t above;

	if (next_lower != NULL)
		*next_lower = UINTPTR_MAX;
	if (!search_table_open(module, &table))
		return false;
	above = search_table_above(&table, address);
	if (next_lower != NULL && above < table.count)
		*next_lower = search_table_start(&table, above);
	if (above == 0 || !fde_extent(module, search_table_fde(&table, above - 1), &start, &end))
		return false;
	if (address < start || address >= end)
		return false;
	*lower = start;
	*upper = end;
	return true;
}
