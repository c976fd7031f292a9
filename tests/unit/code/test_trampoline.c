/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trampolines: their code byte for byte, what each byte stands for, and the jumps and pads that lead to them.
 */
#define _GNU_SOURCE
#include "arch/hook.h"
#include "arch/trap_bytes.h"
#include "bytes.h"

#include "arch/x86_64/hook_call.h"
#include "code/arena.h"
#include "code/pc_map.h"
#include "code/staging.h"
#include "base/heap.h"
#include "code/staging.h"
#include "code/window.h"
#include "runtime/hook_guard.h"
#include "sys/text.h"
#include "code/trampoline.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOP 0x90
#define MOV_EAX_EDI 0x89, 0xF8               /* mov eax, edi */
#define XOR_EAX_ESI 0x31, 0xF0               /* xor eax, esi */
#define MOV_RAX_RDI 0x48, 0x89, 0xF8         /* mov rax, rdi */
#define LEA_RAX_RDI_4 0x48, 0x8D, 0x47, 0x04 /* lea rax, [rdi + 4] */
#define MOV_EAX_IMM 0xB8, 0x78, 0x56, 0x34, 0x12

#define PROCEDURE 0x1122334455667788UL
#define REG(name) ((uint64_t)1 << PATCH_X86_64_##name)

/* Where windows are said to be: near this program, and never executed. */
static uint8_t place[4096] __attribute__((aligned(4096)));


struct test_window {
	uint8_t bytes[32];
	uint8_t offsets[16];
	struct window window;
};

static void init(void)
{
	cr_assert_eq(text_init(false), PATCH_OK);
}

/* Cut `size` bytes into instructions. */
static void make_window(struct test_window *w, const void *bytes, size_t size, int strategy)
{
	unsigned int at = 0, count = 0;
	struct arch_insn insn;

	memset(w, 0, sizeof(*w));
	memcpy(w->bytes, bytes, size);
	while (at < size) {
		cr_assert(arch_decode(w->bytes + at, size - at, (uintptr_t)place + at, &insn));
		w->offsets[count++] = (uint8_t)at;
		at += insn.length;
	}
	w->offsets[count] = (uint8_t)at;
	w->window = (struct window){
		.start = (uintptr_t)place,
		.length = (uint8_t)size,
		.count = (uint8_t)count,
		.strategy = (uint8_t)strategy,
		.offsets = w->offsets,
		.original = w->bytes,
	};
}

#define MAKE_WINDOW(w, strategy, ...)                                                                                  \
	make_window(w, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }), strategy)

static struct hook make_hook(size_t offset, enum hook_when when)
{
	return (struct hook){
		.address = (uintptr_t)place + offset,
		.when = when,
		.lower = (uintptr_t)place,
		.upper = (uintptr_t)place + sizeof(place),
		.code = {
			.program_counter = (uintptr_t)place + offset,
			.post = when == HOOK_RETURNED,
		},
	};
}

static struct trampoline *build(struct test_window *w, const struct hook *hooks, size_t count)
{
	struct trampoline *trampoline = NULL;
	const char *message = NULL;

	cr_assert_eq(trampoline_build(&w->window, hooks, count, &trampoline, &message), PATCH_OK, "%s",
		     message ? message : "");
	cr_assert_eq(staging_flush(), 0);
	return trampoline;
}

static const uint8_t *code_of(const struct trampoline *trampoline, unsigned int index)
{
	return (const uint8_t *)trampoline_entry(trampoline, index);
}

/* ---- expected code, line by line -------------------------------------------------------------------------------- */

#define LINES 128

/* Bytes with the assembly they are meant to be; the first line that differs is shown. */
struct listing {
	struct line {
		const char *text;
		uint8_t bytes[16];
		size_t size;
	} lines[LINES];
	size_t count;
	size_t size; /* of all lines */
};

static void add(struct listing *listing, const char *text, const void *bytes, size_t size)
{
	struct line *line = &listing->lines[listing->count++];

	cr_assert_leq(listing->count, LINES);
	line->text = text;
	memcpy(line->bytes, bytes, size);
	line->size = size;
	listing->size += size;
}

#define ADD(listing, text, ...) add(listing, text, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

/* The field ends the line before it. */
static void add_field(struct listing *listing, const void *value, size_t size)
{
	struct line *line = &listing->lines[listing->count - 1];

	memcpy(line->bytes + line->size, value, size);
	line->size += size;
	listing->size += size;
}

static void add_u32(struct listing *listing, uintptr_t value)
{
	uint32_t field = (uint32_t)value;

	add_field(listing, &field, sizeof(field));
}

static void add_u64(struct listing *listing, uint64_t value)
{
	add_field(listing, &value, sizeof(value));
}

/* The same for a field of an earlier line, once it is known. */
static void fill_u32(struct listing *listing, size_t line, uint32_t value)
{
	memcpy(listing->lines[line].bytes + listing->lines[line].size - 4, &value, sizeof(value));
}

static void expect_listing(const struct listing *listing, const uint8_t *code)
{
	size_t i, at = 0;

	for (i = 0; i < listing->count; i++) {
		const struct line *line = &listing->lines[i];

		if (memcmp(code + at, line->bytes, line->size) != 0) {
			fprintf(stderr, "+%#zx ", at);
			bytes_expect(line->text, code + at, line->size, line->bytes, line->size);
			return;
		}
		at += line->size;
	}
}

static uintptr_t tls(const void *variable)
{
	uintptr_t base;

	__asm__("mov %%fs:0, %0" : "=r"(base));
	return (uintptr_t)variable - base;
}

/* ---- code ------------------------------------------------------------------------------------------------------- */

Test(trampoline, no_hooks)
{
	struct listing expected = { .count = 0 };
	struct trampoline *trampoline;
	struct test_window w;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, NULL, 0);
	ADD(&expected, "mov eax, edi", MOV_EAX_EDI);
	ADD(&expected, "xor eax, esi", XOR_EAX_ESI);
	ADD(&expected, "nop", NOP);
	ADD(&expected, "jmp behind the window", 0xE9);
	add_u32(&expected, (uintptr_t)place + 5 - (trampoline_entry(trampoline, 0) + 10));
	expect_listing(&expected, code_of(trampoline, 0));
	cr_expect_eq(code_of(trampoline, 1), code_of(trampoline, 0) + 2);
	cr_expect_eq(code_of(trampoline, 2), code_of(trampoline, 0) + 4);
	/* Header: the site, four rows, and the end with the form's address. */
	cr_expect_eq(*(const uint64_t *)trampoline->block.address, (uintptr_t)place);
	cr_expect_eq(trampoline_entry(trampoline, 0) - trampoline->block.address, 32);
	cr_expect_eq(trampoline->block.size, 48);
}

