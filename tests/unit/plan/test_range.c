/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The instructions of a range: backwards the same as forwards, in the other order, and in linear time. */
#include "plan/range.h"

#include <criterion/criterion.h>
#include <sys/mman.h>
#include <string.h>

static const uint8_t code[] = {
	0x31, 0xC0,                         /*  0: xor eax, eax */
	0x0F, 0x84, 0x02, 0x00, 0x00, 0x00, /*  2: jz 10 */
	0x31, 0xD2,                         /*  8: xor edx, edx */
	0xE8, 0x00, 0x00, 0x00, 0x00,       /* 10: call 15 */
	0x90,                               /* 15: nop */
	0x06,                               /* 16: no instruction */
	0x90, 0x90,
};
static const size_t starts[] = { 0, 2, 8, 10, 15, 16 };

#define LOWER ((uintptr_t)code)

/* What starts before `size`: the instruction that the range ends in belongs to it. */
static size_t count_before(size_t size)
{
	size_t count = 0;

	while (count < ARRAY_SIZE(starts) && starts[count] < size)
		count++;
	return count;
}

Test(range, both_ways)
{
	for (size_t size = 1; size <= sizeof(code); size++) {
		size_t count = count_before(size);
		struct range range;
		uintptr_t at;

		cr_assert(range_begin(&range, LOWER, LOWER + size, false));
		for (size_t i = 0; i < count; i++) {
			cr_assert(range_next(&range, &at), "%zu of %zu bytes", i, size);
			cr_expect_eq(at - LOWER, starts[i]);
		}
		cr_expect_not(range_next(&range, &at));
		range_end(&range);

		cr_assert(range_begin(&range, LOWER, LOWER + size, true));
		for (size_t i = count; i-- > 0;) {
			cr_assert(range_next(&range, &at), "%zu of %zu bytes", i, size);
			cr_expect_eq(at - LOWER, starts[i]);
		}
		cr_expect_not(range_next(&range, &at));
		range_end(&range);
	}
}

/* Four million instructions: at a nanosecond each, a quadratic walk takes hours. What is not mapped ends the range. */
Test(range, large)
{
	const size_t size = 4UL << 20;
	uint8_t *nops = mmap(NULL, size + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct range range;
	uintptr_t at, wanted = (uintptr_t)nops + size;

	cr_assert_neq(nops, MAP_FAILED);
	memset(nops, 0x90, size);
	cr_assert_eq(munmap(nops + size, PAGE_SIZE), 0);
	cr_assert(range_begin(&range, (uintptr_t)nops, UINTPTR_MAX, true));
	while (range_next(&range, &at))
		cr_assert_eq(at, wanted--);
	cr_expect_eq(wanted + 1, (uintptr_t)nops);
	range_end(&range);
	munmap(nops, size);
}
