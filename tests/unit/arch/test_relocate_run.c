/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Relocated copies of branches, calls, stack instructions and small regions, run beside their originals.
 */
#include "arch/emit.h"
#include "beside.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define FORM(name, flags, ...)                                                                                         \
	beside_check(&(struct form){ .text = name, .bytes = { __VA_ARGS__ },                                           \
				     .size = sizeof((uint8_t[]){ __VA_ARGS__ }), .setup = flags })
#define D 0, 0, 0, 0 /* a displacement to be filled in */

static void conditional(const char *text, unsigned int setup, const uint8_t *bytes, size_t size)
{
	static const uint64_t counts[] = { 0, 1, 2, 0x100000000, 0x100000001, ~0UL };
	static struct world world;
	struct form form = { .text = text, .size = size, .setup = setup };
	unsigned int seen = 0;
	uint64_t flags, i;

	memcpy(form.bytes, bytes, size);
	beside_build(&form);
	for (flags = 0; flags < 64; flags++) {
		for (i = 0; i < ARRAY_SIZE(counts); i++) {
			beside_start(&world, setup);
			/* OF SF ZF PF CF and, once, DF */
			world.state.flags = 2 | (flags & 1) | (flags & 2) << 1 | (flags & 4) << 4 | (flags & 8) << 4 |
					    (flags & 16) << 7 | (flags & 32) << 5;
			world.state.gpr[RCX] = counts[i];
			seen |= 1U << beside_compare(&form, &world);
		}
	}
	cr_expect_eq(seen, 1U << EXIT_FALL | 1U << EXIT_TAKEN, "%s: both ways", text);
}

#define CONDITIONAL(text, ...) conditional(text, setup, (uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void conditional_branches(void)
{
	unsigned int setup, cc;
	char text[32];

	beside_prepare(0);
	for (setup = 0; setup <= AROUND; setup += AROUND) {
		for (cc = 0; cc < 16; cc++) {
			snprintf(text, sizeof(text), "jcc %x", cc);
			CONDITIONAL(text, 0x70 | cc, 0x30);
			CONDITIONAL(text, 0x2E, 0x70 | cc, 0xC0);
			CONDITIONAL(text, 0x0F, 0x80 | cc, D);
			CONDITIONAL(text, 0x3E, 0x0F, 0x80 | cc, D);
		}
		CONDITIONAL("loopne", 0xE0, 0x30);
		CONDITIONAL("loope", 0xE1, 0xC0);
		CONDITIONAL("loop", 0xE2, 0x30);
		CONDITIONAL("repne loope", 0xF2, 0xE1, 0x30);
		CONDITIONAL("rep loopne", 0xF3, 0xE0, 0x30);
		CONDITIONAL("jrcxz", 0xE3, 0xC0);
		CONDITIONAL("loopne ecx", 0x67, 0xE0, 0x30);
		CONDITIONAL("loope ecx", 0x67, 0xE1, 0xC0);
		CONDITIONAL("loop ecx", 0x67, 0xE2, 0x30);
		CONDITIONAL("jecxz", 0x67, 0xE3, 0xC0);
	}
}

Test(relocate_run, conditional_branches)
{
	conditional_branches();
}

Test(relocate_run, conditional_branches_far)
{
	beside_far = true;
	conditional_branches();
}

static void control_flow(uintptr_t at)
{
	unsigned int around, reg;

	beside_prepare(at);
	for (around = 0; around <= AROUND; around += AROUND) {
		FORM("jmp rel8", around, 0xEB, 0x30);
		FORM("jmp rel8 back", around, 0xEB, 0xC0);
		FORM("jmp rel32", around, 0xE9, D);
		FORM("bnd jmp rel32", around, 0xF2, 0xE9, D);
		FORM("jmp [rip]", POINTERS | BELOW | around, 0xFF, 0x25, D);
		FORM("jmp [rsp+8]", POINTERS | BELOW | around, 0xFF, 0x64, 0x24, 8);
		FORM("jmp [rbx+rcx*8]", POINTERS | BASES | INDEXES | BELOW | around, 0xFF, 0x24, 0xCB);
		FORM("ret", POINTERS | around, 0xC3);
		FORM("repz ret", POINTERS | around, 0xF3, 0xC3);
		FORM("ret 24", POINTERS | around, 0xC2, 24, 0);
	}
	for (around = 0; around <= (AROUND | KEPT); around += AROUND | KEPT) {
		FORM("call rel32", around, 0xE8, D);
		FORM("call rel32 (TLS)", around, 0x66, 0x66, 0x48, 0xE8, D);
		FORM("addr32 call rel32", around, 0x67, 0xE8, D);
		FORM("bnd call rel32", around, 0xF2, 0xE8, D);
		FORM("call [rip]", POINTERS | around, 0xFF, 0x15, D);
		FORM("call [rip] (TLS)", POINTERS | around, 0x66, 0x48, 0xFF, 0x15, D);
		for (reg = 0; reg < 8; reg++) {
			if (reg != RSP) {
				FORM("call r", POINTERS | around, 0xFF, 0xD0 | reg);
				FORM("jmp r", POINTERS | (around & AROUND), 0xFF, 0xE0 | reg);
				FORM("jmp r, written", POINTERS | AROUND | WRITTEN | BELOW, 0xFF, 0xE0 | reg);
				FORM("notrack call r", POINTERS | around, 0x3E, 0xFF, 0xD0 | reg);
			}
			FORM("call r8+", POINTERS | around, 0x41, 0xFF, 0xD0 | reg);
		}
		FORM("call [rbx+8]", POINTERS | BASES | around, 0xFF, 0x53, 8);
		FORM("call [rbp+8]", POINTERS | BASES | around, 0xFF, 0x55, 8);
		FORM("call [r12]", POINTERS | BASES | around, 0x41, 0xFF, 0x14, 0x24);
		FORM("call [r12+r9*8]", POINTERS | BASES | INDEXES | around, 0x43, 0xFF, 0x14, 0xCC);
	}
}