static struct arch_code_map map_of(const struct trampoline *trampoline)
{
	struct arch_code_map map;

	cr_assert(pc_map_of_code((uintptr_t)code_of(trampoline, 0), &map));
	cr_expect_eq(map.code, (uintptr_t)code_of(trampoline, 0));
	return map;
}

/* Instructions are different ones, of the same lengths. */
Test(trampoline, alike_has_one_form)
{
	struct hook hook = { .address = (uintptr_t)place, .when = HOOK_BEFORE };
	struct test_window w, alike, other;
	struct arch_code_map map;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	MAKE_WINDOW(&alike, PATCH_STRATEGY_TRAP, XOR_EAX_ESI, MOV_EAX_EDI, NOP);
	MAKE_WINDOW(&other, PATCH_STRATEGY_TRAP, NOP, XOR_EAX_ESI, MOV_EAX_EDI);
	hook.code.program_counter = hook.address;
	map = map_of(build(&w, &hook, 1));
	cr_expect_eq(map_of(build(&alike, &hook, 1)).stretches, map.stretches);
	cr_expect_neq(map_of(build(&other, &hook, 1)).stretches, map.stretches, "lengths");
	cr_expect_neq(map_of(build(&w, NULL, 0)).stretches, map.stretches, "no hook");
	hook.code.program_counter += 2;
	cr_expect_neq(map_of(build(&w, &hook, 1)).stretches, map.stretches, "what is reported");
}

/* Control does not come out at the end: no jump there. */
Test(trampoline, nothing_behind_a_return)
{
	static const uint8_t expected[] = { NOP, 0xC3 };
	struct trampoline *trampoline;
	struct test_window w;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, NOP, 0xC3);
	trampoline = build(&w, NULL, 0);
	bytes_expect("nop, ret", code_of(trampoline, 0), 2, expected, 2);
	cr_expect_eq(trampoline->block.size,
		     ALIGN_UP(trampoline_entry(trampoline, 0) - trampoline->block.address + 2U, 16U));
}

/* A branch inside the window stays inside the copy, and meets the hooks there. */
Test(trampoline, branches_within_the_window)
{
	const struct hook hook = make_hook(0, HOOK_BEFORE);
	struct trampoline *trampoline;
	struct test_window w;
	unsigned int hooked;

	init();
	for (hooked = 0; hooked < 2; hooked++) {
		struct listing expected = { .count = 0 };
		const uint8_t *copy;

		/* inc eax; dec edi; jne to the first */
		MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, 0xFF, 0xC0, 0xFF, 0xCF, 0x75, 0xFA);
		trampoline = build(&w, &hook, hooked);
		copy = code_of(trampoline, 2);
		ADD(&expected, "jne entry 0", 0x0F, 0x85);
		add_u32(&expected, (uintptr_t)code_of(trampoline, 0) - ((uintptr_t)copy + 6));
		ADD(&expected, "jmp behind the window", 0xE9);
		add_u32(&expected, (uintptr_t)place + 6 - ((uintptr_t)copy + 11));
		expect_listing(&expected, copy);
	}
}

/* What hooks seldom do, to be listed behind the last instruction. */
struct cold_lines {
	size_t guarded, guarded_end, fresh;
	size_t closed, closed_end;
	size_t backwards, backwards_end, forwards;
	size_t unaligned, unaligned_end, called;
	size_t changed, changed_end, kept;
	bool at_entry;
	size_t direction, direction_end;
	size_t moved, moved_end, moved_stack, moved_stack_end;
	uintptr_t program_counter;
	size_t passed_over, done;
};

/* A field that is filled in later ends the line before it. */
static void add_forward(struct listing *l, size_t *line, size_t *end)
{
	add_u32(l, 0);
	*line = l->count - 1;
	*end = l->size;
}

static void add_back(struct listing *l, size_t to)
{
	add_u32(l, to - (l->size + 4));
}

static void fill_forward(struct listing *l, size_t line, size_t end)
{
	fill_u32(l, line, (uint32_t)(l->size - end));
}

static void list_whether_moved(struct listing *l, const struct cold_lines *cold, uintptr_t code, size_t *line,
			       size_t *end)
{
	ADD(l, "lea rax, [rip + program counter]", 0x48, 0x8D, 0x05);
	add_u32(l, cold->program_counter - (code + l->size + 4));
	ADD(l, "cmp [rsp + program_counter], rax", 0x48, 0x39, 0x84, 0x24, 0x90, 0x00, 0x00, 0x00);
	ADD(l, "jne moved", 0x0F, 0x85);
	add_forward(l, line, end);
}

