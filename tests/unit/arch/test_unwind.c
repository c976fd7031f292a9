/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwinding through generated code: a hand-made arena whose blocks stand for instructions of an assembly function with
 * its own unwind table. Backtraces from procedures and from signals at every instruction, exceptions, forced unwinds.
 */
#include "arch/hook.h"
#include "arch/unwind.h"
#include "arch/x86_64/hook_frame.h"
#include "code/arena.h"
#include "runtime/hook_guard.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

/* What unwind.c takes for granted. */
_Static_assert(ARENA_GRANULE == 16, "GRANULE_SHIFT");
_Static_assert(ARENA_BLOCK_ROWS == 8, "BLOCK_ROWS");
_Static_assert(sizeof(struct arch_row) == 4, "rows");

extern void __register_frame(void *begin);
extern void __deregister_frame(void *begin);

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* ---- the program, and a template of a block's code --------------------------------------------------------------- */

/* Jumps to unwind_test_target at `site`; returns 1 from `resume`, or what an exception handler put into rax. */
uint64_t unwind_test_original(bool single_step);
extern const uint8_t unwind_test_site[], unwind_test_resume[], unwind_test_caught[];
extern const uint8_t unwind_test_template[], unwind_test_after_lower[], unwind_test_after_raise[];
extern const uint8_t unwind_test_after_lower2[], unwind_test_in_deref[], unwind_test_out_of_deref[];
extern const uint8_t unwind_test_after_lower3[], unwind_test_in_deref2[], unwind_test_out_of_deref2[];
extern const uint8_t unwind_test_in_frame[], unwind_test_in_call[];
extern const uint8_t unwind_test_out_of_call[], unwind_test_out_of_frame[], unwind_test_template_end[];
uintptr_t unwind_test_target;
uintptr_t unwind_test_stack_pointer;
void unwind_test_procedure(uintptr_t call, uintptr_t frame);
_Unwind_Reason_Code unwind_test_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					    struct _Unwind_Exception *exception, struct _Unwind_Context *context);

