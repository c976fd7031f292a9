/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running originals and relocated copies beside each other. For unit tests: it fails by Criterion. */
#include "beside.h"

#include "arch/emit.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#define FLAGS 0xCD5UL     /* CF PF AF ZF SF DF OF */
#define COMPONENTS 0xE7UL /* x87, SSE, AVX, AVX-512 */

#define EXITS_AT 0x1000UL
#define DATA_AT 0x10000000UL
#define STACK_AT (DATA_AT + 0x10000)
#define OPERAND 0x800 /* in data: what operands refer to */
#define EXIT_ID 0xFF0 /* in data: which way out was taken */
#define HOLE_ID 0xFF8 /* in data: which hole was passed */

enum hole { HOLE_NONE, HOLE_FALL, HOLE_TAKEN, HOLE_UNKNOWN };

uintptr_t beside_base;
uintptr_t beside_exits[3];
bool beside_far;
bool beside_has_v3;
unsigned int beside_forms_run;
static bool has_v4;
static uint8_t *data, *stack;

void beside_protect(uintptr_t page, int protection)
{
	cr_assert_eq(mprotect((void *)ALIGN_DOWN(page, PAGE_SIZE), PAGE_SIZE, protection), 0);
}

/* mov byte [rip + id], value: changes no flag */
static void emit_mark(struct arch_code *code, size_t id, uint8_t value)
{
	arch_emit_bytes(code, "\xC6\x05", 2);
	arch_emit_rel32(code, beside_base + DATA_AT + id, 1);
	arch_emit_u8(code, value);
}

