/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a function's code says of an address: where instructions start, and where branches lead, with the function
 * decoded and without. Both ways must say the same.
 */
#include "arch/insn.h"
#include "bytes.h"

#include "plan/scan.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const uint8_t code[] = {
	0x31, 0xC0,                         /*  0: xor eax, eax */
	0xFF, 0xC0,                         /*  2: inc eax */
	0x75, 0xFC,                         /*  4: jnz 2 */
	0x0F, 0x84, 0x02, 0x00, 0x00, 0x00, /*  6: jz 14 */
	0x31, 0xD2,                         /* 12: xor edx, edx */
	0xE8, 0x00, 0x00, 0x00, 0x00,       /* 14: call 19, which is no branch */
	0xEB, 0x01,                         /* 19: jmp 22 */
	0x06,                               /* 21: no instruction */
	0xE9, 0xE5, 0xFF, 0xFF, 0xFF,       /* 22: jmp 0 */
};
static const uint8_t starts[] = { 0, 2, 4, 6, 12, 14, 19, 22 };
static const uint8_t targets[] = { 0, 2, 14, 22 };

#define LOWER ((uintptr_t)code)
#define UPPER (LOWER + sizeof(code))

static bool is_among(const uint8_t *offsets, size_t count, size_t offset)
{
	return memchr(offsets, (int)offset, count) != NULL;
}

Test(scan, starts)
{
	scan_set(LOWER, UPPER);
	for (size_t i = 0; i < sizeof(code); ++i)
		cr_expect_eq(scan_is_start(LOWER + i), is_among(starts, ARRAY_COUNT(starts), i), "%zu", i);
}

Test(scan, targets_decoded)
{
	scan_set(LOWER, UPPER);
	cr_assert(scan_function());
	for (size_t i = 0; i < sizeof(code); ++i)
		cr_expect_eq(scan_is_target(LOWER + i), is_among(targets, ARRAY_COUNT(targets), i), "%zu", i);
}

Test(scan, targets_not_decoded)
{
	for (size_t i = 0; i < sizeof(code); ++i) {
		scan_forget();
		scan_set(LOWER, UPPER);
		cr_expect_eq(scan_is_target(LOWER + i), is_among(targets, ARRAY_COUNT(targets), i), "%zu", i);
	}
}

Test(scan, outside)
{
	scan_set(LOWER, UPPER);
	cr_expect(!scan_is_start(LOWER - 1));
	cr_expect(!scan_is_start(UPPER));
	cr_expect(!scan_is_target(LOWER - 1));
	cr_expect(!scan_is_target(UPPER));
	scan_forget();
	cr_expect(!scan_is_start(LOWER));
	cr_expect(!scan_is_target(LOWER));
}

/* The text of another function, then of the first one again. */
Test(scan, another_function)
{
	static const uint8_t other[] = { 0x90, 0xEB, 0xFD }; /* nop; jmp 0 */

	scan_set(LOWER, UPPER);
	cr_expect(scan_is_start(LOWER + 2));
	scan_set((uintptr_t)other, (uintptr_t)other + sizeof(other));
	cr_expect(!scan_is_start(LOWER + 2));
	cr_expect(scan_is_start((uintptr_t)other + 1));
	cr_expect(scan_is_target((uintptr_t)other));
	scan_set(LOWER, UPPER);
	cr_expect(scan_is_start(LOWER + 2));
}

Test(scan, too_large)
{
	static uint8_t large[(4 << 20) + 1];

	scan_set((uintptr_t)large, (uintptr_t)large + sizeof(large));
	cr_expect(!scan_function());
	cr_expect(!scan_is_start((uintptr_t)large));
}

/* Branches of all lengths among other code, and whether any leads to the address, by decoding all of it here. */
static void fill(uint8_t *bytes, size_t size)
{
	size_t at = 0;

	while (at + 6 <= size) {
		int32_t distance = (int32_t)(rand() % (int)size) - (int32_t)at;

		switch (rand() % 6) {
		case 0:
			bytes[at++] = (uint8_t)(0x70 + rand() % 16); /* jcc rel8 */
			bytes[at++] = (uint8_t)rand();
			break;
		case 1:
			bytes[at++] = 0xE9; /* jmp rel32 */
			memcpy(bytes + at, &distance, 4);
			at += 4;
			break;
		case 2:
			bytes[at++] = 0x0F; /* jcc rel32 */
			bytes[at++] = (uint8_t)(0x80 + rand() % 16);
			memcpy(bytes + at, &distance, 4);
			at += 4;
			break;
		case 3:
			bytes[at++] = 0xB8; /* mov eax, imm32 */
			memcpy(bytes + at, &distance, 4);
			at += 4;
			break;
		default:
			bytes[at++] = 0x90;
		}
	}
	memset(bytes + at, 0x90, size - at);
}

static void find_targets(const uint8_t *bytes, size_t size, uint8_t *found)
{
	memset(found, 0, size);
	for (size_t at = 0; at < size;) {
		struct arch_insn insn;

		if (!arch_decode(bytes + at, MIN(size - at, (size_t)INSN_MAX), (uintptr_t)bytes + at, &insn)) {
			++at;
			continue;
		}
		if (insn.rel_size != 0 && insn.kind != ARCH_CALL && insn.target - (uintptr_t)bytes < size)
			found[insn.target - (uintptr_t)bytes] = 1;
		at += insn.length;
	}
}

#define SIZE_MAX_TRIED 70000 /* longer than displacements of 16 bits reach */
#define QUESTIONS 200

static void compare_ways(size_t size)
{
	static uint8_t bytes[SIZE_MAX_TRIED], found[SIZE_MAX_TRIED];
	uintptr_t lower = (uintptr_t)bytes;

	fill(bytes, size);
	find_targets(bytes, size, found);
	for (unsigned int i = 0; i < QUESTIONS; ++i) {
		size_t at = (size_t)rand() % size;

		scan_forget();
		scan_set(lower, lower + size);
		cr_assert_eq(scan_is_target(lower + at), found[at], "%zu of %zu bytes", at, size);
	}
	cr_assert(scan_function());
	for (size_t at = 0; at < size; ++at)
		cr_assert_eq(scan_is_target(lower + at), found[at], "%zu of %zu bytes, decoded", at, size);
}

Test(scan, both_ways_agree)
{
	static const size_t sizes[] = { 7, 8, 33, 100, 1000, 5000, SIZE_MAX_TRIED };

	srand(1);
	for (size_t i = 0; i < ARRAY_COUNT(sizes); ++i)
		compare_ways(sizes[i]);
}
