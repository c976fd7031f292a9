/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows of unwind tables: each instruction of theirs in tables made by hand, tables that are damaged, and what the
 * assembler makes of directives in this program.
 */
#include "elf/cfa.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- tables made by hand ----------------------------------------------------------------------------------------- */

/*
 * An image of a module: +0 .eh_frame_hdr with one entry, +32 a CIE, +96 an FDE. Its function is [LOWER, UPPER), of
 * which only the addresses matter. Code alignment 2, data alignment -8.
 */
#define IMAGE_SIZE 512
#define COMMON 32
#define OWN 96
#define LOWER 256
#define UPPER 500

static const uint8_t header[] = {
	1, 0x1b, 3, 0x3b, 60, 0, 0, 0, 1, 0, 0, 0, /* one entry */
	LOWER & 255, LOWER >> 8, 0, 0, OWN, 0, 0, 0,
};

/* rsp + 8, the return address below it. */
#define USUAL 0x0c, 7, 8, 0x90, 1

struct image {
	uint8_t *bytes; /* what is behind is not readable */
	struct module module;
};

static void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static struct image make(const uint8_t *common, size_t common_size, const uint8_t *own, size_t own_size)
{
	static const uint8_t cie[] = { 1, 'z', 'R', 0, 2, 0x78, 16, 1, 0x1b };
	uint8_t *pages = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct image image = { .bytes = pages + PAGE_SIZE - IMAGE_SIZE };
	uint8_t *at = image.bytes;

	cr_assert_neq(pages, MAP_FAILED);
	cr_assert_eq(mprotect(pages + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
	cr_assert(sizeof(cie) + common_size + 8 <= OWN - COMMON && own_size + 17 <= LOWER - OWN);
	memcpy(at, header, sizeof(header));
	put32(at + COMMON, (uint32_t)(4 + sizeof(cie) + common_size));
	memcpy(at + COMMON + 8, cie, sizeof(cie));
	memcpy(at + COMMON + 8 + sizeof(cie), common, common_size);
	put32(at + OWN, (uint32_t)(4 + 8 + 1 + own_size));
	put32(at + OWN + 4, OWN + 4 - COMMON);
	put32(at + OWN + 8, LOWER - (OWN + 8));
	put32(at + OWN + 12, UPPER - LOWER);
	memcpy(at + OWN + 17, own, own_size);
	image.module = (struct module){ .lower = (uintptr_t)at,
					.upper = (uintptr_t)at + IMAGE_SIZE,
					.eh_frame_hdr = at };
	return image;
}

static struct image make_usual(const uint8_t *own, size_t size)
{
	static const uint8_t usual[] = { USUAL };

	return make(usual, sizeof(usual), own, size);
}

#define UNKNOWN (-1)
#define DAMAGED (-2)

struct row {
	unsigned int lower; /* in the function */
	int base;           /* a register, UNKNOWN, or DAMAGED */
	int64_t offset;
};

static void expect_frame(const struct cfa_rows *rows, const struct row *row)
{
	cr_expect_eq(rows->damaged, row->base == DAMAGED, "row at %u", row->lower);
	cr_expect_eq(rows->frame.known, row->base >= 0, "row at %u", row->lower);
	if (row->base < 0)
		return;
	cr_expect_eq(rows->frame.base, row->base, "row at %u: register %u", row->lower, rows->frame.base);
	cr_expect_eq(rows->frame.offset, row->offset, "row at %u: offset %ld", row->lower, (long)rows->frame.offset);
}

static void expect_rows(struct image image, const struct row *expected, size_t count)
{
	uintptr_t function = (uintptr_t)image.bytes + LOWER;
	struct cfa_rows rows;

	for (size_t i = 0; i < count; ++i) {
		uintptr_t lower = function + expected[i].lower;
		uintptr_t upper = function + (i + 1 < count ? expected[i + 1].lower : UPPER - LOWER);

		if (i == 0)
			cr_assert(cfa_begin(&rows, &image.module, function));
		else
			cr_assert(cfa_next(&rows), "row at %u", expected[i].lower);
		cr_expect_eq(rows.lower, lower, "row at %u: from %zu", expected[i].lower, rows.lower - function);
		cr_expect_eq(rows.upper, upper, "row at %u: to %zu", expected[i].lower, rows.upper - function);
		expect_frame(&rows, &expected[i]);
	}
	cr_expect_not(cfa_next(&rows));
	cr_expect_not(cfa_next(&rows));
	/* The same, by address. */
	cr_assert(cfa_begin(&rows, &image.module, function + 1));
	for (uintptr_t at = function; at < (uintptr_t)image.bytes + UPPER; ++at) {
		size_t i = 0;

		while (i + 1 < count && at - function >= expected[i + 1].lower)
			++i;
		cfa_seek(&rows, at);
		cr_assert_eq(rows.lower, function + expected[i].lower, "%zu", at - function);
		cr_assert_eq(cfa_is_bare(&rows), expected[i].base == CFA_RSP && expected[i].offset == 8);
	}
}

#define OWN_ROWS(...) make_usual((const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))
#define EXPECT_ROWS(image, ...)                                                                                        \
	expect_rows(image, (const struct row[]){ __VA_ARGS__ },                                                        \
		    sizeof((struct row[]){ __VA_ARGS__ }) / sizeof(struct row))

/* Behind an instruction, one more row, which says that all of the instruction was read. */
#define MARK 0x41, 0x0e, 99
#define MARKED(at) { at, CFA_RSP, 99 }

Test(cfa, nothing_of_its_own)
{
	EXPECT_ROWS(make_usual(NULL, 0), { 0, CFA_RSP, 8 });
}

Test(cfa, push_and_pop)
{
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x44, 0x0c, 7, 8), { 0, CFA_RSP, 8 },
		    { 2, CFA_RSP, 16 }, { 8, 6, 16 }, { 16, CFA_RSP, 8 });
}

