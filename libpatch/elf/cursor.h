/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading a module's unwind tables, which may hold anything: fields are taken one after another, from memory whose end
 * is known. What would go beyond it is not read, and the answer is false. Lock-free and async-signal-safe.
 *
 * Sources: Linux Standard Base 5.0 core, 10.5 (DW_EH_PE_*); DWARF 5, 7.6 (LEB128).
 */
#ifndef LIBPATCH_ELF_CURSOR_H
#define LIBPATCH_ELF_CURSOR_H

#include "base/dwarf.h"
#include "elf/module_span.h"

/* Bytes from `at` up to `end`, all of them readable. */
struct cursor {
	uintptr_t at;
	uintptr_t end;
};

/* From address to the end of the readable segment around it. */
static inline bool cursor_at(const struct module *module, uintptr_t address, struct cursor *cursor)
{
	if (address < module->lower || address >= module->upper)
		return false;
	cursor->at = address;
	cursor->end = module->headers == NULL ? module->upper : address + module_room(module, address);
	return cursor->end > address;
}

static inline bool cursor_has(const struct cursor *cursor, size_t size)
{
	return cursor->end - cursor->at >= size;
}

static inline bool cursor_skip(struct cursor *cursor, uint64_t size)
{
	if (!cursor_has(cursor, size))
		return false;
	cursor->at += size;
	return true;
}

/* A field of 1, 2, 4 or 8 bytes, of any alignment. */
static inline bool cursor_take(struct cursor *cursor, void *value, size_t size)
{
	if (!cursor_has(cursor, size))
		return false;
	__builtin_memcpy(value, (const void *)cursor->at, size);
	cursor->at += size;
	return true;
}

static inline bool cursor_u8(struct cursor *cursor, uint8_t *value)
{
	return cursor_take(cursor, value, sizeof(*value));
}

static inline bool cursor_u32(struct cursor *cursor, uint32_t *value)
{
	return cursor_take(cursor, value, sizeof(*value));
}

/* LEB128 of at most 64 bits; `is_signed` extends its sign. */
static inline bool cursor_leb128(struct cursor *cursor, bool is_signed, uint64_t *value)
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
static inline bool cursor_encoded_raw(struct cursor *cursor, uint8_t encoding, uint64_t *value)
{
	int16_t value16;
	int32_t value32;

	*value = 0;
	switch (encoding & PE_FORMAT) {
	case PE_ABSPTR:
	case PE_UDATA8:
	case PE_SDATA8:
		return cursor_take(cursor, value, 8);
	case PE_UDATA4:
		return cursor_take(cursor, value, 4);
	case PE_UDATA2:
		return cursor_take(cursor, value, 2);
	case PE_SDATA4:
		if (!cursor_take(cursor, &value32, 4))
			return false;
		*value = (uint64_t)value32;
		return true;
	case PE_SDATA2:
		if (!cursor_take(cursor, &value16, 2))
			return false;
		*value = (uint64_t)value16;
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
static inline bool cursor_encoded(struct cursor *cursor, uint8_t encoding, uintptr_t *value)
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

#endif
