/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stress.h"

#include "functions.h"

#define INSTRUCTIONS_MAX 30
#define NEAR (64UL << 20)

/* Lengths first. */
static const uint8_t pool_1[][8] = {
	{ 1, 0xf5 }, /* cmc */
	{ 1, 0xf8 }, /* clc */
	{ 1, 0xf9 }, /* stc */
	{ 1, 0x90 }, /* nop */
	{ 1, 0x91 }, /* xchg %eax, %ecx */
	{ 1, 0x92 }, /* xchg %eax, %edx */
	{ 1, 0x98 }, /* cwtl */
	{ 1, 0x99 }, /* cltd */
	{ 1, 0x9f }, /* lahf */
};
static const uint8_t pool_2[][8] = {
	{ 2, 0x01, 0xc8 }, /* add %ecx, %eax */
	{ 2, 0x31, 0xd0 }, /* xor %edx, %eax */
	{ 2, 0xff, 0xc2 }, /* inc %edx */
	{ 2, 0x19, 0xc1 }, /* sbb %eax, %ecx */
	{ 2, 0xd1, 0xc8 }, /* ror %eax */
	{ 2, 0x89, 0xc2 }, /* mov %eax, %edx */
	{ 2, 0x11, 0xd1 }, /* adc %edx, %ecx */
};
static const uint8_t pool_more[][8] = {
	{ 4, 0x48, 0x83, 0xc0, 0x11 },             /* add $0x11, %rax */
	{ 4, 0x8d, 0x54, 0x08, 0x01 },             /* lea 1(%rax, %rcx), %edx */
	{ 3, 0x6b, 0xc9, 0x07 },                   /* imul $7, %ecx, %ecx */
	{ 4, 0x48, 0x83, 0xe8, 0xff },             /* sub $-1, %rax */
	{ 4, 0x48, 0xc1, 0xc1, 0x03 },             /* rol $3, %rcx */
	{ 3, 0x0f, 0xc1, 0xc1 },                   /* xadd %eax, %ecx */
	{ 5, 0xba, 0x00, 0x10, 0x00, 0x00 },       /* mov $0x1000, %edx */
	{ 5, 0x05, 0x45, 0x23, 0x01, 0x00 },       /* add $0x12345, %eax */
	{ 6, 0x8d, 0x89, 0x34, 0x12, 0x00, 0x00 }, /* lea 0x1234(%rcx), %ecx */
	{ 2, 0xff, 0xd6 },                         /* call *%rsi */
};
static const uint8_t branches[] = { 0x72, 0x73, 0x74, 0x75, 0x78, 0xeb };
static const uint8_t begin_loop[] = { 2, 0xb3, 0x03 }; /* mov $3, %bl */
static const uint8_t count_loop[] = { 2, 0xfe, 0xcb }; /* dec %bl */

void function_helper(void);
extern uint8_t function_room[];

__asm__(".text\n.p2align 12, 0xcc\n"
	".type function_before, @function\nfunction_before:\n.cfi_startproc\n ret\n.cfi_endproc\n"
	".size function_before, . - function_before\n.p2align 8, 0xcc\n"
	".globl function_room\n.type function_room, @function\nfunction_room:\n.cfi_startproc\n .skip 256, 0xcc\n"
	".cfi_endproc\n.size function_room, . - function_room\n.p2align 12, 0xcc\n"
	".globl function_helper\n.type function_helper, @function\nfunction_helper:\n.cfi_startproc\n"
	" inc %r9d\n ret\n.cfi_endproc\n.size function_helper, . - function_helper\n"
	".type function_callback, @function\nfunction_callback:\n.cfi_startproc\n"
	" lea 1(%r9), %r9\n ret\n.cfi_endproc\n.size function_callback, . - function_callback\n"
	/* rsi is the callback; the function's return address is under the flags to load. */
	".globl function_enter\n.type function_enter, @function\nfunction_enter:\n.cfi_startproc\n"
	" push %rbx\n.cfi_adjust_cfa_offset 8\n push %rbp\n.cfi_adjust_cfa_offset 8\n push %r12\n"
	".cfi_adjust_cfa_offset 8\n"
	" mov %rsi, %rbp\n mov %rdi, %r11\n lea function_callback(%rip), %rsi\n"
	" mov (%rbp), %rax\n mov 8(%rbp), %rcx\n mov 24(%rbp), %rbx\n mov 32(%rbp), %r9\n"
	" push %rdx\n mov 16(%rbp), %rdx\n lea function_back(%rip), %r10\n xchg (%rsp), %r10\n push %r10\n popf\n"
	" jmp *%r11\n"
	".globl function_back\nfunction_back: cld\n"
	" mov %rax, (%rbp)\n mov %rcx, 8(%rbp)\n mov %rdx, 16(%rbp)\n mov %rbx, 24(%rbp)\n mov %r9, 32(%rbp)\n"
	" pop %r12\n.cfi_adjust_cfa_offset -8\n pop %rbp\n.cfi_adjust_cfa_offset -8\n pop %rbx\n"
	".cfi_adjust_cfa_offset -8\n ret\n.cfi_endproc\n.size function_enter, . - function_enter\n");