/* Several instructions may change one row, and advance by nothing. */
Test(cfa, one_row_by_many_instructions)
{
	EXPECT_ROWS(OWN_ROWS(0x0e, 16, 0x40, 0x0e, 24, 0x02, 0, 0x0d, 3, 0, MARK), { 0, 3, 24 }, { 2, 3, 99 });
}

Test(cfa, advances)
{
	EXPECT_ROWS(OWN_ROWS(0x02, 5, 0x0e, 16, 0x03, 6, 0, 0x0e, 24, 0x04, 7, 0, 0, 0, 0x0e, 32), { 0, CFA_RSP, 8 },
		    { 10, CFA_RSP, 16 }, { 22, CFA_RSP, 24 }, { 36, CFA_RSP, 32 });
}

/* To an address, which is relative to where it stands: four bytes behind OWN + 17, and one. */
Test(cfa, advance_to_an_address)
{
	const uint8_t there = LOWER + 40 - (OWN + 17 + 1);

	EXPECT_ROWS(OWN_ROWS(0x01, there, 0, 0, 0, 0x0e, 16), { 0, CFA_RSP, 8 }, { 40, CFA_RSP, 16 });
	/* Backwards. */
	EXPECT_ROWS(OWN_ROWS(0x58, 0x0e, 16, 0x01, there - 3, 0, 0, 0), { 0, CFA_RSP, 8 }, { 48, DAMAGED, 0 });
}

Test(cfa, remembered)
{
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e, 16, 0x0a, 0x41, 0x0e, 24, 0x0a, 0x41, 0x0d, 6, 0x41, 0x0b, 0x41, 0x0b),
		    { 0, CFA_RSP, 8 }, { 2, CFA_RSP, 16 }, { 4, CFA_RSP, 24 }, { 6, 6, 24 }, { 8, CFA_RSP, 24 },
		    { 10, CFA_RSP, 16 });
}

