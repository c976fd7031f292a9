/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Relocated copies of several hundred instructions with RIP-relative operands, run beside their originals.
 */
#include "beside.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ---- generated forms -------------------------------------------------------------------------------------------- */

/* prefixes, opcode, ModRM (RIP-relative, `reg`), displacement, immediate */
static void rip_form(const char *prefixes, const char *opcode, unsigned int reg, size_t immediate, unsigned int setup)
{
	struct form form = { .setup = setup };
	char text[80];
	size_t size = strlen(prefixes), i;

	memcpy(form.bytes, prefixes, size);
	/* A map's 00 opcode is given as a string that ends early. */
	memcpy(form.bytes + size, opcode, MAX(strlen(opcode), (size_t)1));
	size += MAX(strlen(opcode), (size_t)1);
	form.bytes[size++] = 0x05 | reg << 3;
	size += 4;
	for (i = 0; i < immediate; i++)
		form.bytes[size++] = 0x13 + 0x21 * i;
	form.size = size;
	size = 0;
	for (i = 0; i < form.size; i++)
		size += snprintf(text + size, sizeof(text) - size, "%02x ", form.bytes[i]);
	form.text = text;
	beside_check(&form);
}

static void integer_forms(void)
{
	static const char *const widths[] = { "", "\x66", "\x48", "\x4C" };
	char opcode[3] = "";
	unsigned int op, w, i;

	for (op = 0; op < 8; op++) {
		for (w = 0; w < ARRAY_SIZE(widths); w++) {
			for (i = 0; i < 4; i++) {
				opcode[0] = op * 8 + i;
				rip_form(widths[w], opcode, op, 0, 0);
			}
		}
		for (w = 0; w < 3; w++) {
			rip_form(widths[w], "\x81", op, w == 1 ? 2 : 4, 0); /* add ... cmp, immediate */
			rip_form(widths[w], "\x83", op, 1, 0);
			rip_form(widths[w], "\xC1", op, 1, 0); /* rol ... sar */
			rip_form(widths[w], "\xD1", op, 0, 0);
			rip_form(widths[w], "\xD3", op, 0, 0);
		}
		rip_form("", "\x80", op, 1, 0);
		rip_form("", "\xC0", op, 1, 0);
		if (op != 7)
			rip_form("\xF0\x48", "\x81", op, 4, 0); /* lock */
		if (op >= 4)
			rip_form("\x48", "\x0F\xBA", op, 1, 0); /* bt, bts, btr, btc */
		if (op < 6) {
			rip_form("", "\xF6", op, op < 2, 0); /* test, not, neg, mul, imul */
			rip_form("\x48", "\xF7", op, op < 2 ? 4 : 0, 0);
		}
	}
	for (i = 0; i < 16; i++) {
		opcode[0] = 0x0F;
		opcode[1] = 0x90 | i; /* setcc */
		rip_form("", opcode, 0, 0, 0);
		opcode[1] = 0x40 | i; /* cmovcc */
		rip_form(i & 1 ? "\x4C" : "", opcode, i & 7, 0, 0);
	}
	for (w = 0; w < ARRAY_SIZE(widths); w++) {
		static const char *const two_operands[] = {
			"\x85", "\x87", "\x89", "\x8B", "\x8D", "\x0F\xAF", "\x0F\xB1", "\x0F\xB6",
			"\x0F\xB7", "\x0F\xBC", "\x0F\xBD", "\x0F\xBE", "\x0F\xBF", "\x0F\xC1", "\x0F\xA5",
		};
		for (i = 0; i < ARRAY_SIZE(two_operands); i++)
			rip_form(widths[w], two_operands[i], i & 7, 0, 0);
		rip_form(widths[w], "\x69", 3, w == 1 ? 2 : 4, 0); /* imul r, m, imm */
		rip_form(widths[w], "\x6B", 3, 1, 0);
		rip_form(widths[w], "\x0F\xA4", 3, 1, 0); /* shld */
	}
	rip_form("", "\xC6", 0, 1, 0); /* mov m, imm */
	rip_form("", "\xC7", 0, 4, 0);
	rip_form("\x66", "\xC7", 0, 2, 0);
	rip_form("\x48", "\xC7", 0, 4, 0);
	rip_form("\x48", "\x63", 5, 0, 0); /* movsxd */
	for (i = 0; i < 2; i++) { /* inc, dec */
		rip_form("", "\xFE", i, 0, 0);
		rip_form("\xF0\x48", "\xFF", i, 0, 0);
	}
	rip_form("", "\xFF", 6, 0, 0); /* push */
	rip_form("", "\x8F", 0, 0, 0); /* pop */
	rip_form("\xF0\x48", "\x0F\xC7", 1, 0, 0); /* lock cmpxchg16b */
	rip_form("", "\xD9", 0, 0, 0); /* fld, fstp, fild */
	rip_form("", "\xDD", 0, 0, 0);
	rip_form("", "\xDB", 7, 0, 0);
	rip_form("", "\xDF", 5, 0, 0);
}