/* clang-format off */
__asm__(".text\n"
	".globl unwind_test_original, unwind_test_site, unwind_test_resume, unwind_test_caught\n"
	".type unwind_test_original, @function\n"
	"unwind_test_original:\n"
	"	.cfi_startproc\n"
	"	.cfi_personality 0x9b, unwind_test_personality_reference\n"
	"	pushq %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset %rbx, -16\n"
	"	subq $32, %rsp\n"
	"	.cfi_adjust_cfa_offset 32\n"
	"	movq %rsp, unwind_test_stack_pointer(%rip)\n"
	"	movl %edi, %ebx\n"
	"	testb %dil, %dil\n"
	"	jz unwind_test_site\n"
	"	pushfq\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	orl $0x100, (%rsp)\n"
	"	popfq\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"unwind_test_site:\n"
	"	jmpq *unwind_test_target(%rip)\n"
	"	nop\n"
	"unwind_test_resume:\n"
	"	movl $1, %eax\n"
	"unwind_test_caught:\n"
	"	addq $32, %rsp\n"
	"	.cfi_adjust_cfa_offset -32\n"
	"	popq %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size unwind_test_original, .-unwind_test_original\n"
	".data\n"
	".balign 8\n"
	"unwind_test_personality_reference:\n"
	"	.quad unwind_test_personality\n"
	/* In .data, because of the absolute addresses. */
	"unwind_test_template:\n"
	"	nop\n"
	"	leaq -0x90(%rsp), %rsp\n"
	"unwind_test_after_lower:\n" /* cfa 0x90 / 8 */
	"	nop\n"
	"	movl $1, %edi\n"
	"	movq %rsp, %rsi\n"
	"	movabsq $unwind_test_procedure, %rax\n"
	"	callq *%rax\n"
	"	leaq 0x90(%rsp), %rsp\n"
	"unwind_test_after_raise:\n" /* cfa 0 */
	"	nop\n"
	"	leaq -0x100(%rsp), %rsp\n"
	"unwind_test_after_lower2:\n" /* cfa 0x100 / 8; less than a red zone below it is safe from signals */
	"	movq %rsp, %rax\n"
	"	andq $-64, %rax\n"
	"	leaq 0x100(%rsp), %rcx\n"
	"	movq %rcx, (%rax)\n"
	"	movq $0x1234, 8(%rax)\n"
	"	movq %rax, %rsp\n"
	"unwind_test_in_deref:\n" /* cfa 0, deref */
	"	movl $2, %edi\n"
	"	movq %rsp, %rsi\n"
	"	movabsq $unwind_test_procedure, %rax\n"
	"	callq *%rax\n"
	"	nop\n"
	"	movq (%rsp), %rsp\n"
	"unwind_test_out_of_deref:\n" /* cfa 0 */
	"	leaq -0x3f0(%rsp), %rsp\n"
	"unwind_test_after_lower3:\n" /* cfa 0x3f0 / 8 */
	"	movq %rsp, %rax\n"
	"	andq $-64, %rax\n"
	"	movq %rsp, (%rax)\n"
	"	movq $0x1234, 8(%rax)\n"
	"	movq %rax, %rsp\n"
	"unwind_test_in_deref2:\n" /* cfa 0x3f0 / 8, deref */
	"	movl $3, %edi\n"
	"	movq %rsp, %rsi\n"
	"	movabsq $unwind_test_procedure, %rax\n"
	"	callq *%rax\n"
	"	movq (%rsp), %rax\n"
	"	leaq 0x3f0(%rax), %rsp\n"
	"unwind_test_out_of_deref2:\n" /* cfa 0 */
	/* A hook, as arch_emit_hook() makes it. */
	"	leaq -" STRING(ARCH_HOOK_FRAME_TOTAL) "(%rsp), %rsp\n"
	"unwind_test_in_frame:\n" /* cfa FRAME */
	"	movq $0x1234, " STRING(ARCH_HOOK_FRAME_RECORD) "(%rsp)\n"
	"	movl $4, %edi\n"
	"	movq %rsp, %rsi\n"
	"	movabsq $unwind_test_procedure, %rax\n"
	"	pushq %rax\n"
	"unwind_test_in_call:\n" /* cfa FRAME + 1 */
	"	callq *%rax\n"
	"	popq %rax\n"
	"unwind_test_out_of_call:\n" /* cfa FRAME */
	"	leaq " STRING(ARCH_HOOK_FRAME_TOTAL) "(%rsp), %rsp\n"
	"unwind_test_out_of_frame:\n" /* cfa 0 */
	"	nop\n"
	"	movabsq $unwind_test_resume, %r11\n"
	"	jmpq *%r11\n"
	"unwind_test_template_end:\n"
	".text\n");
/* clang-format on */

/* ---- the arena --------------------------------------------------------------------------------------------------- */

#define CODE_SIZE (16 * PAGE_SIZE)
#define GRANULES (CODE_SIZE / ARENA_GRANULE)

static struct {
	uint16_t *granules;
	uint8_t *code;
	uint8_t description[1024];
} arena;

static const struct {
	const uint8_t *start;
	uint8_t original;
	uint8_t cfa;
} template_rows[] = {
	{unwind_test_template, 0, 0},
	{unwind_test_after_lower, 0, 0x90 / 8},
	{unwind_test_after_raise, 0, 0},
	{unwind_test_after_lower2, 1, 0x100 / 8},
	{unwind_test_in_deref, 1, ARCH_ROW_DEREF},
	{unwind_test_out_of_deref, 2, 0},
	{unwind_test_after_lower3, 5, 0x3f0 / 8},
	{unwind_test_in_deref2, 5, ARCH_ROW_DEREF | 0x3f0 / 8},
	{unwind_test_out_of_deref2, 5, 0},
	{unwind_test_in_frame, 5, ARCH_ROW_CFA_FRAME},
	{unwind_test_in_call, 5, ARCH_ROW_CFA_FRAME + 1},
	{unwind_test_out_of_call, 6, ARCH_ROW_CFA_FRAME},
	{unwind_test_out_of_frame, 6, 0},
};
#define ROW_COUNT ARRAY_SIZE(template_rows)

/* Calls of unwind_test_procedure() in a block; from the second on their frames are frames of hooks. */
enum { FIRST_CALL = 1, FIRST_HOOK = 2, LAST_CALL = 4 };