Test(cfa, remembered_too_often)
{
	EXPECT_ROWS(OWN_ROWS(0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, MARK), { 0, CFA_RSP, 8 }, MARKED(2));
	EXPECT_ROWS(OWN_ROWS(0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x41, 0x0a), { 0, CFA_RSP, 8 },
		    { 2, DAMAGED, 0 });
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0b), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
}

Test(cfa, signed_and_factored)
{
	EXPECT_ROWS(OWN_ROWS(0x12, 6, 0x7e, 0x41, 0x13, 0x7d), { 0, 6, 16 }, { 2, 6, 24 });
}

/* An expression says nothing that is known here; only a whole new rule ends that. */
Test(cfa, expressions)
{
	EXPECT_ROWS(OWN_ROWS(0x0f, 2, 0x77, 8, 0x41, 0x0e, 16, 0x41, 0x0d, 3, 0x41, 0x0c, 7, 8), { 0, UNKNOWN, 0 },
		    { 2, UNKNOWN, 0 }, { 4, UNKNOWN, 0 }, { 6, CFA_RSP, 8 });
	EXPECT_ROWS(OWN_ROWS(0x10, 3, 2, 0x77, 8, 0x16, 3, 2, 0x77, 8, MARK), { 0, CFA_RSP, 8 }, MARKED(2));
}

/* Rules of registers do not touch the CFA, however many bytes they take. */
Test(cfa, registers)
{
	EXPECT_ROWS(OWN_ROWS(0x83, 0x82, 1, 0xc3, 0x05, 3, 0x82, 1, 0x06, 3, 0x07, 3, 0x08, 3, 0x09, 3, 6, MARK),
		    { 0, CFA_RSP, 8 }, MARKED(2));
	EXPECT_ROWS(OWN_ROWS(0x11, 3, 0x7f, 0x14, 3, 2, 0x15, 3, 0x7f, 0x2e, 16, 0x2f, 3, 2, 0, 0, MARK),
		    { 0, CFA_RSP, 8 }, MARKED(2));
}

/* ---- where registers are kept ------------------------------------------------------------------------------------ */

struct kept {
	unsigned int lower; /* in the function */
	int rbx, r12, rip;  /* in words */
};

static void expect_kept(struct image image, const struct kept *expected, size_t count)
{
	const uintptr_t function = (uintptr_t)image.bytes + LOWER;
	struct cfa_rows rows;

	cr_assert(cfa_begin(&rows, &image.module, function));
	for (size_t i = 0; i < count; ++i) {
		cfa_seek(&rows, function + expected[i].lower);
		cr_expect_eq(rows.frame.kept[3], expected[i].rbx, "rbx at %u: %d", expected[i].lower,
			     rows.frame.kept[3]);
		cr_expect_eq(rows.frame.kept[12], expected[i].r12, "r12 at %u: %d", expected[i].lower,
			     rows.frame.kept[12]);
		cr_expect_eq(rows.frame.kept[CFA_RETURN_ADDRESS], expected[i].rip, "rip at %u: %d", expected[i].lower,
			     rows.frame.kept[CFA_RETURN_ADDRESS]);
	}
}

#define EXPECT_KEPT(image, ...)                                                                                        \
	expect_kept(image, (const struct kept[]){ __VA_ARGS__ },                                                       \
		    sizeof((struct kept[]){ __VA_ARGS__ }) / sizeof(struct kept))

Test(cfa, kept)
{
	EXPECT_KEPT(OWN_ROWS(0x41, 0x83, 2, 0x41, 0x8c, 3, 0x41, 0xc3, 0x41, 0x06, 12), { 0, 0, 0, -1 },
		    { 2, -2, 0, -1 }, { 4, -2, -3, -1 }, { 6, 0, -3, -1 }, { 8, 0, 0, -1 });
	EXPECT_KEPT(OWN_ROWS(0x05, 3, 0x82, 1, 0x11, 12, 0x7e, 0x41, 0x08, 3, 0x07, 16), { 0, -130, 2, -1 },
		    { 2, 0, 2, CFA_KEPT_ELSEWHERE });
	EXPECT_KEPT(OWN_ROWS(0x0a, 0x83, 2, 0x8c, 4, 0x41, 0x0b, 0x41, 0x90, 5, 0x41, 0xd0), { 0, -2, -4, -1 },
		    { 2, 0, 0, -1 }, { 4, 0, 0, -5 }, { 6, 0, 0, -1 });
}