static void vector_forms(void)
{
	static const char *const prefixes[] = { "", "\x66", "\xF3", "\xF2" };
	static const char *const all[] = { "\x0F\x10", "\x0F\x11", "\x0F\x51", "\x0F\x58", "\x0F\x59",
					   "\x0F\x5C", "\x0F\x5D", "\x0F\x5E", "\x0F\x5F" };
	unsigned int p, i, reg;
	char opcode[8] = "";

	for (p = 0; p < ARRAY_SIZE(prefixes); p++) {
		for (i = 0; i < ARRAY_SIZE(all); i++)
			rip_form(prefixes[p], all[i], i & 7, 0, 0);
		rip_form(prefixes[p], "\x0F\xC2", 2, 1, 0); /* cmpps: predicate 0x13 uses its low bits */
		rip_form(prefixes[p], "\x0F\x70", 2, 1, 0); /* pshufw, pshufd, ... */
	}
	rip_form("", "\x0F\x28", 1, 0, 0);
	rip_form("", "\x0F\x29", 1, 0, 0);
	rip_form("", "\x0F\xC6", 1, 1, 0); /* shufps */
	for (i = 0xD0; i < 0xFF; i++) {
		opcode[0] = 0x0F, opcode[1] = i, opcode[2] = 0;
		if (i == 0xD0 || i == 0xD6 || i == 0xD7 || i == 0xE6 || i == 0xE7 || i == 0xF0 || i == 0xF7)
			continue;
		rip_form("\x66\x44", opcode, i & 7, 0, 0); /* packed integers */
		/* vex.128/256.66.0f and evex.512.66.0f.w1 of the same */
		for (reg = 0; reg < 8; reg += 5) {
			opcode[0] = i, opcode[1] = 0;
			rip_form("\xC5\xED", opcode, reg, 0, V3);
			rip_form("\xC4\x61\x31", opcode, reg, 0, V3);
			if (i == 0xD9 || i == 0xDD || i == 0xE4 || i == 0xFD || i == 0xFC || i == 0xF9)
				rip_form("\x62\xF1\xED\x48", opcode, reg, 0, V4);
		}
	}
	for (i = 0; i < 0x0C; i++) { /* vex.256.66.0f38: vpshufb ... */
		opcode[0] = i, opcode[1] = 0;
		rip_form("\xC4\xE2\x6D", opcode, i & 7, 0, V3);
	}
	for (i = 0x08; i < 0x10; i++) { /* vex.128/256.66.0f3a with an immediate: vroundps ... vpalignr */
		opcode[0] = i, opcode[1] = 0;
		rip_form(i < 0x0A ? "\xC4\xE3\x7D" : "\xC4\xE3\x69", opcode, i & 7, 1, V3);
		opcode[0] = 0x0F, opcode[1] = 0x3A, opcode[2] = i, opcode[3] = 0;
		rip_form("\x66", opcode, i & 7, 1, V3);
	}
	rip_form("\xC4\xE2\x70", "\xF2", 0, 0, V3); /* andn */
	rip_form("\xC4\xE2\xF1", "\xF7", 0, 0, V3); /* shlx */
	rip_form("\xC4\xE3\xFB", "\xF0", 0, 1, V3); /* rorx with an immediate */
	rip_form("\xC4\xE2\xF3", "\xF5", 0, 0, V3); /* pdep */
	rip_form("\x48", "\x0F\x38\xF0", 3, 0, V3); /* movbe */
	rip_form("\xF2\x48", "\x0F\x38\xF1", 3, 0, V3); /* crc32 */
	rip_form("\xF3\x48", "\x0F\xB8", 3, 0, V3); /* popcnt */
	for (reg = 0; reg < 8; reg++) {
		rip_form("\x62\xF3\x75\x48", "\x25", reg, 1, V4);     /* vpternlogd zmm, zmm1, m, imm */
		rip_form("\x62\x63\x75\xD9", "\x25", reg, 1, V4);     /* the same, {k1}{z}, m32 broadcast, zmm24+ */
		rip_form("\x62\xF1\xFE\x4A", "\x6F", reg, 0, V4);     /* vmovdqu64 zmm{k2}, m */
		rip_form("\x62\xF1\xFE\x2B", "\x7F", reg, 0, V4);     /* vmovdqu64 m{k3}, ymm */
		rip_form("\x62\xF3\x75\x48", "\x1F", reg, 1, V4);     /* vpcmpd k, zmm1, m, imm */
		rip_form("\x62\xF1\x74\x48", "\x58", reg, 0, V4);     /* vaddps */
	}
}