Test(relocate_run, control_flow)
{
	control_flow(0);
}

Test(relocate_run, control_flow_far)
{
	beside_far = true;
	control_flow(0);
}

Test(relocate_run, control_flow_far_low)
{
	beside_far = true;
	control_flow(LOW_BASE);
}

Test(relocate_run, control_flow_low)
{
	control_flow(LOW_BASE);
}

/* The one slot that holds the target is the one the copy must read. */
Test(relocate_run, calls_through_the_stack)
{
	static const struct {
		struct form form;
		int slot; /* of rsp when RCX is 3 */
	} cases[] = {
		{ { "call [rsp]", { 0xFF, 0x14, 0x24 }, 3, 0 }, 0 },
		{ { "call [rsp+0]", { 0xFF, 0x54, 0x24, 0 }, 4, 0 }, 0 },
		{ { "call [rsp+119]", { 0xFF, 0x54, 0x24, 119 }, 4, 0 }, 119 },
		{ { "call [rsp+120]", { 0xFF, 0x54, 0x24, 120 }, 4, 0 }, 120 },
		{ { "call [rsp+0x200]", { 0xFF, 0x94, 0x24, 0, 2, 0, 0 }, 7, 0 }, 0x200 },
		{ { "call [rsp-16]", { 0xFF, 0x54, 0x24, 0xF0 }, 4, 0 }, -16 },
		{ { "call [rsp-128]", { 0xFF, 0x54, 0x24, 0x80 }, 4, 0 }, -128 },
		{ { "call [rsp-0x200]", { 0xFF, 0x94, 0x24, 0, 0xFE, 0xFF, 0xFF }, 7, 0 }, -0x200 },
		{ { "call [rsp+rcx*8]", { 0xFF, 0x14, 0xCC }, 3, BELOW }, 24 },
		{ { "call [rsp+rcx*4-28]", { 0xFF, 0x54, 0x8C, 0xE4 }, 4, BELOW }, -16 },
		{ { "call [rsp+rcx*4-20]", { 0xFF, 0x54, 0x8C, 0xEC }, 4, BELOW }, -8 },
		{ { "call [rsp+rcx*4-15]", { 0xFF, 0x54, 0x8C, 0xF1 }, 4, BELOW }, -3 },
		{ { "call [rsp-8]", { 0xFF, 0x54, 0x24, 0xF8 }, 4, BELOW }, -8 },
		{ { "call [rsp-1]", { 0xFF, 0x54, 0x24, 0xFF }, 4, BELOW }, -1 },
		{ { "call [rsp-15]", { 0xFF, 0x54, 0x24, 0xF1 }, 4, BELOW }, -15 },
		{ { "notrack call [rsp+8]", { 0x3E, 0xFF, 0x54, 0x24, 8 }, 5, 0 }, 8 },
	};
	static struct world world;
	unsigned int i, low;

	for (low = 0; low < 2; low++) {
		beside_prepare(low ? LOW_BASE : 0);
		for (i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
			const struct form *form = &cases[i / 2].form;

			beside_far = i & 1;
			beside_build(form);
			beside_start(&world, 0);
			world.state.gpr[RCX] = 3;
			memcpy(world.stack + PAGE_SIZE / 2 + cases[i / 2].slot, &beside_exits[EXIT_TAKEN], 8);
			cr_expect_eq(beside_compare(form, &world), EXIT_TAKEN, "%s", form->text);
		}
	}
}

