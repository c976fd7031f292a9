/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Relocated copies byte for byte, at the ends of their reach, with their rows. What the copies do when run:
 * test_relocate_run.c.
 */
#include "bytes.h"

#include "arch/emit.h"

#include <criterion/criterion.h>
#include <string.h>

#define FROM 0x7f0000001000UL   /* where originals are */
#define TO (FROM + 0x100000)    /* where their copies are */
#define LOW 0x401000UL          /* an original at an address of 31 bits */
#define LE32(x) (uint8_t)(x), (uint8_t)((x) >> 8), (uint8_t)((x) >> 16), (uint8_t)((x) >> 24)
#define LE64(x) LE32((uint64_t)(x)), LE32((uint64_t)(x) >> 32)
/* rel32 of a field `offset` bytes into the copy, to `target`, with `tail` bytes behind the field */
#define REL(target, offset, tail) LE32((uint32_t)((target) - (TO + (offset) + 4 + (tail))))

struct copy_case {
	const char *text;
	uint8_t original[16];
	size_t original_size;
	uint8_t copy[96];
	size_t copy_size;
};

static void decode(struct arch_insn *insn, const uint8_t *bytes, size_t size, uintptr_t address)
{
	cr_assert(arch_decode(bytes, size, address, insn));
	cr_assert_eq(insn->length, size);
	cr_assert_not(insn->flags & ARCH_F_REFUSED);
}

static void expect_copies_at(uintptr_t base, bool far, const struct copy_case *cases, size_t count,
			     const struct arch_map *map)
{
	uint8_t bytes[128];
	struct arch_insn insn;
	size_t i;

	for (i = 0; i < count; i++) {
		struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = base, .far = far };
		struct arch_code dry = { .base = TO, .far = far };

		decode(&insn, cases[i].original, cases[i].original_size, FROM);
		arch_relocate(&code, cases[i].original, &insn, FROM, map);
		bytes_expect(cases[i].text, bytes, code.size, cases[i].copy, cases[i].copy_size);
		cr_expect_not(code.out_of_range, "%s", cases[i].text);
		arch_relocate(&dry, cases[i].original, &insn, FROM, map);
		cr_expect_eq(dry.size, code.size, "%s: dry run", cases[i].text);
	}
}

static void expect_copies(const struct copy_case *cases, size_t count, const struct arch_map *map)
{
	expect_copies_at(TO, false, cases, count, map);
}

#define EXPECT_COPIES(cases) expect_copies(cases, ARRAY_SIZE(cases), NULL)
#define O(...) BYTES(__VA_ARGS__)
#define C(...) BYTES(__VA_ARGS__)

Test(relocate, plain)
{
	static const struct copy_case cases[] = {
		{ "push rbp", O(0x55), C(0x55) },
		{ "lock inc dword [rsp+8]", O(0xF0, 0xFF, 0x44, 0x24, 8), C(0xF0, 0xFF, 0x44, 0x24, 8) },
		{ "ret 8", O(0xC2, 8, 0), C(0xC2, 8, 0) },
		{ "repz ret", O(0xF3, 0xC3), C(0xF3, 0xC3) },
		{ "ud2", O(0x0F, 0x0B), C(0x0F, 0x0B) },
		{ "int3", O(0xCC), C(0xCC) },
		{ "syscall; mov rcx, behind the original", O(0x0F, 0x05), C(0x0F, 0x05, 0x48, 0xB9, LE64(FROM + 2)) },
		{ "int 0x80", O(0xCD, 0x80), C(0xCD, 0x80) },
		{ "notrack jmp rax", O(0x3E, 0xFF, 0xE0), C(0x3E, 0xFF, 0xE0) },
		{ "nop [rip+1] as it is", O(0x0F, 0x1F, 0x05, 1, 0, 0, 0), C(0x0F, 0x1F, 0x05, 1, 0, 0, 0) },
	};

	EXPECT_COPIES(cases);
}

Test(relocate, rip_relative)
{
	static const struct copy_case cases[] = {
		{ "mov rax, [rip+0x100]", O(0x48, 0x8B, 0x05, LE32(0x100)),
		  C(0x48, 0x8B, 0x05, REL(FROM + 7 + 0x100, 3, 0)) },
		{ "mov dword [rip+0x100], 7", O(0xC7, 0x05, LE32(0x100), LE32(7)),
		  C(0xC7, 0x05, REL(FROM + 10 + 0x100, 2, 4), LE32(7)) },
		{ "cmp byte [rip-0x100], 7", O(0x80, 0x3D, LE32(-0x100), 7),
		  C(0x80, 0x3D, REL(FROM + 7 - 0x100, 2, 1), 7) },
		{ "jmp [rip+0x100]", O(0xFF, 0x25, LE32(0x100)), C(0xFF, 0x25, REL(FROM + 6 + 0x100, 2, 0)) },
		{ "vpalignr xmm0, xmm1, [rip+0x100], 5", O(0xC4, 0xE3, 0x71, 0x0F, 0x05, LE32(0x100), 5),
		  C(0xC4, 0xE3, 0x71, 0x0F, 0x05, REL(FROM + 10 + 0x100, 5, 1), 5) },
		{ "vpternlogd zmm0, zmm1, [rip+0x100], 5", O(0x62, 0xF3, 0x75, 0x48, 0x25, 0x05, LE32(0x100), 5),
		  C(0x62, 0xF3, 0x75, 0x48, 0x25, 0x05, REL(FROM + 11 + 0x100, 6, 1), 5) },
		{ "vprotb xmm0, [rip+0x100], 5 (XOP)", O(0x8F, 0xE8, 0x78, 0xC0, 0x05, LE32(0x100), 5),
		  C(0x8F, 0xE8, 0x78, 0xC0, 0x05, REL(FROM + 10 + 0x100, 5, 1), 5) },
		{ "pfadd mm0, [rip+0x100] (3DNow!)", O(0x0F, 0x0F, 0x05, LE32(0x100), 0x9E),
		  C(0x0F, 0x0F, 0x05, REL(FROM + 8 + 0x100, 3, 1), 0x9E) },
		{ "ud0 eax, [rip+0x100]", O(0x0F, 0xFF, 0x05, LE32(0x100)),
		  C(0x0F, 0xFF, 0x05, REL(FROM + 7 + 0x100, 3, 0)) },
	};

	EXPECT_COPIES(cases);
}

