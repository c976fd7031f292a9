/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The emitters byte for byte, at the ends of their ranges and of the buffer; rows; trap bytes.
 */
#include "bytes.h"

#include "arch/emit.h"
#include "arch/trap_bytes.h"

#include <criterion/criterion.h>
#include <string.h>

#define BASE 0x555500001000UL

static struct arch_code make_code(uint8_t *bytes, size_t capacity)
{
	return (struct arch_code){ .bytes = bytes, .capacity = capacity, .base = BASE };
}

Test(emit, integers)
{
	static const uint8_t expected[] = {
		0x11,                                           /* u8 */
		0x55, 0x44, 0x33, 0x22,                         /* u32 */
		0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0x88, 0x77, 0x66, /* u64 */
		0xEE, 0xFF,                                     /* bytes */
	};
	uint8_t bytes[32];
	struct arch_code code = make_code(bytes, sizeof(bytes));

	arch_emit_u8(&code, 0x11);
	arch_emit_u32(&code, 0x22334455);
	arch_emit_u64(&code, 0x66778899AABBCCDD);
	arch_emit_bytes(&code, "\xEE\xFF", 2);
	bytes_expect("integers", bytes, code.size, expected, sizeof(expected));
	cr_expect_eq(arch_code_here(&code), BASE + sizeof(expected));
	cr_expect_not(code.out_of_range);
}

Test(emit, jmp)
{
	static const struct {
		const char *text;
		uintptr_t target;
		uint8_t bytes[5];
		bool out_of_range;
	} cases[] = {
		{ "jmp to itself", BASE, { 0xE9, 0xFB, 0xFF, 0xFF, 0xFF }, false },
		{ "jmp to the next", BASE + 5, { 0xE9, 0x00, 0x00, 0x00, 0x00 }, false },
		{ "jmp farthest up", BASE + 5 + 0x7FFFFFFFUL, { 0xE9, 0xFF, 0xFF, 0xFF, 0x7F }, false },
		{ "jmp farthest down", BASE + 5 - 0x80000000UL, { 0xE9, 0x00, 0x00, 0x00, 0x80 }, false },
		{ "jmp one too far up", BASE + 5 + 0x80000000UL, { 0xE9, 0x00, 0x00, 0x00, 0x80 }, true },
		{ "jmp one too far down", BASE + 5 - 0x80000001UL, { 0xE9, 0xFF, 0xFF, 0xFF, 0x7F }, true },
	};
	uint8_t bytes[8];
	struct arch_code code;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		code = make_code(bytes, sizeof(bytes));
		arch_emit_jmp(&code, cases[i].target);
		bytes_expect(cases[i].text, bytes, code.size, cases[i].bytes, sizeof(cases[i].bytes));
		cr_expect_eq(code.out_of_range, cases[i].out_of_range, "%s", cases[i].text);
	}
}

Test(emit, rel32_counts_what_follows_the_field)
{
	static const uint8_t expected[] = { 0xC7, 0x05, 0x00, 0x01, 0x00, 0x00 }; /* mov dword [rip + 0x100], imm32 */
	static const uint8_t far_up[] = { 0xFF, 0xFF, 0xFF, 0x7F };
	uint8_t bytes[8];
	struct arch_code code = make_code(bytes, sizeof(bytes));

	arch_emit_bytes(&code, "\xC7\x05", 2);
	arch_emit_rel32(&code, BASE + 10 + 0x100, 4);
	bytes_expect("tail", bytes, code.size, expected, sizeof(expected));

	code = make_code(bytes, sizeof(bytes));
	arch_emit_rel32(&code, BASE + 4 + 3 + 0x7FFFFFFFUL, 3);
	bytes_expect("farthest with a tail", bytes, code.size, far_up, sizeof(far_up));
	cr_expect_not(code.out_of_range);
	arch_emit_rel32(&code, BASE + 8 + 3 + 0x80000000UL, 3);
	cr_expect(code.out_of_range);
	arch_emit_rel32(&code, BASE, 0);
	cr_expect(code.out_of_range, "stays set");
}

/* Through a constant that is aligned wherever the jump is, as far as can be. */
Test(emit, far_jmp)
{
	uint8_t bytes[32];
	size_t at;

	cr_assert_eq(BASE % 8, 0);
	for (at = 0; at < 8; at++) {
		struct arch_code code = make_code(bytes, sizeof(bytes));
		const size_t constant = ALIGN_UP(at + 6, (size_t)8);
		uint8_t expected[32] = { 0 };

		code.far = true;
		code.size = at;
		memset(bytes, 0, sizeof(bytes));
		arch_emit_jmp(&code, 0x1122334455667788);
		memset(expected + at, ARCH_INT3, constant - at);
		memcpy(expected + at, "\xFF\x25", 2);
		memcpy(expected + at + 2, (uint32_t[]){ (uint32_t)(constant - at - 6) }, 4);
		memcpy(expected + constant, (uint64_t[]){ 0x1122334455667788 }, 8);
		cr_expect_eq(code.size, constant + 8);
		bytes_expect("far jmp", bytes, sizeof(bytes), expected, sizeof(expected));
		cr_expect_not(code.out_of_range);
	}
}