/* In ways that are not told from each other, or too far away. */
Test(cfa, kept_in_other_ways)
{
	static const uint8_t common[] = { USUAL, 0x8c, 2 };
	static const uint8_t own[] = { 0x06, 3, 0xcc, 0x41, 0x09, 12, 6, 0x14, 3, 1 };

	EXPECT_KEPT(make(common, sizeof(common), own, sizeof(own)), { 0, 0, -2, -1 },
		    { 2, CFA_KEPT_ELSEWHERE, CFA_KEPT_ELSEWHERE, -1 });
	EXPECT_KEPT(OWN_ROWS(0x15, 3, 1, 0x2f, 12, 1, 0x41, 0x10, 3, 2, 0x77, 8, 0x16, 12, 2, 0x77, 8),
		    { 0, CFA_KEPT_ELSEWHERE, CFA_KEPT_ELSEWHERE, -1 },
		    { 2, CFA_KEPT_ELSEWHERE, CFA_KEPT_ELSEWHERE, -1 });
	EXPECT_KEPT(OWN_ROWS(0x83, 0x80, 0x80, 2, 0x8c, 0xff, 0xff, 1), { 0, CFA_KEPT_ELSEWHERE, -0x7fff, -1 });
	/* Numbers of registers that are not looked at. */
	EXPECT_KEPT(OWN_ROWS(0x91, 2, 0xd1, 0x06, 0x80, 2, 0x07, 0x80, 2, 0x05, 0xff, 1, 2), { 0, 0, 0, -1 });
}

/* The end of the function is not passed, however far a row reaches; nor is it read what comes then. */
Test(cfa, beyond_the_end)
{
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e, 16, 0x02, 250, 0x3f), { 0, CFA_RSP, 8 }, { 2, CFA_RSP, 16 });
	EXPECT_ROWS(OWN_ROWS(0x02, (UPPER - LOWER) / 2, 0x3f), { 0, CFA_RSP, 8 });
}

Test(cfa, instructions_that_are_none)
{
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e, 16, 0x3f), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
	EXPECT_ROWS(OWN_ROWS(0x3f), { 0, DAMAGED, 0 });
	/* Cut short. */
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
	EXPECT_ROWS(OWN_ROWS(0x41, 0x04, 1, 0), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0f, 3, 0x77), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
	/* A register that there is not, an offset that no one can use. */
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0d, 0x80, 2), { 0, CFA_RSP, 8 }, { 2, DAMAGED, 0 });
	EXPECT_ROWS(OWN_ROWS(0x41, 0x0e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), { 0, CFA_RSP, 8 },
		    { 2, DAMAGED, 0 });
}

Test(cfa, common_part_that_is_none)
{
	static const uint8_t advancing[] = { USUAL, 0x41, 0x0e, 16 }, none[] = { USUAL, 0x3f };
	static const uint8_t own[] = { 0x41, 0x0c, 7, 16 };

	EXPECT_ROWS(make(advancing, sizeof(advancing), own, sizeof(own)), { 0, DAMAGED, 0 });
	EXPECT_ROWS(make(none, sizeof(none), own, sizeof(own)), { 0, DAMAGED, 0 });
	/* Without any, nothing is known. */
	EXPECT_ROWS(make(NULL, 0, own, sizeof(own)), { 0, UNKNOWN, 0 }, { 2, CFA_RSP, 16 });
}