static struct block {
	uintptr_t start;
	uintptr_t code;
	size_t size;
	struct arch_row rows[ROW_COUNT + 1];
} blocks[3];

static void make_block(struct block *block, size_t granule, size_t code_offset)
{
	size_t code_size = unwind_test_template_end - unwind_test_template;
	uint8_t *start = arena.code + granule * ARENA_GRANULE;
	uint64_t site = (uintptr_t)unwind_test_site;

	block->start = (uintptr_t)start;
	block->code = (uintptr_t)start + code_offset;
	block->size = code_offset + code_size;
	for (size_t i = 0; i < ROW_COUNT; i++) {
		block->rows[i].code = code_offset + (template_rows[i].start - unwind_test_template);
		block->rows[i].original = template_rows[i].original;
		block->rows[i].cfa = template_rows[i].cfa;
	}
	block->rows[ROW_COUNT].code = ARENA_ROW_END;
	memcpy(start, &site, sizeof(site));
	memcpy(start + ARENA_BLOCK_ROWS, block->rows, sizeof(block->rows));
	memcpy(start + code_offset, unwind_test_template, code_size);
	for (size_t i = 0; i * ARENA_GRANULE < block->size; i++)
		arena.granules[granule + i] = i;
}

static void make_arena(void)
{
	uint8_t *memory =
		mmap(NULL, 2 * PAGE_SIZE + CODE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(memory, MAP_FAILED);
	arena.granules = (uint16_t *)memory;
	arena.code = memory + 2 * PAGE_SIZE;
	memset(arena.granules, 0xff, GRANULES * sizeof(uint16_t));
	memset(arena.code, 0xcc, CODE_SIZE);
	make_block(&blocks[0], 0, 80);
	make_block(&blocks[1], blocks[0].size / ARENA_GRANULE + 1, 96);
	make_block(&blocks[2], GRANULES - 2550, 40000);
	cr_assert(blocks[2].start + blocks[2].size <= (uintptr_t)arena.code + CODE_SIZE);
	cr_assert_eq(mprotect(arena.code, CODE_SIZE, PROT_READ | PROT_EXEC), 0);

	struct arch_unwind_code code = {(uintptr_t)arena.code, (uintptr_t)arena.code + CODE_SIZE,
					(uintptr_t)arena.granules};
	size_t size = arch_unwind_describe(arena.description, sizeof(arena.description), &code, ARCH_UNWIND_LIBGCC).all;
	cr_assert(size <= sizeof(arena.description));
	__register_frame(arena.description);
}

static void remove_arena(void)
{
	__deregister_frame(arena.description);
	munmap(arena.granules, 2 * PAGE_SIZE + CODE_SIZE);
}

TestSuite(unwind, .init = make_arena, .fini = remove_arena);

static bool in_blocks(uintptr_t pc)
{
	return pc >= (uintptr_t)arena.code && pc < (uintptr_t)arena.code + CODE_SIZE;
}

static const struct arch_row *row_of(uintptr_t pc)
{
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
		const struct block *block = &blocks[i];

		if (pc < block->code || pc >= block->start + block->size)
			continue;
		for (size_t j = ROW_COUNT; j-- > 0;) {
			if (pc - block->start >= block->rows[j].code)
				return &block->rows[j];
		}
	}
	return NULL;
}

/* ---- backtraces -------------------------------------------------------------------------------------------------- */

static uint64_t __attribute__((noinline)) call_original(const struct block *block, bool single_step)
{
	unwind_test_target = block->code;
	uint64_t result = unwind_test_original(single_step);
	__asm__ volatile("" : "+r"(result)); /* no tail call */
	return result;
}

struct walk {
	int generated; /* frames of generated code seen */
	int stage;     /* 0: inner frames, 1: the program's function, 2: its caller, 3: beyond */
	int beyond;
	uintptr_t expected;
};