void beside_prepare(uintptr_t at)
{
	struct arch_code code;
	uint32_t eax, edx;
	int i;
	void *memory = mmap((void *)at, BESIDE_RESERVED, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	beside_base = (uintptr_t)memory;
	data = (uint8_t *)beside_base + DATA_AT;
	stack = (uint8_t *)beside_base + STACK_AT;
	beside_protect((uintptr_t)data, PROT_READ | PROT_WRITE);
	beside_protect((uintptr_t)stack, PROT_READ | PROT_WRITE);

	beside_protect(beside_base + EXITS_AT, PROT_READ | PROT_WRITE);
	code = (struct arch_code){ .bytes = (uint8_t *)beside_base + EXITS_AT, .capacity = PAGE_SIZE };
	code.base = beside_base + EXITS_AT;
	for (i = EXIT_FALL; i <= EXIT_TAKEN; i++) {
		beside_exits[i] = arch_code_here(&code);
		emit_mark(&code, EXIT_ID, i);
		arch_emit_bytes(&code, "\xFF\x25\0\0\0\0", 6); /* jmp [rip] */
		arch_emit_u64(&code, (uintptr_t)run_leave);
	}
	beside_protect(beside_base + EXITS_AT, PROT_READ | PROT_EXEC);

	__asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	run_state.components = eax & COMPONENTS;
	beside_has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
	has_v4 = beside_has_v3 && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
		 __builtin_cpu_supports("avx512dq");
}

static uint64_t random_next(void)
{
	static uint64_t counter;
	uint64_t x = counter += 0x9E3779B97F4A7C15; /* splitmix64 */

	x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
	x = (x ^ x >> 27) * 0x94D049BB133111EB;
	return x ^ x >> 31;
}

static void random_fill(void *memory, size_t size)
{
	uint64_t *words = memory;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = random_next();
}

/* ---- one form, original and copy -------------------------------------------------------------------------------- */

#define BELOW_AT (PAGE_SIZE / 2 - 144) /* in the stack */

static void emit_hole(struct arch_code *code, const struct arch_exit *exit, void *after)
{
	const uint8_t known = exit->next == *(uintptr_t *)after ? HOLE_FALL : HOLE_TAKEN;

	emit_mark(code, HOLE_ID, exit->next == 0 ? HOLE_UNKNOWN : known);
}

bool beside_build(const struct form *form)
{
	const uintptr_t original = beside_base + ORIGINAL_AT, copy = beside_base + COPY_AT;
	struct arch_code code = { .bytes = (uint8_t *)original, .capacity = 64, .base = original };
	uint8_t bytes[16];
	struct arch_insn insn;
	uintptr_t after;
	uint32_t field;

	memcpy(bytes, form->bytes, sizeof(bytes));
	cr_assert(arch_decode(bytes, form->size, original, &insn), "%s: not decoded", form->text);
	cr_assert_not(insn.flags & ARCH_F_REFUSED, "%s: %s", form->text, insn.why);
	cr_assert_eq(insn.length, form->size, "%s", form->text);
	after = original + insn.length;
	if (insn.disp_offset != 0) {
		field = (uint32_t)(beside_base + DATA_AT + OPERAND - after);
		memcpy(bytes + insn.disp_offset, &field, sizeof(field));
	}
	if (insn.rel_size == 4) {
		field = (uint32_t)(beside_exits[EXIT_TAKEN] - after);
		memcpy(bytes + insn.rel_offset, &field, sizeof(field));
	}
	cr_assert(arch_decode(bytes, form->size, original, &insn));
	if (beside_far && arch_refuses_far(bytes, &insn))
		return false;

	beside_protect(original, PROT_READ | PROT_WRITE);
	arch_emit_bytes(&code, bytes, insn.length);
	arch_emit_jmp(&code, beside_exits[EXIT_FALL]);
	if (insn.rel_size == 1) {
		code = (struct arch_code){ .bytes = (uint8_t *)insn.target, .capacity = 5, .base = insn.target };
		arch_emit_jmp(&code, beside_exits[EXIT_TAKEN]);
	}
	beside_protect(original, PROT_READ | PROT_EXEC);

	beside_protect(copy, PROT_READ | PROT_WRITE);
	code = (struct arch_code){ .bytes = (uint8_t *)copy, .capacity = 192, .base = copy, .far = beside_far };
	if (form->setup & AROUND)
		arch_relocate_around(&code, bytes, &insn, original, NULL, form->setup & WRITTEN ? 0xFFFF : 0, emit_hole,
				     &after);
	else
		arch_relocate(&code, bytes, &insn, original, NULL);
	arch_emit_jmp(&code, beside_exits[EXIT_FALL]);
	cr_assert_not(code.out_of_range, "%s", form->text);
	cr_assert_leq(code.size, code.capacity, "%s", form->text);
	beside_protect(copy, PROT_READ | PROT_EXEC);
	return true;
}

void beside_start(struct world *world, unsigned int setup)
{
	struct state *state = &world->state;
	uint64_t pointers[PAGE_SIZE / 8];
	size_t i;

	random_fill(world->data, PAGE_SIZE);
	random_fill(world->stack, PAGE_SIZE);
	random_fill(state->gpr, sizeof(state->gpr));
	state->flags = 0x202 | (random_next() & FLAGS);
	random_fill(state->xsave, sizeof(state->xsave));
	/* Legacy region and header of a valid image (Intel SDM vol. 1, 13.4). */
	memset(state->xsave, 0, 32);
	state->xsave[0] = 0x7F, state->xsave[1] = 0x03;
	memcpy(state->xsave + 24, &run_mxcsr, 4);
	memset(state->xsave + 512, 0, 64);
	memcpy(state->xsave + 512, &run_state.components, 8);
	state->components = run_state.components;

	if (setup & POINTERS) {
		for (i = 0; i < ARRAY_SIZE(pointers); i++)
			pointers[i] = beside_exits[EXIT_TAKEN];
		memcpy(world->data, pointers, PAGE_SIZE);
		memcpy(world->stack, pointers, PAGE_SIZE);
		memcpy(state->gpr, pointers, sizeof(state->gpr));
	}
	if (setup & BASES)
		state->gpr[RBX] = state->gpr[RBP] = state->gpr[R12] = (uintptr_t)data + OPERAND - 64;
	if (setup & INDEXES) {
		state->gpr[RCX] = random_next() % 16;
		state->gpr[R9] = random_next() % 16;
	}
	state->gpr[RSP] = (uintptr_t)stack + PAGE_SIZE / 2;
	world->data[EXIT_ID] = EXIT_NONE;
	world->data[HOLE_ID] = HOLE_NONE;
}

void beside_run(struct world *world, uintptr_t code)
{
	memcpy(data, world->data, PAGE_SIZE);
	memcpy(stack, world->stack, PAGE_SIZE);
	run_state = world->state;
	run_state.code = code;
	run_code();
	world->state = run_state;
	world->state.code = 0;
	world->state.flags &= FLAGS;
	memset(world->state.xsave + 8, 0, 16); /* the x87 instruction and data pointers */
	memcpy(world->data, data, PAGE_SIZE);
	memcpy(world->stack, stack, PAGE_SIZE);
}

static void expect_same(const char *text, const void *a, const void *b, size_t size, const char *what)
{
	const uint8_t *x = a, *y = b;
	size_t i;

	for (i = 0; i < size && x[i] == y[i]; i++)
		;
	cr_expect_eq(i, size, "%s: %s differs at offset %zu: original %#x, copy %#x", text, what, i, x[i % size],
		     y[i % size]);
}

enum exit beside_compare(const struct form *form, const struct world *start)
{
	static struct world original, copy;
	const bool around = form->setup & AROUND;
	uint8_t hole;

	original = copy = *start;
	beside_run(&original, beside_base + ORIGINAL_AT);
	beside_run(&copy, beside_base + COPY_AT);

	hole = copy.data[HOLE_ID];
	copy.data[HOLE_ID] = original.data[HOLE_ID];
	if (form->setup & BELOW || beside_far)
		memcpy(copy.stack + BELOW_AT, original.stack + BELOW_AT, 16);
	if (form->setup & KEPT)
		memcpy(copy.stack + PAGE_SIZE / 2 - 16, original.stack + PAGE_SIZE / 2 - 16, 8);
	if (!around)
		cr_expect_eq(hole, HOLE_NONE);
	else if (form->setup & KEPT)
		cr_expect_eq(hole, HOLE_FALL, "%s: hole", form->text);
	else if (hole != HOLE_UNKNOWN)
		cr_expect_eq(hole, copy.data[EXIT_ID] == EXIT_TAKEN ? HOLE_TAKEN : HOLE_FALL, "%s: hole", form->text);
	expect_same(form->text, original.state.gpr, copy.state.gpr, sizeof(copy.state.gpr), "register file");
	expect_same(form->text, &original.state.flags, &copy.state.flags, 8, "RFLAGS");
	expect_same(form->text, original.state.xsave, copy.state.xsave, sizeof(copy.state.xsave), "extended state");
	expect_same(form->text, original.data, copy.data, PAGE_SIZE, "data");
	expect_same(form->text, original.stack, copy.stack, PAGE_SIZE, "stack");
	return original.data[EXIT_ID];
}

void beside_check(const struct form *form)
{
	static struct world world;
	int i;

	if ((form->setup & V3 && !beside_has_v3) || (form->setup & V4 && !has_v4))
		return;
	if (!beside_build(form))
		return;
	beside_forms_run++;
	for (i = 0; i < 4; i++) {
		beside_start(&world, form->setup);
		beside_compare(form, &world);
	}
}