Test(relocate, direct_branches)
{
	static const struct copy_case cases[] = {
		{ "jmp rel8 to itself", O(0xEB, 0xFE), C(0xE9, REL(FROM, 1, 0)) },
		{ "jmp rel32", O(0xE9, LE32(0x100)), C(0xE9, REL(FROM + 5 + 0x100, 1, 0)) },
		{ "bnd jmp rel32", O(0xF2, 0xE9, LE32(0x100)), C(0xE9, REL(FROM + 6 + 0x100, 1, 0)) },
		{ "jo rel8", O(0x70, 0x10), C(0x0F, 0x80, REL(FROM + 2 + 0x10, 2, 0)) },
		{ "jg rel8 back", O(0x7F, 0x80), C(0x0F, 0x8F, REL(FROM + 2 - 0x80, 2, 0)) },
		{ "jne,pt rel8", O(0x3E, 0x75, 0x10), C(0x0F, 0x85, REL(FROM + 3 + 0x10, 2, 0)) },
		{ "jne,pn rel32", O(0x2E, 0x0F, 0x85, LE32(0x100)), C(0x0F, 0x85, REL(FROM + 7 + 0x100, 2, 0)) },
		{ "loop", O(0xE2, 0x10), C(0xE2, 2, 0xEB, 5, 0xE9, REL(FROM + 2 + 0x10, 5, 0)) },
		{ "loope to itself", O(0xE1, 0xFE), C(0xE1, 2, 0xEB, 5, 0xE9, REL(FROM, 5, 0)) },
		{ "jrcxz", O(0xE3, 0x10), C(0xE3, 2, 0xEB, 5, 0xE9, REL(FROM + 2 + 0x10, 5, 0)) },
		{ "jecxz", O(0x67, 0xE3, 0x10), C(0x67, 0xE3, 2, 0xEB, 5, 0xE9, REL(FROM + 3 + 0x10, 6, 0)) },
		{ "loopne that is loope by its prefix", O(0xF3, 0xE0, 0x10),
		  C(0xF3, 0xE0, 2, 0xEB, 5, 0xE9, REL(FROM + 3 + 0x10, 6, 0)) },
		{ "loop with ECX and a hint", O(0x2E, 0x67, 0xE2, 0x10),
		  C(0x67, 0xE2, 2, 0xEB, 5, 0xE9, REL(FROM + 4 + 0x10, 6, 0)) },
		{ "repne loope", O(0xF2, 0xE1, 0x10), C(0xF2, 0xE1, 2, 0xEB, 5, 0xE9, REL(FROM + 3 + 0x10, 6, 0)) },
		{ "xbegin", O(0xC7, 0xF8, LE32(0x100)), C(0xC7, 0xF8, REL(FROM + 6 + 0x100, 2, 0)) },
	};

	EXPECT_COPIES(cases);
}

/* call over; int3; over: */
#define CALL_OVER 0xE8, LE32(1), 0xCC
#define DROP 0x48, 0x8D, 0x64, 0x24, 8 /* lea rsp, [rsp + 8] */
/* call over; lea rsp, [rsp + 8]; push qword [rip + size of the jump and of the padding behind it] */
#define PUSH_RETURN(jmp_and_padding) CALL_OVER, DROP, 0xFF, 0x35, LE32(jmp_and_padding)
#define PUSH_SIZE 17
/* Up to the constant, which is aligned; padding for jumps of so many bytes, with nothing in front of PUSH_RETURN. */
#define PAD_1 0xCC
#define PAD_2 0xCC, 0xCC
#define PAD_3 PAD_2, 0xCC
#define PAD_4 PAD_2, PAD_2
#define PAD_5 PAD_4, 0xCC
#define PAD_6 PAD_4, PAD_2
#define PAD_7 PAD_4, PAD_3

Test(relocate, calls)
{
	static const struct copy_case cases[] = {
		{ "call rel32", O(0xE8, LE32(0x100)),
		  C(PUSH_RETURN(7), 0xE9, REL(FROM + 5 + 0x100, PUSH_SIZE + 1, 0), PAD_2, LE64(FROM + 5)) },
		{ "call to the next instruction", O(0xE8, LE32(0)),
		  C(PUSH_RETURN(7), 0xE9, REL(FROM + 5, PUSH_SIZE + 1, 0), PAD_2, LE64(FROM + 5)) },
		{ "data16 data16 rex.W call (TLS)", O(0x66, 0x66, 0x48, 0xE8, LE32(0x100)),
		  C(PUSH_RETURN(7), 0xE9, REL(FROM + 8 + 0x100, PUSH_SIZE + 1, 0), PAD_2, LE64(FROM + 8)) },
		{ "addr32 call", O(0x67, 0xE8, LE32(0x100)),
		  C(PUSH_RETURN(7), 0xE9, REL(FROM + 6 + 0x100, PUSH_SIZE + 1, 0), PAD_2, LE64(FROM + 6)) },
		{ "call rax", O(0xFF, 0xD0), C(PUSH_RETURN(7), 0xFF, 0xE0, PAD_5, LE64(FROM + 2)) },
		{ "call r12", O(0x41, 0xFF, 0xD4), C(PUSH_RETURN(7), 0x41, 0xFF, 0xE4, PAD_4, LE64(FROM + 3)) },
	};

	EXPECT_COPIES(cases);
}

/* The pointer is read by a push first: for its faults. */
Test(relocate, calls_through_memory)
{
	static const struct copy_case cases[] = {
		{ "notrack call [rax+8]", O(0x3E, 0xFF, 0x50, 8),
		  C(0x3E, 0xFF, 0x70, 8, DROP, PUSH_RETURN(6), 0x3E, 0xFF, 0x60, 8, PAD_2, LE64(FROM + 4)) },
		{ "call [r12]", O(0x41, 0xFF, 0x14, 0x24),
		  C(0x41, 0xFF, 0x34, 0x24, DROP, PUSH_RETURN(6), 0x41, 0xFF, 0x24, 0x24, PAD_2, LE64(FROM + 4)) },
		{ "call fs:[0x10]", O(0x64, 0xFF, 0x14, 0x25, LE32(0x10)),
		  C(0x64, 0xFF, 0x34, 0x25, LE32(0x10), DROP, PUSH_RETURN(10), 0x64, 0xFF, 0x24, 0x25, LE32(0x10),
		    PAD_2, LE64(FROM + 8)) },
		{ "call [rip+0x100]", O(0xFF, 0x15, LE32(0x100)),
		  C(0xFF, 0x35, REL(FROM + 6 + 0x100, 2, 0), DROP, PUSH_RETURN(12), 0xFF, 0x25,
		    REL(FROM + 6 + 0x100, 11 + PUSH_SIZE + 2, 0), PAD_6, LE64(FROM + 6)) },
		{ "data16 rex.W call [rip+0x100] (TLS)", O(0x66, 0x48, 0xFF, 0x15, LE32(0x100)),
		  C(0x66, 0x48, 0xFF, 0x35, REL(FROM + 8 + 0x100, 4, 0), DROP, PUSH_RETURN(10), 0x66, 0x48, 0xFF, 0x25,
		    REL(FROM + 8 + 0x100, 13 + PUSH_SIZE + 4, 0), PAD_2, LE64(FROM + 8)) },
	};

	EXPECT_COPIES(cases);
}