static _Unwind_Reason_Code walk_frame(struct _Unwind_Context *context, void *data)
{
	struct walk *walk = data;
	int before = -1;
	uintptr_t pc = _Unwind_GetIPInfo(context, &before);

	switch (walk->stage) {
	case 0:
		if (!in_blocks(pc))
			break;
		cr_assert_not_null(row_of(pc));
		walk->expected = (uintptr_t)unwind_test_site + row_of(pc)->original;
		walk->generated++;
		walk->stage = 1;
		break;
	case 1:
		cr_assert_eq(pc, walk->expected);
		cr_assert_neq(before, 0, "the pc is not a return address");
		cr_assert_eq(_Unwind_GetGR(context, 7), unwind_test_stack_pointer);
		cr_assert_eq(_Unwind_FindEnclosingFunction((void *)(pc + 1)), (void *)unwind_test_original);
		walk->stage = 2;
		break;
	case 2:
		cr_assert_eq(before, 0);
		cr_assert_eq(_Unwind_FindEnclosingFunction((void *)pc), (void *)call_original);
		walk->stage = 3;
		break;
	default:
		walk->beyond++;
	}
	return _URC_NO_REASON;
}

static void check_backtrace(void)
{
	struct walk walk = {0};

	cr_assert_eq(_Unwind_Backtrace(walk_frame, &walk), _URC_END_OF_STACK);
	cr_assert_eq(walk.generated, 1);
	cr_assert_eq(walk.stage, 3);
	cr_assert(walk.beyond >= 2, "%d", walk.beyond);
}

static void (*procedure)(uintptr_t call, uintptr_t frame);
static int procedure_calls;

/* Called LAST_CALL times by a block. */
void unwind_test_procedure(uintptr_t call, uintptr_t frame)
{
	procedure_calls++;
	if (procedure != NULL)
		procedure(call, frame);
}

static void backtrace_procedure(uintptr_t call, uintptr_t frame)
{
	(void)call;
	(void)frame;
	check_backtrace();
}

Test(unwind, backtrace_from_procedures)
{
	procedure = backtrace_procedure;
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		cr_assert_eq(call_original(&blocks[i], false), 1);
	cr_assert_eq(procedure_calls, 3 * LAST_CALL);
}

static int steps;

static void step_backtrace(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signo;
	(void)info;
	if ((uintptr_t)registers[REG_RIP] == (uintptr_t)unwind_test_resume)
		registers[REG_EFL] &= ~0x100;
	if (in_blocks(registers[REG_RIP])) {
		steps++;
		check_backtrace();
	}
}

Test(unwind, backtrace_from_signals_at_every_instruction)
{
	struct sigaction action = {.sa_sigaction = step_backtrace, .sa_flags = SA_SIGINFO};

	sigaction(SIGTRAP, &action, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		cr_assert_eq(call_original(&blocks[i], true), 1);
	cr_assert_eq(procedure_calls, 3 * LAST_CALL);
	cr_assert(steps >= 3 * 30, "%d", steps);
}

/* ---- exceptions -------------------------------------------------------------------------------------------------- */

static bool catching;
static int cleanups;
static uintptr_t throw_call;
static struct _Unwind_Exception exception = {.exception_class = 0x6c69627061746368};

_Unwind_Reason_Code unwind_test_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					    struct _Unwind_Exception *thrown, struct _Unwind_Context *context)
{
	(void)version;
	(void)class;
	(void)thrown;
	if ((actions & _UA_SEARCH_PHASE) != 0)
		return catching ? _URC_HANDLER_FOUND : _URC_CONTINUE_UNWIND;
	cleanups++;
	if ((actions & _UA_HANDLER_FRAME) == 0)
		return _URC_CONTINUE_UNWIND;
	_Unwind_SetGR(context, 0, 42);
	_Unwind_SetIP(context, (uintptr_t)unwind_test_caught);
	return _URC_INSTALL_CONTEXT;
}

static void throwing_procedure(uintptr_t call, uintptr_t frame)
{
	if (call != throw_call)
		return;
	if (libpatch_hook_guard.guard == 1)
		libpatch_hook_guard.guard = frame;
	cr_assert_eq(_Unwind_RaiseException(&exception), _URC_END_OF_STACK);
	cr_assert_not(catching);
}