/* One hook on the first instruction of a window, with the masks and the numbers of the hook. */
static void list_hook(struct listing *l, struct cold_lines *cold, const struct arch_hook *hook, uintptr_t code,
		      const uint8_t (*restores)[8], size_t restore_count, bool at_entry)
{
	const uintptr_t guard = tls(&libpatch_hook_guard.guard), error = tls(&errno);

	ADD(l, "lea rsp, [rsp - 432]", 0x48, 0x8D, 0xA4, 0x24, 0x50, 0xFE, 0xFF, 0xFF);
	ADD(l, "pushfq", 0x9C);
	ADD(l, "mov [rsp + private rax], rax", 0x48, 0x89, 0x44, 0x24, 0x18);
	ADD(l, "mov rax, fs:[guard]", 0x64, 0x48, 0x8B, 0x04, 0x25);
	add_u32(l, guard);
	ADD(l, "test rax, rax", 0x48, 0x85, 0xC0);
	ADD(l, "jne guarded", 0x0F, 0x85);
	add_forward(l, &cold->guarded, &cold->guarded_end);

	cold->fresh = l->size;
	ADD(l, "mov [rsp + private rcx], rcx", 0x48, 0x89, 0x4C, 0x24, 0x28);
	ADD(l, "mov [rsp + record], rax", 0x48, 0x89, 0x44, 0x24, 0x08);
	ADD(l, "mov fs:[guard], rsp", 0x64, 0x48, 0x89, 0x24, 0x25);
	add_u32(l, guard);
	ADD(l, "mov rcx, [rip + slot]", 0x48, 0x8B, 0x0D);
	add_u32(l, hook->slot - (code + l->size + 4));
	ADD(l, "test rcx, rcx", 0x48, 0x85, 0xC9);
	ADD(l, "je closed", 0x0F, 0x84);
	add_forward(l, &cold->closed, &cold->closed_end);

	ADD(l, "mov [rsp + record], rcx", 0x48, 0x89, 0x4C, 0x24, 0x08);
	ADD(l, "mov eax, fs:[errno]", 0x64, 0x8B, 0x04, 0x25);
	add_u32(l, error);
	ADD(l, "mov [rsp + errno], eax", 0x89, 0x44, 0x24, 0x10);
	ADD(l, "mov [rsp + private rdx], rdx", 0x48, 0x89, 0x54, 0x24, 0x30);
	ADD(l, "mov [rsp + private rsi], rsi", 0x48, 0x89, 0x74, 0x24, 0x38);
	/* Written: offered, and taken from there again. */
	if (!(hook->write & REG(RDI)))
		ADD(l, "mov [rsp + private rdi], rdi", 0x48, 0x89, 0x7C, 0x24, 0x40);
	ADD(l, "mov [rsp + private r8], r8", 0x4C, 0x89, 0x44, 0x24, 0x50);
	ADD(l, "mov [rsp + private r9], r9", 0x4C, 0x89, 0x4C, 0x24, 0x58);
	ADD(l, "mov [rsp + private r10], r10", 0x4C, 0x89, 0x54, 0x24, 0x60);
	ADD(l, "mov [rsp + private r11], r11", 0x4C, 0x89, 0x5C, 0x24, 0x68);
	if (hook->write & REG(RDI))
		ADD(l, "mov [rsp + offered rdi], rdi", 0x48, 0x89, 0xBC, 0x24, 0xC8, 0x00, 0x00, 0x00);

	ADD(l, "lea rdi, [rsp + context]", 0x48, 0x8D, 0xBC, 0x24, 0x90, 0x00, 0x00, 0x00);
	ADD(l, "lea rax, [rip + program counter]", 0x48, 0x8D, 0x05);
	add_u32(l, hook->program_counter - (code + l->size + 4));
	ADD(l, "mov [rdi + program_counter], rax", 0x48, 0x89, 0x47, 0x00);
	ADD(l, "lea rax, [rsp + 440]", 0x48, 0x8D, 0x84, 0x24, 0xB8, 0x01, 0x00, 0x00);
	ADD(l, "mov [rdi + stack_pointer], rax", 0x48, 0x89, 0x47, 0x08);
	if (hook->read & REG(RBX))
		ADD(l, "mov [rdi + offered rbx], rbx", 0x48, 0x89, 0x5F, 0x18);
	if (hook->clobber & REG(R12))
		ADD(l, "mov [rdi + offered r12], r12", 0x4C, 0x89, 0x67, 0x68);
	ADD(l, "mov rax, [rcx + user_data]", 0x48, 0x8B, 0x41, 0x08);
	ADD(l, "mov [rdi + user_data], rax", 0x48, 0x89, 0x87, 0x88, 0x00, 0x00, 0x00);
	ADD(l, "mov rax, [rsp + flags]", 0x48, 0x8B, 0x04, 0x24);
	ADD(l, "mov [rdi + status_register], rax", 0x48, 0x89, 0x87, 0x98, 0x00, 0x00, 0x00);
	ADD(l, "test eax, DF | AC", 0xA9, 0x00, 0x04, 0x04, 0x00);
	ADD(l, "jne backwards", 0x0F, 0x85);
	add_forward(l, &cold->backwards, &cold->backwards_end);
	cold->forwards = l->size;
	ADD(l, "xor esi, esi", 0x31, 0xF6);
	ADD(l, "mov [rdi + extended_states], rsi", 0x48, 0x89, 0xB7, 0x90, 0x00, 0x00, 0x00);
	if (hook->post)
		ADD(l, "inc esi", 0xFF, 0xC6);
	if (!at_entry)
		ADD(l, "push rax", 0x50);
	ADD(l, "test spl, 15", 0x40, 0xF6, 0xC4, 0x0F);
	ADD(l, "jne unaligned", 0x0F, 0x85);
	add_forward(l, &cold->unaligned, &cold->unaligned_end);
	ADD(l, "call [rcx + procedure]", 0xFF, 0x11);
	if (!at_entry)
		ADD(l, "pop rax", 0x58);
	cold->called = l->size;
	cold->at_entry = at_entry;

	ADD(l, "mov eax, [rsp + errno]", 0x8B, 0x44, 0x24, 0x10);
	ADD(l, "cmp eax, fs:[errno]", 0x64, 0x3B, 0x04, 0x25);
	add_u32(l, error);
	ADD(l, "jne errno changed", 0x0F, 0x85);
	add_forward(l, &cold->changed, &cold->changed_end);
	cold->kept = l->size;
	ADD(l, "xor eax, eax", 0x31, 0xC0);
	ADD(l, "mov fs:[guard], rax", 0x64, 0x48, 0x89, 0x04, 0x25);
	add_u32(l, guard);
	for (size_t i = 0; i < restore_count; i++)
		add(l, "mov register, [rsp + slot]", restores[i], restores[i][2] >> 6 == 2 ? 8 : 5);
	cold->program_counter = hook->program_counter;
	list_whether_moved(l, cold, code, &cold->moved, &cold->moved_end);
	ADD(l, "lea rax, [rsp + 440]", 0x48, 0x8D, 0x84, 0x24, 0xB8, 0x01, 0x00, 0x00);
	ADD(l, "cmp [rsp + stack_pointer], rax", 0x48, 0x39, 0x84, 0x24, 0x98, 0x00, 0x00, 0x00);
	ADD(l, "jne moved, the stack", 0x0F, 0x85);
	add_forward(l, &cold->moved_stack, &cold->moved_stack_end);
	cold->passed_over = l->size;
	ADD(l, "test [rsp + flags], DF | AC", 0xF7, 0x04, 0x24, 0x00, 0x04, 0x04, 0x00);
	ADD(l, "jne direction", 0x0F, 0x85);
	add_forward(l, &cold->direction, &cold->direction_end);
	ADD(l, "movzx eax, byte [rsp + flags + 1]", 0x0F, 0xB6, 0x44, 0x24, 0x01);
	ADD(l, "and al, OF", 0x24, 0x08);
	ADD(l, "add al, 128 - OF", 0x04, 0x78);
	ADD(l, "mov ah, [rsp + flags]", 0x8A, 0x24, 0x24);
	ADD(l, "sahf", 0x9E);
	ADD(l, "mov rax, [rsp + private rax]", 0x48, 0x8B, 0x44, 0x24, 0x18);
	ADD(l, "lea rsp, [rsp + 440]", 0x48, 0x8D, 0xA4, 0x24, 0xB8, 0x01, 0x00, 0x00);
	cold->done = l->size;
}