Test(relocate, calls_through_the_stack)
{
	static const struct copy_case cases[] = {
		{ "call [rsp]", O(0xFF, 0x14, 0x24),
		  C(0xFF, 0x34, 0x24, DROP, PUSH_RETURN(7), 0xFF, 0x64, 0x24, 8, PAD_3, LE64(FROM + 3)) },
		{ "call [rsp+119], last with disp8", O(0xFF, 0x54, 0x24, 119),
		  C(0xFF, 0x74, 0x24, 119, DROP, PUSH_RETURN(6), 0xFF, 0x64, 0x24, 127, PAD_2, LE64(FROM + 4)) },
		{ "call [rsp+120], first with disp32", O(0xFF, 0x54, 0x24, 120),
		  C(0xFF, 0x74, 0x24, 120, DROP, PUSH_RETURN(14), 0xFF, 0xA4, 0x24, LE32(128), PAD_7, LE64(FROM + 4)) },
		{ "call [rsp-16]", O(0xFF, 0x54, 0x24, 0xF0),
		  C(0xFF, 0x74, 0x24, 0xF0, DROP, PUSH_RETURN(6), 0xFF, 0x64, 0x24, 0xF8, PAD_2, LE64(FROM + 4)) },
		{ "call [rsp-128]", O(0xFF, 0x54, 0x24, 0x80),
		  C(0xFF, 0x74, 0x24, 0x80, DROP, PUSH_RETURN(6), 0xFF, 0x64, 0x24, 0x88, PAD_2, LE64(FROM + 4)) },
		{ "call [rsp+0x7ffffff7]", O(0xFF, 0x94, 0x24, LE32(0x7FFFFFF7)),
		  C(0xFF, 0xB4, 0x24, LE32(0x7FFFFFF7), DROP, PUSH_RETURN(11), 0xFF, 0xA4, 0x24, LE32(0x7FFFFFFF),
		    PAD_4, LE64(FROM + 7)) },
		{ "call [rsp-0x80000000]", O(0xFF, 0x94, 0x24, LE32(0x80000000)),
		  C(0xFF, 0xB4, 0x24, LE32(0x80000000), DROP, PUSH_RETURN(11), 0xFF, 0xA4, 0x24, LE32(0x80000008),
		    PAD_4, LE64(FROM + 7)) },
		{ "call [esp+8]", O(0x67, 0xFF, 0x54, 0x24, 8),
		  C(0x67, 0xFF, 0x74, 0x24, 8, DROP, PUSH_RETURN(5), 0x67, 0xFF, 0x64, 0x24, 16, LE64(FROM + 5)) },
	};

	EXPECT_COPIES(cases);
}

/* lea rsp, [rsp - 120]; push qword [rsp + 120]; twice call over and lea rsp, [rsp + 8] */
#define BELOW 0x48, 0x8D, 0x64, 0x24, 0x88, 0xFF, 0x74, 0x24, 120, CALL_OVER, DROP, CALL_OVER, DROP
/* push qword [rip + ...]; pop qword [rsp + 128]; ret 120 */
#define RETURN_TO(padding) 0xFF, 0x35, LE32(10 + (padding)), 0x8F, 0x84, 0x24, LE32(128), 0xC2, 120, 0

/* The pointer is, or may be, in the slot of the return address. */
Test(relocate, calls_by_a_return)
{
	static const struct copy_case cases[] = {
		{ "call [rsp-8]", O(0xFF, 0x54, 0x24, 0xF8),
		  C(0xFF, 0x74, 0x24, 0xF8, BELOW, RETURN_TO(5), PAD_5, LE64(FROM + 4)) },
		{ "call [rsp-1]", O(0xFF, 0x54, 0x24, 0xFF),
		  C(0xFF, 0x74, 0x24, 0xFF, BELOW, RETURN_TO(5), PAD_5, LE64(FROM + 4)) },
		{ "call [rsp-15]", O(0xFF, 0x54, 0x24, 0xF1),
		  C(0xFF, 0x74, 0x24, 0xF1, BELOW, RETURN_TO(5), PAD_5, LE64(FROM + 4)) },
		{ "call [rsp-8], disp32", O(0xFF, 0x94, 0x24, LE32(-8)),
		  C(0xFF, 0xB4, 0x24, LE32(-8), BELOW, RETURN_TO(2), PAD_2, LE64(FROM + 7)) },
		{ "call [rsp+rcx*8]", O(0xFF, 0x14, 0xCC),
		  C(0xFF, 0x34, 0xCC, BELOW, RETURN_TO(6), PAD_6, LE64(FROM + 3)) },
		{ "call [rsp+r12*4]", O(0x42, 0xFF, 0x14, 0xA4),
		  C(0x42, 0xFF, 0x34, 0xA4, BELOW, RETURN_TO(5), PAD_5, LE64(FROM + 4)) },
		{ "call [rsp+0x7ffffff8]", O(0xFF, 0x94, 0x24, LE32(0x7FFFFFF8)),
		  C(0xFF, 0xB4, 0x24, LE32(0x7FFFFFF8), BELOW, RETURN_TO(2), PAD_2, LE64(FROM + 7)) },
		{ "call ds:[rsp] with 12 prefixes",
		  O(0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0xFF, 0x14, 0x24),
		  C(0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0xFF, 0x34, 0x24, BELOW,
		    RETURN_TO(2), PAD_2, LE64(FROM + 15)) },
		{ "call rsp", O(0xFF, 0xD4), C(0xFF, 0xF4, BELOW, RETURN_TO(7), PAD_7, LE64(FROM + 2)) },
		{ "call r12 is none", O(0x41, 0xFF, 0xD4), C(PUSH_RETURN(7), 0x41, 0xFF, 0xE4, PAD_4, LE64(FROM + 3)) },
	};

	EXPECT_COPIES(cases);
}

/* A program at a low address: one store of a sign-extended immediate, no constant behind. */
Test(relocate, call_from_a_low_address)
{
	static const uint8_t original[] = { 0xE8, LE32(0x100) };
	static const uint8_t copy[] = { 0xE8, LE32(1), 0xCC, 0x48, 0xC7, 0x04, 0x24, LE32(LOW + 5), 0xE9,
					LE32(LOW + 5 + 0x100 - (0x501000 + 19)) };
	static const struct arch_row expected[] = { { 0, 3, 0 }, { 6, 3, 1 }, { 19, 3, 0 } };
	uint8_t bytes[64];
	struct arch_row rows[8];
	struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = 0x501000, .rows = rows,
				  .row_capacity = ARRAY_SIZE(rows), .original = 3 };
	struct arch_insn insn;

	decode(&insn, original, sizeof(original), LOW);
	arch_relocate(&code, original, &insn, LOW, NULL);
	bytes_expect("call from low", bytes, code.size, copy, sizeof(copy));
	rows_expect(&code, expected, ARRAY_SIZE(expected));

	/* The last return address that a sign-extended immediate holds, and the first that it does not. */
	code = (struct arch_code){ .base = 0x501000 };
	arch_relocate(&code, original, &insn, 0x7FFFFFFF - 5, NULL);
	cr_expect_eq(code.size, 19);
	code = (struct arch_code){ .base = 0x501000 };
	arch_relocate(&code, original, &insn, 0x80000000 - 5, NULL);
	cr_expect_eq(code.size, PUSH_SIZE + 7 + 8);
}