Test(relocate_run, plain)
{
	unsigned int reg;

	beside_prepare(0);
	for (reg = 0; reg < 8; reg++) {
		FORM("push r", 0, 0x50 | reg);
		FORM("pop r", 0, 0x58 | reg);
		FORM("push r8+", 0, 0x41, 0x50 | reg);
		FORM("mov r, rsp", 0, 0x48, 0x89, 0xE0 | reg);
		FORM("mov r, [rsp+16]", 0, 0x48, 0x8B, 0x44 | reg << 3, 0x24, 16);
	}
	FORM("push [rsp+8]", 0, 0xFF, 0x74, 0x24, 8);
	FORM("pop [rsp+8]", 0, 0x8F, 0x44, 0x24, 8);
	FORM("xchg [rsp], rax", 0, 0x48, 0x87, 0x04, 0x24);
	FORM("enter 16, 0", 0, 0xC8, 16, 0, 0);
	FORM("leave", BASES, 0xC9);
	FORM("pushfq", 0, 0x9C);
	FORM("lea rsp, [rsp-64]", 0, 0x48, 0x8D, 0x64, 0x24, 0xC0);
	FORM("mov rax, fs:[0]", 0, 0x64, 0x48, 0x8B, 0x04, 0x25, D);
	FORM("cmpxchg rbx, rcx", 0, 0x48, 0x0F, 0xB1, 0xCB);
	FORM("cs nop [rax+rax]", 0, 0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0);
	FORM("syscall, an unknown one", 0, 0x0F, 0x05);
	FORM("endbr64", 0, 0xF3, 0x0F, 0x1E, 0xFA);
}

/* Several instructions, with branches and a call among themselves through the map. */
static void run_region(const char *text, const uint8_t *bytes, size_t size)
{
	static struct world world;
	const struct form form = { .text = text };
	const uintptr_t original = beside_base + ORIGINAL_AT;
	uintptr_t from[8], to[8];
	struct arch_map map = { from, to, 0 };
	struct arch_code code;
	struct arch_insn insn;
	size_t at, i;
	int pass;

	beside_protect(original, PROT_READ | PROT_WRITE);
	code = (struct arch_code){ .bytes = (uint8_t *)original, .capacity = 64, .base = original };
	arch_emit_bytes(&code, bytes, size);
	arch_emit_jmp(&code, beside_exits[EXIT_FALL]);
	beside_protect(original, PROT_READ | PROT_EXEC);

	beside_protect(beside_base + COPY_AT, PROT_READ | PROT_WRITE);
	for (pass = 0; pass < 2; pass++) {
		code = (struct arch_code){ .bytes = (uint8_t *)beside_base + COPY_AT, .capacity = 384 };
		code.base = beside_base + COPY_AT;
		code.far = beside_far;
		for (at = 0, i = 0; at < size; at += insn.length, i++) {
			cr_assert(i < ARRAY_SIZE(from) && arch_decode(bytes + at, size - at, original + at, &insn));
			from[i] = original + at;
			to[i] = arch_code_here(&code);
			arch_relocate(&code, bytes + at, &insn, original + at, &map);
		}
		map.count = i;
	}
	arch_emit_jmp(&code, beside_exits[EXIT_FALL]);
	beside_protect(beside_base + COPY_AT, PROT_READ | PROT_EXEC);
	beside_start(&world, BASES);
	beside_compare(&form, &world);
	/* Nothing of the original is run by the copy. */
	beside_protect(original, PROT_READ);
	beside_run(&world, beside_base + COPY_AT);
}

Test(relocate_run, regions)
{
	static const uint8_t counting[] = {
		0xB9, 10, 0, 0, 0, /* mov ecx, 10 */
		0x31, 0xC0,        /* xor eax, eax */
		0x01, 0xC8,        /* 1: add eax, ecx */
		0xE2, 0xFC,        /* loop 1b */
		0x3D, 55, 0, 0, 0, /* cmp eax, 55 */
		0x75, 0xEE,        /* jne to the start: never, if the sum is right */
	};
	static const uint8_t position[] = {
		0xE8, 1, 0, 0, 0, /* call 1f */
		0x90,             /* nop */
		0x58,             /* 1: pop rax, the original return address */
		0xEB, 0x01,       /* jmp 2f */
		0x90,             /* nop */
		0x48, 0x31, 0xD8, /* 2: xor rax, rbx */
	};

	beside_prepare(0);
	for (beside_far = false;; beside_far = true) {
		run_region("position", position, sizeof(position));
		run_region("counting", counting, sizeof(counting));
		if (beside_far)
			break;
	}
}