static void list_cold(struct listing *l, const struct cold_lines *cold, uintptr_t code)
{
	size_t may_run, may_run_end, aligned, aligned_end, elsewhere, elsewhere_end, move, move_end;

	fill_forward(l, cold->closed, cold->closed_end);
	ADD(l, "mov fs:[guard], rcx", 0x64, 0x48, 0x89, 0x0C, 0x25);
	add_u32(l, tls(&libpatch_hook_guard.guard));
	ADD(l, "mov rcx, [rsp + private rcx]", 0x48, 0x8B, 0x4C, 0x24, 0x28);
	ADD(l, "jmp passed over", 0xE9);
	add_back(l, cold->passed_over);
	fill_forward(l, cold->guarded, cold->guarded_end);
	ADD(l, "call [rip + constant]", 0xFF, 0x15);
	add_forward(l, &may_run, &may_run_end);
	ADD(l, "je fresh", 0x0F, 0x84);
	add_back(l, cold->fresh);
	ADD(l, "jmp passed over", 0xE9);
	add_back(l, cold->passed_over);
	fill_forward(l, cold->backwards, cold->backwards_end);
	ADD(l, "cld", 0xFC);
	ADD(l, "pushfq", 0x9C);
	ADD(l, "and [rsp], ~AC", 0x81, 0x24, 0x24, 0xFF, 0xFF, 0xFB, 0xFF);
	ADD(l, "popfq", 0x9D);
	ADD(l, "jmp forwards", 0xE9);
	add_back(l, cold->forwards);
	fill_forward(l, cold->changed, cold->changed_end);
	ADD(l, "mov fs:[errno], eax", 0x64, 0x89, 0x04, 0x25);
	add_u32(l, tls(&errno));
	ADD(l, "jmp errno kept", 0xE9);
	add_back(l, cold->kept);
	fill_forward(l, cold->unaligned, cold->unaligned_end);
	if (cold->at_entry)
		ADD(l, "push rax", 0x50);
	else
		ADD(l, "pop rax", 0x58);
	ADD(l, "test spl, 15", 0x40, 0xF6, 0xC4, 0x0F);
	ADD(l, "jne odd", 0x75, 0x04);
	ADD(l, "call [rcx + procedure]", 0xFF, 0x11);
	ADD(l, "jmp back", 0xEB, 0x06);
	ADD(l, "call [rip + constant]", 0xFF, 0x15);
	add_forward(l, &aligned, &aligned_end);
	if (cold->at_entry)
		ADD(l, "pop rax", 0x58);
	ADD(l, "jmp called", 0xE9);
	add_back(l, cold->called);
	fill_forward(l, cold->moved_stack, cold->moved_stack_end);
	list_whether_moved(l, cold, code, &elsewhere, &elsewhere_end);
	ADD(l, "lea rax, [rip + done]", 0x48, 0x8D, 0x05);
	add_back(l, cold->done);
	ADD(l, "mov [rsp + program_counter], rax", 0x48, 0x89, 0x84, 0x24, 0x90, 0x00, 0x00, 0x00);
	fill_forward(l, elsewhere, elsewhere_end);
	fill_forward(l, cold->moved, cold->moved_end);
	ADD(l, "jmp [rip + constant]", 0xFF, 0x25);
	add_forward(l, &move, &move_end);
	fill_forward(l, cold->direction, cold->direction_end);
	ADD(l, "mov rax, [rsp + private rax]", 0x48, 0x8B, 0x44, 0x24, 0x18);
	ADD(l, "popfq", 0x9D);
	ADD(l, "lea rsp, [rsp + 432]", 0x48, 0x8D, 0xA4, 0x24, 0xB0, 0x01, 0x00, 0x00);
	ADD(l, "jmp done", 0xE9);
	add_back(l, cold->done);
	while ((code + l->size) % 8 != 0)
		ADD(l, "padding", 0xCC);
	fill_forward(l, may_run, may_run_end);
	add(l, "constant: libpatch_may_run", "", 0);
	add_u64(l, (uintptr_t)libpatch_may_run);
	fill_forward(l, aligned, aligned_end);
	add(l, "constant: libpatch_call_aligned", "", 0);
	add_u64(l, (uintptr_t)libpatch_call_aligned);
	fill_forward(l, move, move_end);
	add(l, "constant: libpatch_move", "", 0);
	add_u64(l, (uintptr_t)libpatch_move);
}

/* What the calling convention lets a procedure destroy comes back, whatever the masks. */
Test(trampoline, a_hook_without_masks)
{
	static const uint8_t restores[][8] = {
		{ 0x48, 0x8B, 0x4C, 0x24, 0x28 }, /* rcx */
		{ 0x48, 0x8B, 0x54, 0x24, 0x30 }, /* rdx */
		{ 0x48, 0x8B, 0x74, 0x24, 0x38 }, /* rsi */
		{ 0x48, 0x8B, 0x7C, 0x24, 0x40 }, /* rdi */
		{ 0x4C, 0x8B, 0x44, 0x24, 0x50 }, /* r8 */
		{ 0x4C, 0x8B, 0x4C, 0x24, 0x58 }, /* r9 */
		{ 0x4C, 0x8B, 0x54, 0x24, 0x60 }, /* r10 */
		{ 0x4C, 0x8B, 0x5C, 0x24, 0x68 }, /* r11 */
	};
	struct hook hook = make_hook(0, HOOK_BEFORE), built;
	struct listing expected = { .count = 0 };
	struct cold_lines cold;
	struct trampoline *trampoline;
	struct test_window w;

	init();
	hook.code.clobber = PATCH_REGS_NO_STATE;
	MAKE_WINDOW(&w, PATCH_STRATEGY_JUMP, MOV_EAX_IMM);
	trampoline = build(&w, &hook, 1);
	built = trampoline_hook(trampoline, 0);
	list_hook(&expected, &cold, &built.code, trampoline_entry(trampoline, 0), restores, ARRAY_SIZE(restores),
		  true);
	ADD(&expected, "mov eax, 0x12345678", MOV_EAX_IMM);
	ADD(&expected, "jmp behind the window", 0xE9);
	add_u32(&expected, (uintptr_t)place + 5 - (trampoline_entry(trampoline, 0) + expected.size + 4));
	list_cold(&expected, &cold, trampoline_entry(trampoline, 0));
	expect_listing(&expected, code_of(trampoline, 0));
}