Test(relocate, rows_of_a_sequence)
{
	static const uint8_t call[] = { 0xE8, LE32(0x100) }, push[] = { 0x55 };
	static const struct arch_row expected[] = { { 0, 0, 0 },  { 1, 1, 0 },  { 7, 1, 1 },
						    { 12, 1, 0 }, { 18, 1, 1 }, { 32, 6, 0 } };
	uint8_t bytes[64];
	struct arch_row rows[16];
	struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = TO, .rows = rows,
				  .row_capacity = ARRAY_SIZE(rows) };
	struct arch_insn insn;

	decode(&insn, push, sizeof(push), FROM);
	arch_relocate(&code, push, &insn, FROM, NULL);
	decode(&insn, call, sizeof(call), FROM + 1);
	code.original = 1;
	arch_relocate(&code, call, &insn, FROM + 1, NULL);
	decode(&insn, push, sizeof(push), FROM + 6);
	code.original = 6;
	arch_relocate(&code, push, &insn, FROM + 6, NULL);
	rows_expect(&code, expected, ARRAY_SIZE(expected));
}

Test(relocate, branches_inside_the_region)
{
	static const uintptr_t from[] = { FROM + 3, FROM + 5 }, to[] = { TO + 0x40, TO + 0x80 };
	static const struct arch_map map = { from, to, 2 };
	static const struct copy_case cases[] = {
		{ "jmp +3", O(0xEB, 1), C(0xE9, REL(TO + 0x40, 1, 0)) },
		{ "jmp +4 is no boundary", O(0xEB, 2), C(0xE9, REL(FROM + 4, 1, 0)) },
		{ "je +5", O(0x74, 3), C(0x0F, 0x84, REL(TO + 0x80, 2, 0)) },
		{ "loop +3", O(0xE2, 1), C(0xE2, 2, 0xEB, 5, 0xE9, REL(TO + 0x40, 5, 0)) },
		{ "call +5", O(0xE8, LE32(0)),
		  C(PUSH_RETURN(7), 0xE9, REL(TO + 0x80, PUSH_SIZE + 1, 0), PAD_2, LE64(FROM + 5)) },
		{ "lea rax, [rip-4] is data", O(0x48, 0x8D, 0x05, LE32(-4)), C(0x48, 0x8D, 0x05, REL(FROM + 3, 3, 0)) },
	};

	expect_copies(cases, ARRAY_SIZE(cases), &map);
}

/* The copy is moved until its displacement just reaches its target, then one byte farther; both directions. */
Test(relocate, reach)
{
	static const struct {
		const char *text;
		uint8_t bytes[16];
		size_t size;
		size_t end; /* of the copy that a displacement counts from */
	} cases[] = {
		{ "jmp", BYTES(0xE9, LE32(0)), 5 },
		{ "jmp rel8", BYTES(0xEB, 0), 5 },
		{ "je", BYTES(0x0F, 0x84, LE32(0)), 6 },
		{ "loop", BYTES(0xE2, 0), 9 },
		{ "jecxz", BYTES(0x67, 0xE3, 0), 10 },
		{ "call", BYTES(0xE8, LE32(0)), PUSH_SIZE + 5 },
		{ "jmp [rip+0]", BYTES(0xFF, 0x25, LE32(0)), 6 },
		{ "xbegin", BYTES(0xC7, 0xF8, LE32(0)), 6 },
		{ "mov rax, [rip+0]", BYTES(0x48, 0x8B, 0x05, LE32(0)), 7 },
		{ "mov dword [rip+0], 7", BYTES(0xC7, 0x05, LE32(0), LE32(7)), 10 },
	};
	uint8_t bytes[64];
	struct arch_insn insn;
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const uintptr_t nearest = FROM + cases[i].size - cases[i].end;
		const uintptr_t bases[] = { nearest - 0x7FFFFFFFUL, nearest - 0x80000000UL, nearest + 0x80000000UL,
					    nearest + 0x80000001UL };

		decode(&insn, cases[i].bytes, cases[i].size, FROM);
		for (k = 0; k < ARRAY_SIZE(bases); k++) {
			struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = bases[k] };

			arch_relocate(&code, cases[i].bytes, &insn, FROM, NULL);
			cr_expect_eq(code.out_of_range, k % 2 == 1, "%s, %zu", cases[i].text, k);
		}
	}
}

/* ---- far copies ------------------------------------------------------------------------------------------------- */

#define FAR 0x10000UL /* as far as can be; equal to TO modulo 8 */

/* jmp [rip + padding]; padding; target */
#define FAR_JMP(padding, pad, target) 0xFF, 0x25, LE32(padding), pad LE64(target)
#define COMMA ,

Test(relocate, far_branches)
{
	static const struct copy_case cases[] = {
		{ "jmp rel8", O(0xEB, 0x10), C(FAR_JMP(2, PAD_2 COMMA, FROM + 0x12)) },
		{ "jmp rel32", O(0xE9, LE32(0x100)), C(FAR_JMP(2, PAD_2 COMMA, FROM + 0x105)) },
		{ "je rel8", O(0x74, 0x10), C(0x0F, 0x85, LE32(18), FAR_JMP(4, PAD_4 COMMA, FROM + 0x12)) },
		{ "jg rel32", O(0x0F, 0x8F, LE32(0x100)),
		  C(0x0F, 0x8E, LE32(18), FAR_JMP(4, PAD_4 COMMA, FROM + 0x106)) },
		{ "loop", O(0xE2, 0x10), C(0xE2, 5, 0xE9, LE32(17), FAR_JMP(3, PAD_3 COMMA, FROM + 0x12)) },
		{ "jecxz", O(0x67, 0xE3, 0x10),
		  C(0x67, 0xE3, 5, 0xE9, LE32(16), FAR_JMP(2, PAD_2 COMMA, FROM + 0x13)) },
		{ "xbegin", O(0xC7, 0xF8, LE32(0x100)),
		  C(0xC7, 0xF8, LE32(5), 0xE9, LE32(21), FAR_JMP(7, PAD_7 COMMA, FROM + 0x106)) },
		{ "call", O(0xE8, LE32(0x100)),
		  C(PUSH_RETURN(15), FAR_JMP(1, PAD_1 COMMA, FROM + 0x105), LE64(FROM + 5)) },
		{ "call rax", O(0xFF, 0xD0), C(PUSH_RETURN(7), 0xFF, 0xE0, PAD_5, LE64(FROM + 2)) },
		{ "call [rax]", O(0xFF, 0x10), C(0xFF, 0x30, DROP, PUSH_RETURN(8), 0xFF, 0x20, PAD_6, LE64(FROM + 2)) },
		{ "jmp [rax]", O(0xFF, 0x20), C(0xFF, 0x20) },
		{ "ret", O(0xC3), C(0xC3) },
	};

	expect_copies_at(FAR, true, cases, ARRAY_SIZE(cases), NULL);
}