Test(unwind, exceptions_are_caught_behind_generated_code)
{
	procedure = throwing_procedure;
	catching = true;
	libpatch_hook_guard.guard = 0;
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
		for (throw_call = FIRST_CALL; throw_call <= LAST_CALL; throw_call++) {
			cr_assert_eq(call_original(&blocks[i], false), 42);
			cr_assert_eq(libpatch_hook_guard.guard, 0);
		}
	}
	cr_assert_eq(cleanups, 3 * LAST_CALL);
}

Test(unwind, exception_ends_the_running_hook)
{
	procedure = throwing_procedure;
	catching = true;
	for (throw_call = FIRST_HOOK; throw_call <= LAST_CALL; throw_call++) {
		libpatch_hook_guard.guard = 1;
		cr_assert_eq(call_original(&blocks[1], false), 42);
		cr_assert_eq(libpatch_hook_guard.guard, 0);
	}
}

Test(unwind, exception_keeps_other_guards)
{
	int here;
	const uintptr_t guards[] = {GUARD_INSIDE, GUARD_UNKNOWN, 64, (uintptr_t)&here};

	procedure = throwing_procedure;
	catching = true;
	for (size_t i = 0; i < ARRAY_SIZE(guards); i++) {
		for (throw_call = FIRST_CALL; throw_call <= LAST_CALL; throw_call++) {
			libpatch_hook_guard.guard = guards[i];
			cr_assert_eq(call_original(&blocks[1], false), 42);
			cr_assert_eq(libpatch_hook_guard.guard, guards[i]);
		}
	}
}

Test(unwind, exception_that_nobody_catches_ends_no_hook)
{
	uintptr_t guard;

	procedure = throwing_procedure;
	for (throw_call = FIRST_HOOK; throw_call <= LAST_CALL; throw_call++) {
		libpatch_hook_guard.guard = 1;
		cr_assert_eq(call_original(&blocks[0], false), 1);
		guard = libpatch_hook_guard.guard;
		cr_assert(guard < unwind_test_stack_pointer && guard > unwind_test_stack_pointer - 8192);
		libpatch_hook_guard.guard = 0;
	}
	cr_assert_eq(cleanups, 0);
}

static int throw_step;

static void step_throw(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signo;
	(void)info;
	if ((uintptr_t)registers[REG_RIP] == (uintptr_t)unwind_test_resume)
		registers[REG_EFL] &= ~0x100;
	if (in_blocks(registers[REG_RIP]) && steps++ == throw_step)
		_Unwind_RaiseException(&exception);
}

Test(unwind, exceptions_from_signals_at_every_instruction)
{
	struct sigaction action = {.sa_sigaction = step_throw, .sa_flags = SA_SIGINFO | SA_NODEFER};
	int thrown = 0;

	sigaction(SIGTRAP, &action, NULL);
	catching = true;
	for (throw_step = 0;; throw_step++) {
		steps = 0;
		if (call_original(&blocks[2], true) != 42)
			break;
		thrown++;
	}
	cr_assert(thrown >= 30, "%d", thrown);
	cr_assert_eq(cleanups, thrown);
}

/* ---- forced unwinds ---------------------------------------------------------------------------------------------- */

static jmp_buf stopped;
static struct walk stop_walk;

static _Unwind_Reason_Code stop(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
				struct _Unwind_Exception *thrown, struct _Unwind_Context *context, void *data)
{
	(void)version;
	(void)class;
	(void)thrown;
	cr_assert_neq(actions & _UA_FORCE_UNWIND, 0);
	if (stop_walk.stage == 3)
		longjmp(stopped, 1);
	walk_frame(context, data);
	return _URC_NO_REASON;
}

static void forced_procedure(uintptr_t call, uintptr_t frame)
{
	if (call != throw_call)
		return;
	libpatch_hook_guard.guard = frame;
	_Unwind_ForcedUnwind(&exception, stop, &stop_walk);
	cr_assert_fail("came back");
}

Test(unwind, forced_unwind)
{
	procedure = forced_procedure;
	for (throw_call = FIRST_HOOK; throw_call <= LAST_CALL; throw_call++) {
		stop_walk = (struct walk){0};
		if (setjmp(stopped) == 0)
			call_original(&blocks[2], false);
		cr_assert_eq(stop_walk.stage, 3);
		cr_assert_eq(libpatch_hook_guard.guard, 0);
	}
	cr_assert_eq(cleanups, LAST_CALL - FIRST_CALL);
}