Test(cfa, no_entry)
{
	struct image image = make_usual(NULL, 0);
	struct cfa_rows rows;

	cr_expect_not(cfa_begin(&rows, &image.module, (uintptr_t)image.bytes + LOWER - 1));
	cr_expect_not(cfa_begin(&rows, &image.module, (uintptr_t)image.bytes + UPPER));
	image.module.eh_frame_hdr = NULL;
	cr_expect_not(cfa_begin(&rows, &image.module, (uintptr_t)image.bytes + LOWER));
}

/* Rows are in order and end, whatever the bytes are; nothing outside the image is read. */
Test(cfa, broken_at_random)
{
	static const uint8_t own[] = { 0x41, 0x0e, 16, 0x0a, 0x02, 5,    0x0d, 6, 0x04, 1, 0, 0, 0,
				       0x0b, 0x0f, 2,  0x77, 8,    0x44, 0x0c, 7, 8,    0, 0, 0 };
	struct image image = make_usual(own, sizeof(own));
	uint8_t whole[LOWER];

	memcpy(whole, image.bytes, sizeof(whole));
	srand(1);
	for (int round = 0; round < 200000; ++round) {
		struct cfa_rows rows;
		uintptr_t upper;

		for (int i = rand() % 3; i >= 0; --i)
			image.bytes[COMMON + rand() % (OWN + 17 + sizeof(own) - COMMON)] = (uint8_t)rand();
		if (cfa_begin(&rows, &image.module, (uintptr_t)image.bytes + LOWER)) {
			upper = rows.lower;
			do {
				cr_assert(rows.lower == upper && rows.upper > upper);
				upper = rows.upper;
			} while (cfa_next(&rows));
			cr_assert_eq(upper, rows.entry.upper);
		}
		if (round % 8 == 0)
			memcpy(image.bytes, whole, sizeof(whole));
	}
}

/* ---- what the assembler makes ------------------------------------------------------------------------------------ */

extern const uint8_t cfa_function[], cfa_pushed[], cfa_based[], cfa_left[], cfa_cold[], cfa_unknown[], cfa_end[];

__asm__(".pushsection .text\n"
	"cfa_function:\n"
	"	.cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset 6, -16\n"
	"cfa_pushed:\n"
	"	mov %rsp, %rbp\n"
	"	.cfi_def_cfa_register 6\n"
	"cfa_based:\n"
	"	.skip 1000, 0x90\n"
	"	.cfi_remember_state\n"
	"	leave\n"
	"	.cfi_def_cfa 7, 8\n"
	"cfa_left:\n"
	"	ret\n"
	"	.cfi_restore_state\n"
	"cfa_cold:\n"
	"	nop\n"
	"	.cfi_escape 0x0f, 2, 0x77, 8\n"
	"cfa_unknown:\n"
	"	nop\n"
	"cfa_end:\n"
	"	.cfi_endproc\n"
	".popsection\n");

Test(cfa, assembled)
{
	static const struct {
		const uint8_t *lower, *upper;
		int base;
		int64_t offset;
	} expected[] = {
		{ cfa_function, cfa_pushed, CFA_RSP, 8 }, { cfa_pushed, cfa_based, CFA_RSP, 16 },
		{ cfa_based, cfa_left, 6, 16 },           { cfa_left, cfa_cold, CFA_RSP, 8 },
		{ cfa_cold, cfa_unknown, 6, 16 },         { cfa_unknown, cfa_end, UNKNOWN, 0 },
	};
	struct module module;
	struct cfa_rows rows;

	cr_assert(module_find((uintptr_t)cfa_function, &module));
	cr_assert(cfa_begin(&rows, &module, (uintptr_t)cfa_function));
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); ++i) {
		const struct row row = { (unsigned int)(expected[i].lower - cfa_function), expected[i].base,
					 expected[i].offset };

		cfa_seek(&rows, (uintptr_t)expected[i].lower);
		expect_frame(&rows, &row);
		cfa_seek(&rows, (uintptr_t)expected[i].upper - 1);
		expect_frame(&rows, &row);
	}
}