/* lea rsp, [rsp - 136]; push rax; mov rax, [target]; mov [rsp + 8], rax; pop rax */
#define TARGET_BELOW(...)                                                                                              \
	0x48, 0x8D, 0xA4, 0x24, LE32(-136), 0x50, __VA_ARGS__, 0x48, 0x89, 0x44, 0x24, 8, 0x58, CALL_OVER, DROP
#define LOAD(target) 0x48, 0xA1, LE64(target)

Test(relocate, far_indirect_branches)
{
	static const struct copy_case cases[] = {
		{ "call [rip+0x100]", O(0xFF, 0x15, LE32(0x100)),
		  C(TARGET_BELOW(LOAD(FROM + 0x106)), CALL_OVER, DROP, RETURN_TO(1), PAD_1, LE64(FROM + 6)) },
		{ "call fs:[rip+0x100]", O(0x64, 0xFF, 0x15, LE32(0x100)),
		  C(TARGET_BELOW(0x64, LOAD(FROM + 0x107)), CALL_OVER, DROP, RETURN_TO(0), LE64(FROM + 7)) },
		{ "jmp [rip+0x100]", O(0xFF, 0x25, LE32(0x100)), C(TARGET_BELOW(LOAD(FROM + 0x106)), 0xC2, 128, 0) },
	};

	expect_copies_at(FAR, true, cases, ARRAY_SIZE(cases), NULL);
}

/* lea rsp, [rsp - 128]; push scratch; mov scratch, target */
#define BORROW(scratch, target) 0x48, 0x8D, 0x64, 0x24, 0x80, 0x50 | (scratch), 0x48, 0xB8 | (scratch), LE64(target)
/* pop scratch; lea rsp, [rsp + size] */
#define GIVE_BACK(scratch, size) 0x58 | (scratch), 0x48, 0x8D, 0xA4, 0x24, LE32(size)
#define RAX 0
#define RCX 1
#define RSI 6

Test(relocate, far_operands)
{
	static const struct copy_case cases[] = {
		{ "mov rbx, [rip+0x100]", O(0x48, 0x8B, 0x1D, LE32(0x100)),
		  C(BORROW(RAX, FROM + 0x107), 0x48, 0x8B, 0x18, GIVE_BACK(RAX, 128)) },
		{ "mov ah, [rip+0x100]", O(0x8A, 0x25, LE32(0x100)),
		  C(BORROW(RCX, FROM + 0x106), 0x8A, 0x21, GIVE_BACK(RCX, 128)) },
		{ "add rax, [rip+0x100] with REX.B", O(0x49, 0x03, 0x05, LE32(0x100)),
		  C(BORROW(RCX, FROM + 0x107), 0x48, 0x03, 0x01, GIVE_BACK(RCX, 128)) },
		{ "lock cmpxchg16b [rip+0x100]", O(0xF0, 0x48, 0x0F, 0xC7, 0x0D, LE32(0x100)),
		  C(BORROW(RSI, FROM + 0x109), 0xF0, 0x48, 0x0F, 0xC7, 0x0E, GIVE_BACK(RSI, 128)) },
		{ "mov dword fs:[rip+0x100], 7", O(0x64, 0xC7, 0x05, LE32(0x100), LE32(7)),
		  C(BORROW(RAX, FROM + 0x10B), 0x64, 0xC7, 0x00, LE32(7), GIVE_BACK(RAX, 128)) },
		{ "vpaddd xmm2, xmm2, [rip+0x100]", O(0xC5, 0xE9, 0xFE, 0x15, LE32(0x100)),
		  C(BORROW(RAX, FROM + 0x108), 0xC5, 0xE9, 0xFE, 0x10, GIVE_BACK(RAX, 128)) },
		{ "the same with VEX.B", O(0xC4, 0xC1, 0x69, 0xFE, 0x15, LE32(0x100)),
		  C(BORROW(RAX, FROM + 0x109), 0xC4, 0xE1, 0x69, 0xFE, 0x10, GIVE_BACK(RAX, 128)) },
		{ "vpternlogd zmm0, zmm1, [rip+0x100], 5, with EVEX.B",
		  O(0x62, 0xD3, 0x75, 0x48, 0x25, 0x05, LE32(0x100), 5),
		  C(BORROW(RAX, FROM + 0x10B), 0x62, 0xF3, 0x75, 0x48, 0x25, 0x00, 5, GIVE_BACK(RAX, 128)) },
		{ "vprotb xmm0, [rip+0x100], 5 (XOP.B)", O(0x8F, 0xC8, 0x78, 0xC0, 0x05, LE32(0x100), 5),
		  C(BORROW(RAX, FROM + 0x10A), 0x8F, 0xE8, 0x78, 0xC0, 0x00, 5, GIVE_BACK(RAX, 128)) },
		{ "lea rcx, [rip+0x100]", O(0x48, 0x8D, 0x0D, LE32(0x100)), C(0x48, 0xB9, LE64(FROM + 0x107)) },
		{ "lea rsp, [rip+0x100]", O(0x48, 0x8D, 0x25, LE32(0x100)), C(0x48, 0xBC, LE64(FROM + 0x107)) },
		{ "lea r12d, [rip+0x100]", O(0x45, 0x8D, 0x25, LE32(0x100)), C(0x41, 0xBC, LE32(FROM + 0x107)) },
		{ "lea cx, [rip+0x100]", O(0x66, 0x8D, 0x0D, LE32(0x100)), C(0x66, 0xB9, 0x07, 0x11) },
		{ "push [rip+0x100]", O(0xFF, 0x35, LE32(0x100)),
		  C(0x48, 0x8D, 0x64, 0x24, 0x80, 0x50, LOAD(FROM + 0x106), 0x48, 0x89, 0x84, 0x24, LE32(128),
		    GIVE_BACK(RAX, 120)) },
		{ "pop [rip+0x100]", O(0x8F, 0x05, LE32(0x100)),
		  C(BORROW(RAX, FROM + 0x106), 0xFF, 0xB4, 0x24, LE32(136), 0x8F, 0x00, GIVE_BACK(RAX, 136)) },
		{ "ud0 eax, [rip+0x100] as it is", O(0x0F, 0xFF, 0x05, LE32(0x100)), C(0x0F, 0xFF, 0x05, LE32(0x100)) },
		{ "mov eax, [rsp+8]", O(0x8B, 0x44, 0x24, 8), C(0x8B, 0x44, 0x24, 8) },
	};

	expect_copies_at(FAR, true, cases, ARRAY_SIZE(cases), NULL);
}