/* rbx read, rdi written, r12 clobbered. */
Test(trampoline, a_hook_with_masks)
{
	static const uint8_t restores[][8] = {
		{ 0x48, 0x8B, 0x4C, 0x24, 0x28 },                   /* rcx */
		{ 0x48, 0x8B, 0x54, 0x24, 0x30 },                   /* rdx */
		{ 0x48, 0x8B, 0x74, 0x24, 0x38 },                   /* rsi */
		{ 0x48, 0x8B, 0xBC, 0x24, 0xC8, 0x00, 0x00, 0x00 }, /* rdi, as written */
		{ 0x4C, 0x8B, 0x44, 0x24, 0x50 },                   /* r8 */
		{ 0x4C, 0x8B, 0x4C, 0x24, 0x58 },                   /* r9 */
		{ 0x4C, 0x8B, 0x54, 0x24, 0x60 },                   /* r10 */
		{ 0x4C, 0x8B, 0x5C, 0x24, 0x68 },                   /* r11 */
		{ 0x4C, 0x8B, 0xA4, 0x24, 0xF8, 0x00, 0x00, 0x00 }, /* r12, the same */
	};
	struct hook hook = make_hook(0, HOOK_BEFORE), built;
	struct listing expected = { .count = 0 };
	struct cold_lines cold;
	struct trampoline *trampoline;
	struct test_window w;

	init();
	hook.code.read = REG(RBX);
	hook.code.write = REG(RDI);
	hook.code.clobber = PATCH_REGS_NO_STATE | REG(R12);
	/* Within a function. */
	hook.lower -= 16;
	MAKE_WINDOW(&w, PATCH_STRATEGY_JUMP, MOV_EAX_IMM);
	trampoline = build(&w, &hook, 1);
	built = trampoline_hook(trampoline, 0);
	list_hook(&expected, &cold, &built.code, trampoline_entry(trampoline, 0), restores, ARRAY_SIZE(restores),
		  false);
	ADD(&expected, "mov eax, 0x12345678", MOV_EAX_IMM);
	ADD(&expected, "jmp behind the window", 0xE9);
	add_u32(&expected, (uintptr_t)place + 5 - (trampoline_entry(trampoline, 0) + expected.size + 4));
	list_cold(&expected, &cold, trampoline_entry(trampoline, 0));
	expect_listing(&expected, code_of(trampoline, 0));
}

/* The first instruction that begins with `opcode`, three bytes, and refers to the address by a disp32. */
static const uint8_t *find_reference(const struct trampoline *trampoline, const char *opcode, uintptr_t address)
{
	const uint8_t *end = (const uint8_t *)trampoline->block.address + trampoline->block.size;

	for (const uint8_t *at = code_of(trampoline, 0); at + 7 <= end; at++) {
		int32_t distance;

		memcpy(&distance, at + 3, sizeof(distance));
		if (memcmp(at, opcode, 3) == 0 && (uintptr_t)at + 7 + (uintptr_t)(intptr_t)distance == address)
			return at;
	}
	return NULL;
}

/* Where the built hook looks at its slot. */
static const uint8_t *find_hook(const struct trampoline *trampoline, size_t index)
{
	return find_reference(trampoline, "\x48\x8B\x0D", trampoline->hooks[index].slot);
}

/* Where the second hook of a HOOK_AROUND adds its slot and the stack pointer. */
static const uint8_t *find_second(const struct trampoline *trampoline, size_t index)
{
	const uint8_t *end = (const uint8_t *)trampoline->block.address + trampoline->block.size;

	for (const uint8_t *at = code_of(trampoline, 0); at + 11 <= end; at++) {
		int32_t distance;

		memcpy(&distance, at + 3, sizeof(distance));
		if (memcmp(at, "\x48\x8D\x0D", 3) == 0 && memcmp(at + 7, "\x48\x8D\x8C\x0C", 4) == 0 &&
		    (uintptr_t)at + 7 + (uintptr_t)(intptr_t)distance == trampoline->hooks[index].slot)
			return at;
	}
	return NULL;
}

/*
 * What a call returned to, before, the instruction, after; at equal time in order of making, and after it in reverse.
 */
Test(trampoline, order_of_hooks)
{
	const struct hook hooks[] = {
		make_hook(2, HOOK_AROUND),   make_hook(2, HOOK_BEFORE),
		make_hook(2, HOOK_RETURNED), make_hook(2, HOOK_BEFORE),
		make_hook(2, HOOK_AROUND),    make_hook(4, HOOK_BEFORE),
		make_hook(0, HOOK_BEFORE),   make_hook(2, HOOK_RETURNED),
	};
	enum { SECOND = 0x80 };
	static const uint8_t order[] = { 6, 2, 7, 0, 1, 3, 4, 4 | SECOND, 0 | SECOND, 5 };
	struct trampoline *trampoline;
	const uint8_t *last, *found;
	struct test_window w;
	size_t i;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, hooks, ARRAY_SIZE(hooks));
	last = code_of(trampoline, 0);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		found = order[i] & SECOND ? find_second(trampoline, order[i] & ~SECOND) :
					    find_hook(trampoline, order[i]);
		cr_assert_not_null(found, "hook %#x is not there", order[i]);
		cr_expect_gt(found, last, "hook %#x comes before hook %#x", order[i], order[i ? i - 1 : 0]);
		last = found;
	}
	/* Entry of an instruction: with its hooks, behind what belongs to the one before. */
	cr_expect_lt(find_hook(trampoline, 6), code_of(trampoline, 1));
	cr_expect_gt(find_hook(trampoline, 2), code_of(trampoline, 1));
	cr_expect_lt(find_second(trampoline, 0), code_of(trampoline, 2));
	cr_expect_gt(find_hook(trampoline, 5), code_of(trampoline, 2));
}

/* ---- from code back to the original ----------------------------------------------------------------------------- */

static bool is_jump(uintptr_t at, uintptr_t to)
{
	int32_t displacement;

	memcpy(&displacement, (const void *)(at + 1), sizeof(displacement));
	return *(const uint8_t *)at == 0xE9 && displacement == (int32_t)(to - (at + 5));
}

static void expect_original(uintptr_t from, uintptr_t to, size_t offset)
{
	uintptr_t pc, original;

	for (pc = from; pc < to; pc++) {
		original = 0;
		cr_assert(pc_map_original(pc, &original), "%#lx: nothing", pc);
		cr_assert_eq(original, (uintptr_t)place + offset, "%#lx stands for +%#lx, not +%#zx", pc,
			     original - (uintptr_t)place, offset);
	}
}