static uintptr_t guard_at_cleanup;

static void pthread_cleanup(void *data)
{
	*(int *)data += 1;
	guard_at_cleanup = libpatch_hook_guard.guard;
}

static void exit_procedure(uintptr_t call, uintptr_t frame)
{
	if (call != throw_call)
		return;
	libpatch_hook_guard.guard = frame;
	pthread_exit(&throw_call);
}

static void *exiting_thread(void *data)
{
	pthread_cleanup_push(pthread_cleanup, data);
	call_original(&blocks[1], false);
	pthread_cleanup_pop(0);
	return NULL;
}

Test(unwind, pthread_exit)
{
	int cleaned = 0;
	pthread_t thread;
	void *result;

	procedure = exit_procedure;
	for (throw_call = FIRST_HOOK; throw_call <= LAST_CALL; throw_call++) {
		guard_at_cleanup = 0;
		cr_assert_eq(pthread_create(&thread, NULL, exiting_thread, &cleaned), 0);
		pthread_join(thread, &result);
		cr_assert_eq(result, &throw_call);
		cr_assert_eq(guard_at_cleanup, 0);
	}
	cr_assert_eq(cleaned, LAST_CALL - FIRST_CALL);
	cr_assert_eq(cleanups, LAST_CALL - FIRST_CALL);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static const struct arch_unwind_code some_code = {0x1000, 0x3000, 0x500}, some_pads = {0x1000, 0x3000, 0};

static void respects_capacity(const struct arch_unwind_code *code)
{
	uint8_t whole[1024], part[1024];
	size_t size = arch_unwind_describe(NULL, 0, code, ARCH_UNWIND_LIBGCC).all;

	cr_assert(size > 0 && size <= sizeof(whole));
	memset(whole, 0xaa, sizeof(whole));
	cr_assert_eq(arch_unwind_describe(whole, sizeof(whole), code, ARCH_UNWIND_LIBGCC).all, size);
	for (size_t i = size; i < sizeof(whole); i++)
		cr_assert_eq(whole[i], 0xaa);
	for (size_t capacity = 0; capacity <= size; capacity++) {
		memset(part, 0xaa, sizeof(part));
		cr_assert_eq(arch_unwind_describe(part, capacity, code, ARCH_UNWIND_LIBGCC).all, size);
		for (size_t i = capacity; i < sizeof(part); i++)
			cr_assert_eq(part[i], 0xaa);
	}
	cr_assert_arr_eq(part, whole, size);
}

static void chains_to_a_terminator(const struct arch_unwind_code *code, const char *augmentation)
{
	uint8_t bytes[1024];
	struct arch_unwind_size size = arch_unwind_describe(bytes, sizeof(bytes), code, ARCH_UNWIND_OTHERS);
	uint32_t cie_length, fde_length, cie_pointer, terminator;
	uint64_t start, range;

	memcpy(&cie_length, bytes, 4);
	memcpy(&fde_length, bytes + 4 + cie_length, 4);
	memcpy(&cie_pointer, bytes + 8 + cie_length, 4);
	memcpy(&start, bytes + 12 + cie_length, 8);
	memcpy(&range, bytes + 20 + cie_length, 8);
	memcpy(&terminator, bytes + 8 + cie_length + fde_length, 4);
	cr_assert_str_eq((char *)bytes + 9, augmentation);
	cr_assert_eq(size.fde, cie_length + 4);
	cr_assert_eq(cie_pointer, cie_length + 8);
	cr_assert_eq(start, 0x1000);
	cr_assert_eq(range, 0x2000);
	cr_assert_eq(terminator, 0);
	cr_assert_eq(size.all, 12 + cie_length + fde_length);
}

Test(unwind_describe, respects_its_capacity)
{
	respects_capacity(&some_code);
	respects_capacity(&some_pads);
}

Test(unwind_describe, entries_chain_to_a_terminator)
{
	chains_to_a_terminator(&some_code, "zPLS");
	chains_to_a_terminator(&some_pads, "zS");
}