Test(relocate, far_rows)
{
	static const uint8_t mov[] = { 0x48, 0x8B, 0x1D, LE32(0x100) }, push[] = { 0xFF, 0x35, LE32(0x100) },
			     pop[] = { 0x8F, 0x05, LE32(0x100) };
	static const struct arch_row of_mov[] = { { 0, 2, 0 },   { 5, 2, 16 },  { 6, 2, 17 },
						  { 19, 9, 17 }, { 20, 9, 16 }, { 28, 9, 0 } };
	static const struct arch_row of_push[] = { { 0, 2, 0 },   { 5, 2, 16 },  { 6, 2, 17 },
						   { 24, 8, 16 }, { 25, 8, 15 }, { 33, 8, 0 } };
	static const struct arch_row of_pop[] = { { 0, 2, 0 },   { 5, 2, 16 },  { 6, 2, 17 }, { 23, 2, 18 },
						  { 25, 8, 18 }, { 26, 8, 17 }, { 34, 8, 0 } };
	static const struct {
		const uint8_t *bytes;
		size_t size;
		const struct arch_row *rows;
		size_t count;
	} cases[] = {
		{ mov, sizeof(mov), of_mov, ARRAY_SIZE(of_mov) },
		{ push, sizeof(push), of_push, ARRAY_SIZE(of_push) },
		{ pop, sizeof(pop), of_pop, ARRAY_SIZE(of_pop) },
	};
	struct arch_row rows[16];
	struct arch_insn insn;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct arch_code code = { .base = FAR, .rows = rows, .row_capacity = ARRAY_SIZE(rows), .original = 2,
					  .far = true };

		decode(&insn, cases[i].bytes, cases[i].size, FROM);
		arch_relocate(&code, cases[i].bytes, &insn, FROM, NULL);
		rows_expect(&code, cases[i].rows, cases[i].count);
	}
}

Test(relocate, refused_far)
{
	static const struct {
		const char *text;
		uint8_t bytes[16];
		size_t size;
		const char *why;
	} cases[] = {
		{ "mov rsp, [rip+0]", BYTES(0x48, 0x8B, 0x25, LE32(0)), "stack pointer" },
		{ "mov [rip+0], rsp", BYTES(0x48, 0x89, 0x25, LE32(0)), "stack pointer" },
		{ "cmp [rip+0], spl", BYTES(0x40, 0x38, 0x25, LE32(0)), "stack pointer" },
		{ "push word [rip+0]", BYTES(0x66, 0xFF, 0x35, LE32(0)), "16 bits" },
		{ "pop word [rip+0]", BYTES(0x66, 0x8F, 0x05, LE32(0)), "16 bits" },
		{ "jmp word [rip+0]", BYTES(0x66, 0xFF, 0x25, LE32(0)), "16 bits" },
		{ "jmp far [rip+0]", BYTES(0xFF, 0x2D, LE32(0)), "far jump" },
		{ "mov rsp, rax", BYTES(0x48, 0x89, 0xC4), NULL },
		{ "mov r12, [rip+0]", BYTES(0x4C, 0x8B, 0x25, LE32(0)), NULL },
		{ "mov ah, [rip+0]", BYTES(0x8A, 0x25, LE32(0)), NULL },
		{ "addps xmm4, [rip+0]", BYTES(0x0F, 0x58, 0x25, LE32(0)), NULL },
		{ "lea rsp, [rip+0]", BYTES(0x48, 0x8D, 0x25, LE32(0)), NULL },
		{ "push [rip+0]", BYTES(0xFF, 0x35, LE32(0)), NULL },
		{ "data16 rex.W push [rip+0]", BYTES(0x66, 0x48, 0xFF, 0x35, LE32(0)), NULL },
		{ "call [rip+0]", BYTES(0xFF, 0x15, LE32(0)), NULL },
		{ "je", BYTES(0x74, 0), NULL },
		{ "ud0 esp, [rip+0]", BYTES(0x0F, 0xFF, 0x25, LE32(0)), NULL },
	};
	struct arch_insn insn;
	const char *why;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert(arch_decode(cases[i].bytes, cases[i].size, FROM, &insn));
		why = arch_refuses_far(cases[i].bytes, &insn);
		if (cases[i].why == NULL)
			cr_expect_null(why, "%s: %s", cases[i].text, why ? why : "");
		else
			cr_expect(why && strstr(why, cases[i].why), "%s: %s", cases[i].text, why ? why : "not refused");
	}
}

/* ---- around ----------------------------------------------------------------------------------------------------- */

struct exits {
	struct arch_exit ways[4];
	size_t count;
};

#define HOLE 0xF8, 0xF8, 0xF8

static void emit_hole(struct arch_code *code, const struct arch_exit *exit, void *data)
{
	static const uint8_t hole[] = { HOLE };
	struct exits *exits = data;

	if (exits->count < ARRAY_SIZE(exits->ways))
		exits->ways[exits->count] = *exit;
	exits->count++;
	arch_emit_u8(code, hole[0]);
	arch_emit_row(code, 2);
	arch_emit_bytes(code, hole + 1, 2);
}

#define NEXT(address) { .next = (address) }
#define BELOW_RETURN(address) { .next = (address), .held = ARCH_HELD_BELOW }
#define HELD(where, bytes) { .held = (where), .above = (bytes) }

/* push [rsp]; lea rsp, [rsp + 16] */
#define KEEP 0xFF, 0x34, 0x24, 0x48, 0x8D, 0x64, 0x24, 16
#define JMP_KEPT 0xFF, 0x64, 0x24, 0xF8 /* jmp [rsp - 8] */
#define SKIP 0x48, 0x8D, 0x64, 0x24, 0x80 /* lea rsp, [rsp - 128] */
#define RETURN_BELOW CALL_OVER, DROP, 0xC2, 128, 0

struct around_case {
	struct copy_case copy;
	struct exits exits;
};

static void expect_around(const struct around_case *cases, size_t count, uint16_t written, bool far)
{
	uint8_t bytes[128];
	struct arch_row rows[16];
	struct arch_insn insn;
	struct exits exits;
	size_t i, j;

	for (i = 0; i < count; i++) {
		const struct copy_case *c = &cases[i].copy;
		struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = TO, .rows = rows,
					  .row_capacity = ARRAY_SIZE(rows), .far = far };

		exits = (struct exits){ 0 };
		decode(&insn, c->original, c->original_size, FROM);
		cr_expect_null(arch_refuses_around(c->original, &insn, written, false), "%s", c->text);
		arch_relocate_around(&code, c->original, &insn, FROM, NULL, written, emit_hole, &exits);
		bytes_expect(c->text, bytes, code.size, c->copy, c->copy_size);
		cr_expect_eq(exits.count, cases[i].exits.count, "%s: exits", c->text);
		for (j = 0; j < exits.count; j++)
			cr_expect(exits.ways[j].next == cases[i].exits.ways[j].next &&
					  exits.ways[j].held == cases[i].exits.ways[j].held &&
					  exits.ways[j].above == cases[i].exits.ways[j].above,
				  "%s: exit %zu", c->text, j);
		cr_expect_eq(rows[code.row_count - 1].cfa, 0, "%s: last row", c->text);
	}
}