Test(emit, never_writes_past_the_capacity)
{
	static const uint8_t expected[] = { 0x11, 0x22, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5 };
	uint8_t bytes[8];
	struct arch_code code = make_code(bytes, 4);

	memset(bytes, 0xA5, sizeof(bytes));
	arch_emit_bytes(&code, "\x11\x22", 2);
	arch_emit_u32(&code, 0);
	arch_emit_u8(&code, 0);
	arch_emit_jmp(&code, BASE);
	bytes_expect("full", bytes, sizeof(bytes), expected, sizeof(expected));
	cr_expect_eq(code.size, 12);

	code = make_code(bytes, 2);
	arch_emit_bytes(&code, "\x33\x44", 2);
	cr_expect(bytes[0] == 0x33 && bytes[1] == 0x44, "an exact fit is written");
}

Test(emit, dry_run_measures)
{
	struct arch_code code = { .base = BASE };

	arch_emit_jmp(&code, BASE);
	arch_emit_u64(&code, 0);
	arch_emit_row(&code, 0);
	arch_emit_row(&code, 1);
	cr_expect_eq(code.size, 13);
	cr_expect_eq(code.row_count, 2, "an upper bound of what a real run keeps");
}

Test(emit, rows)
{
	static const struct arch_row expected[] = { { 0, 0, 1 }, { 1, 0, 0 }, { 3, 4, 0 }, { 4, 4, 0x85 } };
	uint8_t bytes[8];
	struct arch_row rows[8];
	struct arch_code code = make_code(bytes, sizeof(bytes));

	code.rows = rows;
	code.row_capacity = ARRAY_SIZE(rows);
	arch_emit_row(&code, 0);
	arch_emit_row(&code, 1); /* nothing was emitted for the first: overwritten */
	arch_emit_u8(&code, 0x90);
	arch_emit_row(&code, 0);
	arch_emit_u8(&code, 0x90);
	arch_emit_row(&code, 0); /* the same again: merged */
	arch_emit_u8(&code, 0x90);
	arch_emit_row(&code, 1);
	arch_emit_row(&code, 0); /* overwritten by what the row before says: gone */
	arch_emit_row(&code, 2);
	code.original = 4;
	arch_emit_row(&code, 0); /* the same cfa for another instruction */
	arch_emit_u8(&code, 0x90);
	arch_emit_row(&code, ARCH_ROW_DEREF | 5);
	rows_expect(&code, expected, ARRAY_SIZE(expected));
}

Test(emit, rows_beyond_their_capacity_are_counted)
{
	static const struct arch_row expected[] = { { 0, 0, 0 }, { 1, 0, 1 }, { 77, 77, 77 } };
	uint8_t bytes[8];
	struct arch_row rows[3] = { [2] = { 77, 77, 77 } };
	struct arch_code code = make_code(bytes, sizeof(bytes));
	int i;

	code.rows = rows;
	code.row_capacity = 2;
	for (i = 0; i < 5; i++) {
		arch_emit_row(&code, i);
		arch_emit_u8(&code, 0x90);
	}
	cr_expect_eq(code.row_count, 5);
	code.row_count = 3;
	rows_expect(&code, expected, 3);
}

Test(emit, code_too_long_for_a_row_is_out_of_range)
{
	struct arch_code code = { .base = BASE, .size = UINT16_MAX };

	arch_emit_row(&code, 0);
	cr_expect_not(code.out_of_range);
	arch_emit_u8(&code, 0x90);
	arch_emit_row(&code, 0);
	cr_expect(code.out_of_range);
}

Test(emit, trap_bytes)
{
	bool seen[256] = { false };
	struct arch_insn insn;
	uint8_t bytes[16] = { 0 };
	size_t i;

	cr_expect_eq(arch_top_trap_byte_count, 20);
	cr_expect_eq(arch_top_trap_bytes[0], ARCH_INT3);
	for (i = 0; i < arch_top_trap_byte_count; i++) {
		cr_expect_not(seen[arch_top_trap_bytes[i]], "%#x is there twice", arch_top_trap_bytes[i]);
		seen[arch_top_trap_bytes[i]] = true;
		bytes[0] = arch_top_trap_bytes[i];
		cr_expect_eq(arch_decode(bytes, sizeof(bytes), BASE, &insn), bytes[0] == ARCH_INT3);
	}
	for (i = 0; i < 256; i++) {
		cr_expect_eq(arch_trap_class(i),
			     i == ARCH_INT3 ? ARCH_TRAP_SIGTRAP : seen[i] ? ARCH_TRAP_SIGILL : ARCH_TRAP_NONE,
			     "%#zx", i);
	}
}