static void expect_cold(const struct trampoline *trampoline, uintptr_t from, const struct hook *hooks, size_t count)
{
	size_t i = 0;
	uintptr_t original;

	for (uintptr_t pc = from; count > 0 && pc < trampoline->block.address + trampoline->block.size; pc++) {
		cr_assert(pc_map_original(pc, &original));
		if (original != hooks[i].address)
			i++;
		cr_assert_lt(i, count, "%#lx stands for +%#lx", pc, original - (uintptr_t)place);
		cr_assert_eq(original, hooks[i].address);
	}
	cr_assert(count == 0 || i == count - 1);
}

Test(trampoline, every_byte_stands_for_an_instruction)
{
	const struct hook hooks[] = {
		make_hook(0, HOOK_BEFORE),
		make_hook(2, HOOK_BEFORE),
		make_hook(4, HOOK_RETURNED),
	};
	struct trampoline *trampoline;
	struct test_window w;
	uintptr_t original;
	size_t count;

	init();
	for (count = 0; count <= ARRAY_SIZE(hooks); count++) {
		uintptr_t tail;

		MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
		trampoline = build(&w, hooks, count);
		expect_original(trampoline_entry(trampoline, 0), trampoline_entry(trampoline, 1), 0);
		expect_original(trampoline_entry(trampoline, 1), trampoline_entry(trampoline, 2), 2);
		/* The jump back is five bytes; behind it there may be padding. */
		for (tail = trampoline->block.address + trampoline->block.size - 5;
		     !is_jump(tail, (uintptr_t)place + 5); tail--)
			cr_assert_gt(tail, trampoline_entry(trampoline, 2));
		expect_original(trampoline_entry(trampoline, 2), tail, 4);
		expect_original(tail, tail + 5, 5);
		/* Behind that, what hooks seldom do, one after the other. */
		expect_cold(trampoline, tail + 5, hooks, count);
		cr_expect_not(pc_map_original(trampoline->block.address, &original), "the header is no code");
		cr_expect_not(pc_map_original(trampoline_entry(trampoline, 0) - 1, &original));
	}
}

/* Behind the instruction the program is at the next one. */
Test(trampoline, a_hook_after_stands_for_the_next_instruction)
{
	const struct hook hook = make_hook(2, HOOK_AROUND);
	struct trampoline *trampoline;
	struct test_window w;
	uintptr_t second, copy;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, &hook, 1);
	second = (uintptr_t)find_second(trampoline, 0);
	for (copy = second; memcmp((const void *)copy, (const uint8_t[]){ XOR_EAX_ESI }, 2) != 0; copy--)
		cr_assert_gt(copy, trampoline_entry(trampoline, 1));
	expect_original(trampoline_entry(trampoline, 1), copy + 2, 2);
	expect_original(copy + 2, trampoline_entry(trampoline, 2), 4);
	cr_expect_not_null(find_reference(trampoline, "\x48\x8D\x05", (uintptr_t)place + 4),
			   "the context says so, too");
}

Test(trampoline, a_freed_one_stands_for_nothing)
{
	struct arena_usage before, after;
	struct trampoline *trampoline;
	struct test_window w;
	const char *message;
	uintptr_t entry, original;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_JUMP, MOV_EAX_IMM);
	build(&w, NULL, 0);
	arena_usage(&before);
	trampoline = build(&w, NULL, 0);
	entry = trampoline_entry(trampoline, 0);
	cr_expect(pc_map_original(entry, &original));
	trampoline_free(trampoline);
	arena_usage(&after);
	cr_expect_eq(after.code_bytes, before.code_bytes);
	cr_expect_not(pc_map_original(entry, &original));

	/* Before it was written, too, and then it is not written any more. */
	cr_assert_eq(trampoline_build(&w.window, NULL, 0, &trampoline, &message), PATCH_OK);
	trampoline_free(trampoline);
	before.mappings = text_write_count();
	cr_expect_eq(staging_flush(), 0);
	cr_expect_eq(text_write_count(), before.mappings, "freed, and written all the same");
}

/* ---- jumps and pads --------------------------------------------------------------------------------------------- */

static uintptr_t target_of_jump(uintptr_t at, const uint8_t *jump)
{
	int32_t distance;

	cr_expect_eq(jump[0], ARCH_JMP_REL32);
	memcpy(&distance, jump + 1, sizeof(distance));
	return at + ARCH_JMP_SIZE + (uintptr_t)(intptr_t)distance;
}

Test(trampoline, jumps_of_every_pattern)
{
	static const uint8_t insns[5][5] = { { NOP }, { MOV_EAX_EDI }, { MOV_RAX_RDI }, { LEA_RAX_RDI_4 },
					     { MOV_EAX_IMM } };
	unsigned int pattern, i;

	init();
	for (pattern = 0; pattern < 16; pattern++) {
		uint8_t bytes[ARCH_JMP_SIZE], pad[ARCH_JMP_SIZE];
		struct trampoline *trampoline, *again;
		unsigned int at = 0, end;
		struct test_window w;
		uintptr_t first;

		while (at < ARCH_JMP_SIZE) {
			for (end = at + 1; end < ARCH_JMP_SIZE && !(pattern & 1U << (end - 1)); end++)
				;
			memcpy(bytes + at, insns[end - at - 1], end - at);
			at = end;
		}
		make_window(&w, bytes, sizeof(bytes),
			    pattern ? PATCH_STRATEGY_CONSTRAINED_JUMP : PATCH_STRATEGY_JUMP);
		/* Elsewhere each time: of some patterns there is one pad only. */
		w.window.start += 64 * pattern;
		trampoline = build(&w, NULL, 0);
		for (i = 0; i < 4; i++)
			cr_expect(!(pattern & 1U << i) || arch_trap_class(trampoline->jump[1 + i]) != ARCH_TRAP_NONE,
				  "pattern %#x: byte %u of the displacement is %#x", pattern, i,
				  trampoline->jump[1 + i]);
		if (pattern == 0) {
			cr_expect_eq(w.window.pad, 0);
			cr_expect_eq(target_of_jump(w.window.start, trampoline->jump), trampoline_entry(trampoline, 0));
			continue;
		}
		cr_assert_neq(w.window.pad, 0);
		cr_expect_eq(target_of_jump(w.window.start, trampoline->jump), w.window.pad, "pattern %#x", pattern);
		trampoline_pad_bytes(trampoline, w.window.pad, pad);
		cr_expect_eq(target_of_jump(w.window.pad, pad), trampoline_entry(trampoline, 0), "pattern %#x",
			     pattern);

		/* Another trampoline for the window goes through the same pad, so that the text need not change. */
		first = w.window.pad;
		again = build(&w, NULL, 0);
		cr_expect_eq(w.window.pad, first);
		cr_expect_arr_eq(again->jump, trampoline->jump, ARCH_JMP_SIZE);
		trampoline_pad_bytes(again, first, pad);
		cr_expect_eq(target_of_jump(first, pad), trampoline_entry(again, 0), "pattern %#x", pattern);
		cr_expect_neq(trampoline_entry(again, 0), trampoline_entry(trampoline, 0));
	}
}