uintptr_t function_in_text(void)
{
	return (uintptr_t)function_room;
}

uintptr_t function_in_mapping(void)
{
	uintptr_t wanted = ((uintptr_t)function_room & ~4095UL) + NEAR;
	uint8_t *page = mmap((void *)wanted, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(page != MAP_FAILED);
	memset(page, 0xcc, 8192);
	REQUIRE(mprotect(page, 8192, PROT_READ | PROT_EXEC) == 0);
	return (uintptr_t)page + 1024;
}

struct generator {
	uint64_t *state;
	uint8_t *code;
	uintptr_t at;
	size_t size;
	unsigned int count;
	size_t start[INSTRUCTIONS_MAX + 4];   /* of each instruction */
	unsigned int to[INSTRUCTIONS_MAX + 4]; /* that it branches to; 0: none */
};

static unsigned int pick(struct generator *g, unsigned int count)
{
	return (unsigned int)((stress_random(g->state) >> 20) % count);
}

static void add(struct generator *g, const uint8_t *insn)
{
	g->start[g->count] = g->size;
	g->to[g->count++] = 0;
	memcpy(g->code + g->size, insn + 1, insn[0]);
	g->size += insn[0];
}

static void add_branch(struct generator *g, uint8_t opcode, unsigned int to)
{
	const uint8_t branch[] = { 2, opcode, 0 };

	add(g, branch);
	g->to[g->count - 1] = to;
}

static void add_call(struct generator *g)
{
	uint8_t call[6] = { 5, 0xe8 };
	int32_t displacement = (int32_t)((uintptr_t)function_helper - (g->at + g->size + 5));

	memcpy(call + 2, &displacement, sizeof(displacement));
	add(g, call);
}

static void end_loop(struct generator *g, unsigned int head)
{
	add(g, count_loop);
	add_branch(g, 0x75, head);
}

static void add_any(struct generator *g)
{
	unsigned int choice = pick(g, 100);

	if (choice < 24)
		add(g, pool_1[pick(g, sizeof(pool_1) / sizeof(pool_1[0]))]);
	else if (choice < 62)
		add(g, pool_2[pick(g, sizeof(pool_2) / sizeof(pool_2[0]))]);
	else if (choice < 74)
		add_branch(g, branches[pick(g, sizeof(branches))], g->count + 1 + pick(g, 8));
	else if (choice < 94)
		add(g, pool_more[pick(g, sizeof(pool_more) / sizeof(pool_more[0]))]);
	else
		add_call(g);
}

/* Behind the last one: to that, which is `ret`. Not between a loop's `dec` and its branch: it would not end. */
static void fill_branches(struct generator *g)
{
	for (unsigned int n = 0; n < g->count; n++) {
		unsigned int to = g->to[n] < g->count ? g->to[n] : g->count - 1;

		if (to > n && g->to[to] != 0 && g->to[to] < to)
			to++;
		if (g->to[n] != 0)
			g->code[g->start[n] + 1] = (uint8_t)(g->start[to] - (g->start[n] + 2));
	}
}

size_t function_generate(uint64_t *state, uintptr_t at, uint8_t code[FUNCTION_MAX])
{
	static const uint8_t ret[] = { 1, 0xc3 };
	struct generator g = { .state = state, .code = code, .at = at };
	unsigned int wanted = 10 + pick(&g, 17), head = 0;

	while (g.count < wanted) {
		if (head == 0 && pick(&g, 100) < 12 && g.count + 4 < wanted) {
			add(&g, begin_loop);
			head = g.count;
		} else if (head != 0 && pick(&g, 100) < 25 && g.count > head) {
			end_loop(&g, head);
			head = 0;
		} else {
			add_any(&g);
		}
	}
	if (head != 0)
		end_loop(&g, head);
	add(&g, ret);
	fill_branches(&g);
	return g.size;
}