Test(relocate, around)
{
	static const struct around_case cases[] = {
		{ { "jmp rel8", O(0xEB, 0x10), C(HOLE, 0xE9, REL(FROM + 0x12, 4, 0)) }, { { NEXT(FROM + 0x12) }, 1 } },
		{ { "je rel8", O(0x74, 0x10), C(0x0F, 0x85, LE32(8), HOLE, 0xE9, REL(FROM + 0x12, 10, 0), HOLE) },
		  { { NEXT(FROM + 0x12), NEXT(FROM + 2) }, 2 } },
		{ { "jg rel32 to itself", O(0x0F, 0x8F, LE32(-6)),
		    C(0x0F, 0x8E, LE32(8), HOLE, 0xE9, REL(FROM, 10, 0), HOLE) },
		  { { NEXT(FROM), NEXT(FROM + 6) }, 2 } },
		{ { "loop", O(0xE2, 0x10),
		    C(0xE2, 5, 0xE9, LE32(8), HOLE, 0xE9, REL(FROM + 0x12, 11, 0), HOLE) },
		  { { NEXT(FROM + 0x12), NEXT(FROM + 2) }, 2 } },
		{ { "jecxz", O(0x67, 0xE3, 0x10),
		    C(0x67, 0xE3, 5, 0xE9, LE32(8), HOLE, 0xE9, REL(FROM + 0x13, 12, 0), HOLE) },
		  { { NEXT(FROM + 0x13), NEXT(FROM + 3) }, 2 } },
		{ { "notrack jmp rax", O(0x3E, 0xFF, 0xE0), C(HOLE, 0x3E, 0xFF, 0xE0) }, { { HELD(0, 0) }, 1 } },
		{ { "jmp r13", O(0x41, 0xFF, 0xE5), C(HOLE, 0x41, 0xFF, 0xE5) }, { { HELD(13, 0) }, 1 } },
		{ { "jmp rsp", O(0xFF, 0xE4), C(HOLE, 0xFF, 0xE4) }, { { HELD(4, 0) }, 1 } },
		{ { "ret", O(0xC3), C(HOLE, 0xC3) }, { { HELD(ARCH_HELD_ON_TOP, 8) }, 1 } },
		{ { "ret 8", O(0xC2, 8, 0), C(HOLE, 0xC2, 8, 0) }, { { HELD(ARCH_HELD_ON_TOP, 16) }, 1 } },
	};

	expect_around(cases, ARRAY_SIZE(cases), 0, false);
	expect_around(cases, ARRAY_SIZE(cases), 0xFFFF & ~(1U << 0 | 1U << 4 | 1U << 13), false);
}

/* The target is read before the hole, which may change what it was read from. */
Test(relocate, around_calls)
{
	static const struct around_case cases[] = {
		{ { "call rel32", O(0xE8, LE32(0x100)),
		    C(PUSH_RETURN(15), HOLE, 0xE9, REL(FROM + 5 + 0x100, PUSH_SIZE + 4, 0), PAD_7, LE64(FROM + 5)) },
		  { { NEXT(FROM + 5) }, 1 } },
		{ { "call rax", O(0xFF, 0xD0),
		    C(0xFF, 0xF0, KEEP, PUSH_RETURN(13), HOLE, JMP_KEPT, PAD_6, LE64(FROM + 2)) },
		  { { BELOW_RETURN(FROM + 2) }, 1 } },
		{ { "call rsp", O(0xFF, 0xD4),
		    C(0xFF, 0xF4, KEEP, PUSH_RETURN(13), HOLE, JMP_KEPT, PAD_6, LE64(FROM + 2)) },
		  { { BELOW_RETURN(FROM + 2) }, 1 } },
		{ { "call [rip+0x100]", O(0xFF, 0x15, LE32(0x100)),
		    C(0xFF, 0x35, REL(FROM + 6 + 0x100, 2, 0), KEEP, PUSH_RETURN(9), HOLE, JMP_KEPT, PAD_2,
		      LE64(FROM + 6)) },
		  { { BELOW_RETURN(FROM + 6) }, 1 } },
		{ { "call [rsp-8]", O(0xFF, 0x54, 0x24, 0xF8),
		    C(0xFF, 0x74, 0x24, 0xF8, KEEP, PUSH_RETURN(11), HOLE, JMP_KEPT, PAD_4, LE64(FROM + 4)) },
		  { { BELOW_RETURN(FROM + 4) }, 1 } },
	};

	expect_around(cases, ARRAY_SIZE(cases), 0xFFFF, false);
	expect_around(cases, ARRAY_SIZE(cases), 0, false);
}