/* An int3 would do at the second one, too, but its pads would take pages of their own. */
Test(trampoline, pads_of_neighbours_share_pages)
{
	struct test_window first, second, third;
	struct trampoline *trampoline;

	init();
	MAKE_WINDOW(&first, PATCH_STRATEGY_CONSTRAINED_JUMP, LEA_RAX_RDI_4, MOV_EAX_EDI);
	trampoline = build(&first, NULL, 0);
	cr_expect_eq(trampoline->jump[4], ARCH_INT3);

	MAKE_WINDOW(&second, PATCH_STRATEGY_CONSTRAINED_JUMP, LEA_RAX_RDI_4, NOP);
	second.window.start += 64;
	trampoline = build(&second, NULL, 0);
	cr_expect_eq(arch_trap_class(trampoline->jump[4]), ARCH_TRAP_SIGILL);

	MAKE_WINDOW(&third, PATCH_STRATEGY_CONSTRAINED_JUMP, LEA_RAX_RDI_4, MOV_EAX_EDI);
	third.window.start += 128;
	build(&third, NULL, 0);
	cr_expect_eq(third.window.pad / PAGE_SIZE, second.window.pad / PAGE_SIZE);
}

Test(trampoline, a_trap_needs_no_pad)
{
	struct test_window w;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, NOP, NOP, NOP, NOP, NOP);
	build(&w, NULL, 0);
	cr_expect_eq(w.window.pad, 0);
}

/* ---- can it do that, too? --------------------------------------------------------------------------------------- */

Test(trampoline, excess_of_hooks_and_masks)
{
	struct hook hooks[] = { make_hook(0, HOOK_BEFORE), make_hook(2, HOOK_AROUND) };
	struct hook other[ARRAY_SIZE(hooks)];
	struct trampoline *trampoline;
	struct test_window w;

	init();
	hooks[1].code.read = REG(RBX) | REG(RDI);
	hooks[1].code.write = REG(RDI);
	hooks[1].code.clobber = PATCH_REGS_VECTOR;
	MAKE_WINDOW(&w, PATCH_STRATEGY_CONSTRAINED_JUMP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, hooks, 2);
	cr_expect_eq(trampoline_excess(trampoline, hooks, 2), 0);
	/* What the trampoline has and nobody wants counts, a hook more than any mask. */
	memcpy(other, hooks, sizeof(hooks));
	other[1].code.read = REG(RBX);
	cr_expect_eq(trampoline_excess(trampoline, other, 2), 1);
	other[1].code.write = 0;
	cr_expect_eq(trampoline_excess(trampoline, other, 2), 2);
	cr_expect_gt(trampoline_excess(trampoline, hooks, 1), 192);
	cr_expect_gt(trampoline_excess(trampoline, hooks + 1, 1), 192);

#define UNFIT(field, value)                                                                                            \
	do {                                                                                                           \
		memcpy(other, hooks, sizeof(hooks));                                                                   \
		other[1].field = (value);                                                                              \
		cr_expect_eq(trampoline_excess(trampoline, other, 2), TRAMPOLINE_UNFIT, #field);                       \
	} while (0)
	UNFIT(address, hooks[0].address);
	UNFIT(when, HOOK_RETURNED);
	UNFIT(code.read, hooks[1].code.read | REG(RCX));
	UNFIT(code.write, hooks[1].code.write | REG(RCX));
	UNFIT(code.clobber, hooks[1].code.clobber | REG(RCX));
	UNFIT(code.action, ARCH_COUNT);
	UNFIT(code.stamp, true);
	/* What is around an instruction is before it, too: the second call is a hook that nobody wants. */
	memcpy(other, hooks, sizeof(hooks));
	other[1].when = HOOK_BEFORE;
	cr_expect_gt(trampoline_excess(trampoline, other, 2), 192);
	cr_expect_neq(trampoline_excess(trampoline, other, 2), TRAMPOLINE_UNFIT);
	memcpy(other, hooks, sizeof(hooks));
	other[0].when = HOOK_AROUND;
	cr_expect_eq(trampoline_excess(trampoline, other, 2), TRAMPOLINE_UNFIT);
	/* Order is no part of it. */
	other[0] = hooks[1];
	other[1] = hooks[0];
	cr_expect_eq(trampoline_excess(trampoline, other, 2), 0);
}

/* Those that count need a hook each. */
Test(trampoline, excess_of_counters)
{
	struct hook hooks[3];
	struct trampoline *trampoline;
	struct test_window w;

	init();
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		hooks[i] = make_hook(0, HOOK_BEFORE);
		hooks[i].code.action = ARCH_COUNT;
	}
	MAKE_WINDOW(&w, PATCH_STRATEGY_CONSTRAINED_JUMP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, hooks, 2);
	cr_expect_eq(trampoline_excess(trampoline, hooks, 2), 0);
	cr_expect_neq(trampoline_excess(trampoline, hooks, 1), TRAMPOLINE_UNFIT);
	cr_expect_eq(trampoline_excess(trampoline, hooks, 3), TRAMPOLINE_UNFIT);
	hooks[1].code.action = ARCH_COUNT_ATOMIC;
	cr_expect_eq(trampoline_excess(trampoline, hooks, 2), TRAMPOLINE_UNFIT);
}

Test(trampoline, is_for_one_window)
{
	const struct hook hook = make_hook(0, HOOK_BEFORE);
	struct trampoline *trampoline;
	struct test_window w;
	struct window window;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_CONSTRAINED_JUMP, MOV_EAX_EDI, XOR_EAX_ESI, NOP);
	trampoline = build(&w, &hook, 1);
	cr_expect(trampoline_is_for(trampoline, &w.window));