/* The extension of the base, which means nothing here, set in every kind of prefix; FS; and every register used. */
static void extended_bases(void)
{
	rip_form("\x49", "\x8B", 3, 0, 0);                   /* mov rbx, [rip + ...] */
	rip_form("\x4D", "\x01", 3, 0, 0);                   /* add [rip + ...], r11 */
	rip_form("\x4F", "\x8D", 4, 0, 0);                   /* lea r12, [rip + ...] */
	rip_form("\x66\x45", "\x8D", 4, 0, 0);               /* lea r12w */
	rip_form("\x66", "\x8D", 1, 0, 0);                   /* lea cx */
	rip_form("\x45", "\x8D", 4, 0, 0);                   /* lea r12d */
	rip_form("\x41", "\x0F\x58", 4, 0, 0);               /* addps xmm4 */
	rip_form("\x66\x45", "\x0F\x38\x01", 3, 0, V3);     /* phaddw xmm11 */
	rip_form("\xC4\xC1\x69", "\xFE", 2, 0, V3);          /* vpaddd, VEX.B */
	rip_form("\xC4\x41\x69", "\xFE", 2, 0, V3);
	rip_form("\x62\xD1\x6D\x48", "\xFE", 2, 0, V4);      /* vpaddd zmm, EVEX.B */
	rip_form("\x62\xB1\x6D\x48", "\xFE", 2, 0, V4);      /* EVEX.X */
	rip_form("\x49", "\xFF", 6, 0, 0);                   /* push */
	rip_form("\x41", "\x8F", 0, 0, 0);                   /* pop */
	rip_form("\xF0\x49", "\x0F\xC7", 1, 0, 0);          /* lock cmpxchg16b: rax, rbx, rcx, rdx */
	rip_form("\xC4\xC2\xFB", "\xF6", 0, 0, V3);          /* mulx rax, rax, [rip + ...] */
	rip_form("\xF0\x48", "\x0F\xB1", 6, 0, 0);          /* lock cmpxchg [rip + ...], rsi */
	rip_form("", "\x8A", 4, 0, 0);                       /* mov ah, [rip + ...] */
	rip_form("", "\x0F\xAE", 3, 0, 0);                   /* stmxcsr */
	rip_form("", "\xD9", 7, 0, 0);                       /* fnstcw */
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void operands(uintptr_t at)
{
	beside_prepare(at);
	integer_forms();
	vector_forms();
	extended_bases();
	cr_expect_geq(beside_forms_run, beside_has_v3 ? 600 : 400, "only %u forms", beside_forms_run);
}

Test(relocate_run, rip_relative_operands)
{
	operands(0);
}

Test(relocate_run, rip_relative_operands_far)
{
	beside_far = true;
	operands(0);
}

Test(relocate_run, rip_relative_operands_low)
{
	operands(LOW_BASE);
}