Test(relocate, around_jumps_by_a_return)
{
	static const struct around_case cases[] = {
		{ { "jmp [rip+0x100]", O(0xFF, 0x25, LE32(0x100)),
		    C(SKIP, 0xFF, 0x35, REL(FROM + 6 + 0x100, 7, 0), HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
		{ { "jmp [rbx+rcx*8]", O(0xFF, 0x24, 0xCB), C(SKIP, 0xFF, 0x34, 0xCB, HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
		{ { "jmp [rsp]", O(0xFF, 0x24, 0x24), C(SKIP, 0xFF, 0xB4, 0x24, LE32(128), HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
		{ { "jmp fs:[rsp+r9*2-8]", O(0x64, 0x42, 0xFF, 0x64, 0x4C, 0xF8),
		    C(SKIP, 0x64, 0x42, 0xFF, 0xB4, 0x4C, LE32(120), HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
		{ { "jmp rax, which the hole changes", O(0xFF, 0xE0), C(SKIP, 0xFF, 0xF0, HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
		{ { "jmp r13", O(0x41, 0xFF, 0xE5), C(SKIP, 0x41, 0xFF, 0xF5, HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
	};

	expect_around(cases, ARRAY_SIZE(cases), 1U << 0 | 1U << 13, false);
}

/* lea rsp, [rsp - 136]; push rax; mov rax, [...]; mov [rsp + 8], rax; pop rax */
#define FAR_BELOW(target)                                                                                              \
	0x48, 0x8D, 0xA4, 0x24, LE32(-136), 0x50, 0x48, 0xA1, LE64(target), 0x48, 0x89, 0x44, 0x24, 8, 0x58

Test(relocate, around_far)
{
	static const struct around_case cases[] = {
		/* ...; pop [rsp + 112]; lea rsp, [rsp + 128] */
		{ { "call [rip+0x100]", O(0xFF, 0x15, LE32(0x100)),
		    C(FAR_BELOW(FROM + 6 + 0x100), 0x8F, 0x44, 0x24, 112, 0x48, 0x8D, 0xA4, 0x24, LE32(128),
		      PUSH_RETURN(10), HOLE, JMP_KEPT, PAD_3, LE64(FROM + 6)) },
		  { { BELOW_RETURN(FROM + 6) }, 1 } },
		{ { "jmp [rip+0x100]", O(0xFF, 0x25, LE32(0x100)),
		    C(FAR_BELOW(FROM + 6 + 0x100), HOLE, RETURN_BELOW) },
		  { { HELD(ARCH_HELD_ON_TOP, 136) }, 1 } },
	};

	expect_around(cases, ARRAY_SIZE(cases), 0, true);
}

/* In holes rows count what the copy has on the stack, and behind them. */
Test(relocate, around_rows_of_calls_and_jumps)
{
	static const uint8_t call[] = { 0xFF, 0xD0 }, jmp[] = { 0xFF, 0x24, 0x24 };
	static const struct arch_row of_call[] = { { 0, 0, 0 },  { 2, 0, 1 },  { 5, 0, 2 },  { 10, 0, 0 },
						   { 16, 0, 1 }, { 21, 0, 0 }, { 27, 0, 1 }, { 28, 0, 3 },
						   { 30, 0, 1 }, { 48, 0, 0 } };
	static const struct arch_row of_jmp[] = { { 0, 0, 0 },   { 5, 0, 16 },  { 12, 0, 17 }, { 13, 0, 19 },
						  { 15, 0, 17 }, { 21, 0, 18 }, { 26, 0, 17 }, { 29, 0, 0 } };
	uint8_t bytes[64];
	struct arch_row rows[16];
	struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = TO, .rows = rows,
				  .row_capacity = ARRAY_SIZE(rows) };
	struct exits exits = { 0 };
	struct arch_insn insn;

	decode(&insn, call, sizeof(call), FROM);
	arch_relocate_around(&code, call, &insn, FROM, NULL, 0, emit_hole, &exits);
	rows_expect(&code, of_call, ARRAY_SIZE(of_call));
	code.size = code.row_count = 0;
	decode(&insn, jmp, sizeof(jmp), FROM);
	arch_relocate_around(&code, jmp, &insn, FROM, NULL, 0, emit_hole, &exits);
	rows_expect(&code, of_jmp, ARRAY_SIZE(of_jmp));
}

Test(relocate, around_refused)
{
	static const struct {
		const char *text;
		uint8_t bytes[15];
		size_t size;
		uint16_t written;
		bool shadow_stack;
		const char *why;
	} cases[] = {
		{ "nop", BYTES(0x90), 0xFFFF, true, NULL },
		{ "ret", BYTES(0xC3), 0xFFFF, true, NULL },
		{ "int3", BYTES(0xCC), 0, false, "trapping" },
		{ "ud2", BYTES(0x0F, 0x0B), 0, false, "trapping" },
		{ "xbegin", BYTES(0xC7, 0xF8, 0, 0, 0, 0), 0, false, "xbegin" },
		{ "call rax", BYTES(0xFF, 0xD0), 0xFFFF, false, NULL },
		{ "jmp rax", BYTES(0xFF, 0xE0), 0xFFFE, true, NULL },
		{ "jmp rax, written", BYTES(0xFF, 0xE0), 1, true, "shadow stack" },
		{ "jmp rax, written, no shadow stack", BYTES(0xFF, 0xE0), 1, false, NULL },
		{ "jmp [rax]", BYTES(0xFF, 0x20), 0, true, "shadow stack" },
		{ "jmp far [rax]", BYTES(0xFF, 0x28), 0, false, "far jump" },
		{ "data16 jmp rax", BYTES(0x66, 0xFF, 0xE0), 0, false, "16-bit" },
		{ "data16 rex.w jmp rax", BYTES(0x66, 0x48, 0xFF, 0xE0), 0, false, NULL },
		{ "jmp [rsp+0x7fffff7f]", BYTES(0xFF, 0xA4, 0x24, LE32(0x7FFFFF7F)), 0, false, NULL },
		{ "jmp [rsp+0x7fffff80]", BYTES(0xFF, 0xA4, 0x24, LE32(0x7FFFFF80)), 0, false, "too far" },
		{ "jmp [rsp] with 8 prefixes",
		  BYTES(0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0xFF, 0x24, 0x24), 0, false, NULL },
		{ "jmp [rsp] with 9 prefixes",
		  BYTES(0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0x3E, 0xFF, 0x24, 0x24), 0, false, "prefixes" },
	};
	struct arch_insn insn;
	const char *why;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert(arch_decode(cases[i].bytes, cases[i].size, FROM, &insn), "%s", cases[i].text);
		why = arch_refuses_around(cases[i].bytes, &insn, cases[i].written, cases[i].shadow_stack);
		if (cases[i].why == NULL)
			cr_expect_null(why, "%s: %s", cases[i].text, why ? why : "");
		else
			cr_expect(why != NULL && strstr(why, cases[i].why), "%s: %s", cases[i].text, why ? why : "");
	}
}

Test(relocate, around_rows_and_map)
{
	static const uint8_t original[] = { 0x74, 0x10 };
	static const uint8_t copy[] = { 0x0F, 0x85, LE32(8), HOLE, 0xE9, REL(TO + 0x40, 10, 0), HOLE };
	static const struct arch_row expected[] = { { 0, 0, 0 }, { 7, 0, 2 }, { 9, 0, 0 }, { 15, 0, 2 }, { 17, 0, 0 } };
	static const uintptr_t from[] = { FROM + 0x12 }, to[] = { TO + 0x40 };
	static const struct arch_map map = { from, to, 1 };
	uint8_t bytes[64];
	struct arch_row rows[16];
	struct arch_code code = { .bytes = bytes, .capacity = sizeof(bytes), .base = TO, .rows = rows,
				  .row_capacity = ARRAY_SIZE(rows) };
	struct exits exits = { 0 };
	struct arch_insn insn;

	decode(&insn, original, sizeof(original), FROM);
	arch_relocate_around(&code, original, &insn, FROM, &map, 0, emit_hole, &exits);
	bytes_expect("je into the region", bytes, code.size, copy, sizeof(copy));
	rows_expect(&code, expected, ARRAY_SIZE(expected));
	cr_expect_eq(exits.ways[0].next, FROM + 0x12, "hooks are told the program's address");
}

/* A buffer too small: nothing behind it is written, label fields included; the size is the full one. */
Test(relocate, small_buffers)
{
	static const uint8_t call[] = { 0xE8, LE32(0x100) }, je[] = { 0x74, 0x10 };
	uint8_t bytes[64];
	struct exits exits = { 0 };
	struct arch_insn insn;
	size_t capacity, i;

	for (capacity = 0; capacity < 40; capacity++) {
		struct arch_code code = { .bytes = bytes, .capacity = capacity, .base = TO };

		memset(bytes, 0xA5, sizeof(bytes));
		decode(&insn, call, sizeof(call), FROM);
		arch_relocate(&code, call, &insn, FROM, NULL);
		cr_expect_eq(code.size, PUSH_SIZE + 7 + 8);
		code.size = 0;
		decode(&insn, je, sizeof(je), FROM);
		arch_relocate_around(&code, je, &insn, FROM, NULL, 0, emit_hole, &exits);
		cr_expect_eq(code.size, 17);
		for (i = capacity; i < sizeof(bytes); i++)
			cr_expect_eq(bytes[i], 0xA5, "capacity %zu, byte %zu", capacity, i);
	}
}