#define WINDOW_DIFFERS(field)                                                                                          \
	do {                                                                                                           \
		window = w.window;                                                                                     \
		window.field ^= 1;                                                                                     \
		cr_expect_not(trampoline_is_for(trampoline, &window), #field);                                         \
	} while (0)
	WINDOW_DIFFERS(start);
	WINDOW_DIFFERS(length);
	WINDOW_DIFFERS(strategy);
	WINDOW_DIFFERS(pad);
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

/* jmp to 2 GiB below, jmp to 2 GiB above: far, as nothing reaches both. Of the jump, a stub is in reach. */
Test(trampoline, far_by_a_stub)
{
	struct listing expected = { .count = 0 };
	struct trampoline *trampoline;
	struct arena_usage before, after;
	uint8_t pad[ARCH_JMP_SIZE];
	struct arch_code_map map;
	struct test_window w;
	uintptr_t front;

	init();
	arena_usage(&before);
	MAKE_WINDOW(&w, PATCH_STRATEGY_CONSTRAINED_JUMP, 0xE9, 0x00, 0x00, 0x00, 0x80, 0xE9, 0xFF, 0xFF, 0xFF, 0x7F);
	trampoline = build(&w, NULL, 0);
	front = trampoline_front(trampoline);
	cr_expect_neq(front, trampoline_entry(trampoline, 0));
	ADD(&expected, "jmp [rip + 2]", 0xFF, 0x25, 2, 0, 0, 0, 0xCC, 0xCC);
	add_u64(&expected, trampoline_entry(trampoline, 0));
	expect_listing(&expected, (const uint8_t *)front);
	expect_original(front, front + 6, 0);
	cr_expect(pc_map_of_code(front, &map) && map.region == (uintptr_t)place);
	trampoline_pad_bytes(trampoline, w.window.pad, pad);
	cr_expect_eq(target_of_jump(w.window.start, trampoline->jump), w.window.pad);
	cr_expect_eq(target_of_jump(w.window.pad, pad), front);
	trampoline_free(trampoline);
	arena_usage(&after);
	cr_expect_eq(after.code_bytes, before.code_bytes);
}

static void expect_refusal(struct test_window *w, const char *why)
{
	struct trampoline *trampoline = NULL;
	const char *message = "";

	cr_expect_eq(trampoline_build(&w->window, NULL, 0, &trampoline, &message), PATCH_ENOMEM);
	cr_expect(strstr(message, why) != NULL, "%s", message);
	cr_expect_null(trampoline);
}

/* A trap can lead anywhere: the same, far. */
Test(trampoline, far)
{
	const uintptr_t targets[] = { (uintptr_t)place + 5 - 0x80000000UL, (uintptr_t)place + 10 + 0x7FFFFFFFUL };
	struct listing expected = { .count = 0 };
	struct trampoline *trampoline;
	struct test_window w;
	unsigned int i;

	init();
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, 0xE9, 0x00, 0x00, 0x00, 0x80, 0xE9, 0xFF, 0xFF, 0xFF, 0x7F);
	trampoline = build(&w, NULL, 0);
	for (i = 0; i < 2; i++) {
		ADD(&expected, "jmp [rip + 2]", 0xFF, 0x25, 2, 0, 0, 0, 0xCC, 0xCC);
		add_u64(&expected, targets[i]);
	}
	expect_listing(&expected, code_of(trampoline, 0));
	trampoline_free(trampoline);

	/* Refused for another reason than memory: mov rsp, [rip + ...]; jmp [rip + ...], which is made by a return. */
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, 0x48, 0x8B, 0x25, 0x00, 0x00, 0x00, 0x80, 0xE9, 0xFF, 0xFF, 0xFF, 0x7F);
	expect_refusal(&w, "the stack pointer");
	w.window.strategy = PATCH_STRATEGY_CONSTRAINED_JUMP;
	expect_refusal(&w, "the stack pointer");
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, 0xE8, 0x00, 0x00, 0x00, 0x80, 0xFF, 0x25, 0xFF, 0xFF, 0xFF, 0x7F);
	build(&w, NULL, 0);
	w.window.shadow_stack = true;
	expect_refusal(&w, "shadow stack");
}

/* The slot may be anywhere, too. The padding keeps constants aligned. */
Test(trampoline, far_hook)
{
	const struct hook hook = make_hook(0, HOOK_BEFORE);
	struct listing expected = { .count = 0 };
	struct trampoline *trampoline;
	struct test_window w;

	init();
	/* jmp to 2 GiB below, jmp to 2 GiB above: far, as nothing reaches both */
	MAKE_WINDOW(&w, PATCH_STRATEGY_TRAP, 0xE9, 0x00, 0x00, 0x00, 0x80, 0xE9, 0xFF, 0xFF, 0xFF, 0x7F);
	trampoline = build(&w, &hook, 1);
	ADD(&expected, "lea rsp, [rsp - 432]", 0x48, 0x8D, 0xA4, 0x24, 0x50, 0xFE, 0xFF, 0xFF);
	ADD(&expected, "pushfq", 0x9C);
	ADD(&expected, "mov [rsp + private rax], rax", 0x48, 0x89, 0x44, 0x24, 0x18);
	ADD(&expected, "mov rax, fs:[guard]", 0x64, 0x48, 0x8B, 0x04, 0x25);
	add_u32(&expected, tls(&libpatch_hook_guard.guard));
	ADD(&expected, "test rax, rax", 0x48, 0x85, 0xC0);
	ADD(&expected, "jne guarded", 0x0F, 0x85);
	add_field(&expected, code_of(trampoline, 0) + expected.size, 4);
	ADD(&expected, "mov [rsp + private rcx], rcx", 0x48, 0x89, 0x4C, 0x24, 0x28);
	ADD(&expected, "mov [rsp + record], rax", 0x48, 0x89, 0x44, 0x24, 0x08);
	ADD(&expected, "mov fs:[guard], rsp", 0x64, 0x48, 0x89, 0x24, 0x25);
	add_u32(&expected, tls(&libpatch_hook_guard.guard));
	ADD(&expected, "mov rax, [slot]", 0x48, 0xA1);
	add_u64(&expected, trampoline->hooks[0].slot);
	ADD(&expected, "mov rcx, rax", 0x48, 0x89, 0xC1);
	ADD(&expected, "test rcx, rcx", 0x48, 0x85, 0xC9);
	expect_listing(&expected, code_of(trampoline, 0));
}

Test(trampoline, too_many_hooks)
{
	enum { MANY = 400 };
	struct hook *hooks = calloc(MANY, sizeof(*hooks));
	struct trampoline *trampoline = NULL;
	struct arena_usage before, after;
	struct test_window w;
	const char *message = "";
	size_t i;

	init();
	for (i = 0; i < MANY; i++)
		hooks[i] = make_hook(0, HOOK_BEFORE);
	MAKE_WINDOW(&w, PATCH_STRATEGY_JUMP, MOV_EAX_IMM);
	build(&w, hooks, 100);
	arena_usage(&before);
	cr_expect_eq(trampoline_build(&w.window, hooks, MANY, &trampoline, &message), PATCH_ENOMEM);
	cr_expect_str_eq(message, "too many hooks on one group of instructions");
	arena_usage(&after);
	cr_expect_eq(after.code_bytes, before.code_bytes);
	free(hooks);
}
