/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a thread shows that is interrupted in generated code, and where it goes on: a child is stepped through copies of
 * every form of instruction with every form of hook, near and far from the original. At each instruction, what
 * arch_canonical() says is compared with what the original does; then the child goes on as it says, with a frame of a
 * signal handler below its stack and perhaps another execution of the same code before, and has to end as the original
 * does, each procedure called once. The original is executed in place: the truth.
 */
#define _GNU_SOURCE
#include "arch/canonical.h"

#include "arch/cpu.h"
#include "arch/own_stack.h"
#include "arch/thread_pointer.h"
#include "arch/trap_bytes.h"
#include "arch/x86_64/hook_call.h"
#include "code/lead.h"
#include "code/pc_map.h"
#include "code/staging.h"
#include "code/trampoline.h"
#include "common/probe_code.h"
#include "runtime/hook_guard.h"
#include "runtime/shadow.h"
#include "sys/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- forms ------------------------------------------------------------------------------------------------------ */

#define LAND 64
#define CALLEE 128
#define TABLE 192
#define FORM_SIZE 256

#define FORM(name, instruction)                                                                                        \
	__asm__(".data\n.p2align 8\n" #name "_form: " instruction "\n"                                                \
		"	.byte 0x0f, 0x1f, 0x40, 0\n	.byte 0x0f, 0x1f, 0x40, 0\n"                                   \
		"	.org " #name "_form + 64, 0x90\n" #name "_land:\n"                                             \
		"	.org " #name "_form + 128, 0x90\n" #name "_callee:\n"                                          \
		"	.org " #name "_form + 192, 0x90\n" #name "_table:\n"                                           \
		"	.org " #name "_form + 256, 0\n.text\n");                                                      \
	extern const uint8_t name##_form[];

FORM(nop, "nopw 0(%rax)")
FORM(load, "mov 8(%rax), %r11")
FORM(store, "mov %rbx, 16(%rax)")
FORM(load_rip, "mov load_rip_table+8(%rip), %r11")
FORM(add_rip, "add %rcx, add_rip_table(%rip)")
FORM(adc_rip, "adc adc_rip_table(%rip), %rax")
FORM(vex_rip, "vmovd vex_rip_table(%rip), %xmm5")
FORM(lea_rip, "lea lea_rip_table(%rip), %rdx")
FORM(push_rip, "pushq push_rip_table(%rip)")
FORM(pop_rip, "popq pop_rip_table(%rip)")
FORM(push, "push %rbx")
FORM(pop, "pop %rbx")
FORM(pushf, "pushfq")
FORM(inc, "inc %rax")
FORM(syscall, "syscall")
FORM(call_rel, "call call_rel_callee")
FORM(call_rax, "call *%rax")
FORM(call_r11, "call *%r11")
FORM(call_mem, "call *8(%rax)")
FORM(call_rip, "call *call_rip_table(%rip)")
FORM(call_rsp, "call *(%rsp)")
FORM(call_rsp8, "call *8(%rsp)")
FORM(call_below, "call *-8(%rsp)")
FORM(call_below16, "call *-16(%rsp)")
FORM(call_index, "call *(%rsp,%rcx,8)")
FORM(jmp_near, ".byte 0xe9; .long jmp_near_land - . - 4")
FORM(jmp_short, "jmp jmp_short_land")
FORM(jmp_rax, "jmp *%rax")
FORM(jmp_r11, "jmp *%r11")
FORM(jmp_mem, "jmp *8(%rax)")
FORM(jmp_rip, "jmp *jmp_rip_table(%rip)")
FORM(jmp_rsp, "jmp *(%rsp)")
FORM(jmp_below, "jmp *-120(%rsp)")
FORM(je, "je je_land")
FORM(jne, "jne jne_land")
FORM(loop, "loop loop_land")
FORM(loopne, "loopne loopne_land")
FORM(jrcxz, "jrcxz jrcxz_land")
FORM(ret, "ret")
FORM(ret_16, "ret $16")

enum at_rax { A_TABLE, A_TARGET, A_NUMBER };

static const struct form {
	const char *name;
	const uint8_t *bytes;
	size_t leads; /* where pointers in the table and on the stack lead */
	enum at_rax rax;
	bool syscall;
	bool every_setup;
} forms[] = {
#define F(name, leads, rax) { #name, name##_form, leads, rax, false, false }
#define E(name, leads, rax) { #name, name##_form, leads, rax, false, true }
	F(nop, LAND, A_TABLE),         F(load, LAND, A_TABLE),        F(store, LAND, A_TABLE),
	E(load_rip, LAND, A_NUMBER),   F(add_rip, LAND, A_NUMBER),    F(adc_rip, LAND, A_NUMBER),
	F(vex_rip, LAND, A_NUMBER),    F(lea_rip, LAND, A_NUMBER),    F(push_rip, LAND, A_NUMBER),
	F(pop_rip, LAND, A_NUMBER),    F(push, LAND, A_NUMBER),       F(pop, LAND, A_NUMBER),
	F(pushf, LAND, A_NUMBER),      F(inc, LAND, A_NUMBER),
	{ "syscall", syscall_form, LAND, A_NUMBER, true, true },
	F(call_rel, CALLEE, A_NUMBER), F(call_rax, CALLEE, A_TARGET), F(call_r11, CALLEE, A_NUMBER),
	E(call_mem, CALLEE, A_TABLE),  F(call_rip, CALLEE, A_NUMBER), F(call_rsp, CALLEE, A_NUMBER),
	F(call_rsp8, CALLEE, A_NUMBER), F(call_below, CALLEE, A_NUMBER), F(call_below16, CALLEE, A_NUMBER),
	F(call_index, CALLEE, A_NUMBER), F(jmp_near, LAND, A_NUMBER), F(jmp_short, LAND, A_NUMBER),
	F(jmp_rax, LAND, A_TARGET),    F(jmp_r11, LAND, A_NUMBER),    E(jmp_mem, LAND, A_TABLE),
	F(jmp_rip, LAND, A_NUMBER),    F(jmp_rsp, LAND, A_NUMBER),    F(jmp_below, LAND, A_NUMBER),
	F(je, LAND, A_NUMBER),         F(jne, LAND, A_NUMBER),        F(loop, LAND, A_NUMBER),
	F(loopne, LAND, A_NUMBER),     F(jrcxz, LAND, A_NUMBER),      F(ret, LAND, A_NUMBER),
	F(ret_16, LAND, A_NUMBER),
};

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

#define HOOKS_MAX 3
#define WRITE_SOME ((uint64_t)1 << PATCH_X86_64_RDX | (uint64_t)1 << PATCH_X86_64_RCX | (uint64_t)1 << PATCH_X86_64_R14)
#define ALL_GP PATCH_REGS_GP_ONLY
#define NO_STATE PATCH_REGS_NO_STATE

enum {
	CLOSED = 1 << 0,    /* slots are 0 */
	GUARDED = 1 << 1,   /* below a running hook */
	NEW = 1 << 2,       /* the thread's first hook */
	BACKWARDS = 1 << 3, /* the direction flag */
	MOVES_PC = 1 << 4,
	ONE = 1 << 5,       /* a pair is there */
	CROWDED = 1 << 6,   /* pairs are there */
	FULL = 1 << 7,      /* up to the last one */
	STAMP = 1 << 8,
	NO_LEAF = 1 << 9,   /* the shadow was not looked at */
	MISPAIRED = 1 << 10, /* the word is not the record's */
	ANY_PAIR = 1 << 11,  /* and that is the procedure's to see */
	SECOND_ONLY = 1 << 12, /* the first hook is passed over, as there is another pair of the place */
	MADE = 1 << 13,      /* the system call, in the program's stead */
	OWN = 1 << 15,       /* on the thread's own stack */
	LEFT = 1 << 16,      /* which a procedure has left without giving it back */
	SPARE = 1 << 17,     /* which the thread does not have yet */
	NO_STACK = 1 << 18,  /* nor will it */
	ROOM = 1 << 19,      /* the place behind the pair is looked for */
	EVERY_FORM = 1 << 14 /* the other ones with some forms only */
};

static const struct setup {
	const char *name;
	unsigned int flags;
	unsigned int off; /* the stack pointer's, from 8 off a multiple of 16 */
	struct {
		unsigned int when;
		enum arch_action action;
		uint64_t read, write, clobber;
	} hooks[HOOKS_MAX];
} setups[] = {
	{ "nothing", EVERY_FORM, .off = 8 },
	{ "before", .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "before, 8 off", .off = 8, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "before, odd", .off = 4, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "reading", .off = 8, .hooks = { { HOOK_BEFORE, .read = ALL_GP, .clobber = NO_STATE } } },
	{ "writing", EVERY_FORM, .off = 8, .hooks = { { HOOK_BEFORE, .write = ALL_GP, .clobber = NO_STATE } } },
	{ "writing some", .off = 8, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "extended", .off = 8, .hooks = { { HOOK_BEFORE, .read = ALL_GP, .clobber = PATCH_REGS_ALL } } },
	{ "two", .off = 8,
	  .hooks = { { HOOK_BEFORE, .clobber = NO_STATE }, { HOOK_BEFORE, .write = ALL_GP, .clobber = NO_STATE } } },
	{ "backwards", BACKWARDS, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "closed", CLOSED, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "guarded", GUARDED, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "new", NEW, .hooks = { { HOOK_BEFORE, .read = ALL_GP, .clobber = NO_STATE } } },
	{ "moving", MOVES_PC, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "around", .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, writing", EVERY_FORM, .off = 8, .hooks = { { HOOK_AROUND, .write = ALL_GP, .clobber = NO_STATE } } },
	{ "around, extended", .off = 8, .hooks = { { HOOK_AROUND, .write = WRITE_SOME, .clobber = PATCH_REGS_ALL } } },
	{ "around twice", EVERY_FORM, .off = 8,
	  .hooks = { { HOOK_AROUND, .write = WRITE_SOME, .clobber = NO_STATE },
		     { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, before", .off = 8,
	  .hooks = { { HOOK_AROUND, .clobber = NO_STATE }, { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "around, crowded", CROWDED, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, one pair", ONE, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, one pair, and room", ONE | ROOM, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, full", FULL, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, closed", CLOSED, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, closed, crowded", CLOSED | CROWDED, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, moving", MOVES_PC, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "around, closed, again", CLOSED | SECOND_ONLY, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "entry", .hooks = { { HOOK_ENTRY, .clobber = NO_STATE } } },
	{ "exit", EVERY_FORM, .hooks = { { HOOK_EXIT, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "exit, 8 off", .off = 8, .hooks = { { HOOK_EXIT, .clobber = PATCH_REGS_ALL } } },
	{ "exit, looked for", NO_LEAF, .hooks = { { HOOK_EXIT, .clobber = NO_STATE } } },
	{ "exit, none", MISPAIRED, .hooks = { { HOOK_EXIT, .clobber = NO_STATE } } },
	{ "exit, any", MISPAIRED | ANY_PAIR, .hooks = { { HOOK_EXIT, .clobber = NO_STATE } } },
	{ "fall", EVERY_FORM, .hooks = { { HOOK_FALL, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "returned", .hooks = { { HOOK_RETURNED, .clobber = NO_STATE }, { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "count", .hooks = { { HOOK_BEFORE, .action = ARCH_COUNT }, { HOOK_BEFORE, .action = ARCH_COUNT_ATOMIC } } },
	{ "count by thread", STAMP,
	  .hooks = { { HOOK_BEFORE, .action = ARCH_COUNT_THREAD }, { HOOK_BEFORE, .action = ARCH_COUNT_ATOMIC } } },
	{ "count, closed", CLOSED | STAMP, .hooks = { { HOOK_BEFORE, .action = ARCH_COUNT } } },
	{ "own", OWN, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "own, odd", OWN, .off = 4, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "own, writing", OWN | EVERY_FORM, .hooks = { { HOOK_BEFORE, .write = ALL_GP, .clobber = NO_STATE } } },
	{ "own, extended", OWN, .off = 8, .hooks = { { HOOK_BEFORE, .read = ALL_GP, .clobber = PATCH_REGS_ALL } } },
	{ "own, backwards", OWN | BACKWARDS, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, closed", OWN | CLOSED, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "own, guarded", OWN | GUARDED, .hooks = { { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "own, new", OWN | NEW, .hooks = { { HOOK_BEFORE, .read = ALL_GP, .clobber = NO_STATE } } },
	{ "own, left", OWN | LEFT, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, spare", OWN | SPARE, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, none", OWN | NO_STACK, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, moving", OWN | MOVES_PC, .hooks = { { HOOK_BEFORE, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, around", OWN | EVERY_FORM, .hooks = { { HOOK_AROUND, .write = ALL_GP, .clobber = NO_STATE } } },
	{ "own, around twice", OWN,
	  .hooks = { { HOOK_AROUND, .write = WRITE_SOME, .clobber = NO_STATE },
		     { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "own, around, crowded", OWN | CROWDED, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "own, around, full", OWN | FULL, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "own, around, closed, crowded", OWN | CLOSED | CROWDED, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "own, around, moving", OWN | MOVES_PC, .hooks = { { HOOK_AROUND, .clobber = NO_STATE } } },
	{ "own, entry", OWN, .hooks = { { HOOK_ENTRY, .clobber = NO_STATE } } },
	{ "own, exit", OWN | EVERY_FORM, .hooks = { { HOOK_EXIT, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "own, exit, looked for", OWN | NO_LEAF, .hooks = { { HOOK_EXIT, .clobber = NO_STATE } } },
	{ "own, exit, none", OWN | MISPAIRED, .hooks = { { HOOK_EXIT, .clobber = NO_STATE } } },
	{ "own, fall", OWN, .hooks = { { HOOK_FALL, .write = WRITE_SOME, .clobber = NO_STATE } } },
	{ "divert", .hooks = { { HOOK_BEFORE, .action = ARCH_DIVERT }, { HOOK_BEFORE, .clobber = NO_STATE } } },
	{ "instead", .off = 8, .hooks = { { .when = HOOK_SYSCALL } } },
	{ "instead, made", MADE, .hooks = { { .when = HOOK_SYSCALL } } },
};

static const struct form *form;
static const struct setup *setup;
static size_t hook_count;

/* What parent and child share. The program's stack pointer is in the middle of the stack. */
#define STACK_SIZE 65536
#define OWN_SIZE 16384
static struct shared {
	uint8_t stack[STACK_SIZE];
	uint8_t own[OWN_SIZE]; /* the thread's own stack */
	uint64_t calls[HOOKS_MAX][2];
	uint64_t counters[HOOKS_MAX][2];
	uint64_t instead;
} *shared;

static uint8_t *place; /* the form is here */
static bool far;

#define ERROR 1234

static uint64_t tag_of(size_t hook, unsigned int post, unsigned int i)
{
	return ((uint64_t)(hook + 1) << 4 | (post + 1)) << 40 | i;
}

/* Everything that it may destroy is destroyed. */
PROBE_CODE __attribute__((noinline)) static void procedure(struct patch_exec_context *context,
									      uint8_t post)
{
	const size_t hook = (size_t)context->user_data;

	++shared->calls[hook][post];
	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i)
		if (setup->hooks[hook].write & (uint64_t)1 << i)
			context->general_purpose_registers[i] ^= tag_of(hook, post, i);
	if (post == 0 && setup->flags & MOVES_PC)
		context->program_counter = (uintptr_t)place + LAND + 8;
	errno = 4321;
	__asm__ volatile("mov $-3, %%rcx; mov %%rcx, %%rdx; mov %%rcx, %%rsi; mov %%rcx, %%rdi; mov %%rcx, %%r8\n"
			 "mov %%rcx, %%r9; mov %%rcx, %%r10; mov %%rcx, %%r11; mov %%rcx, %%rax; neg %%rax"
			 :: : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
}

static __thread uint64_t thread_counters[HOOKS_MAX][2];

PROBE_CODE static bool instead(struct arch_call *call)
{
	++shared->instead;
	if (setup->flags & MADE)
		call->rax = -4321;
	return setup->flags & MADE;
}

/* One for all, which leads where the text would. */
static struct lead *lead_to_land(void)
{
	static struct lead *lead;

	if (lead == NULL)
		lead = lead_make((uintptr_t)place + LAND);
	/* Far away, no slot is in reach. */
	if (lead == NULL)
		lead = lead_make((uintptr_t)lead_to_land);
	cr_assert_not_null(lead);
	lead_set(lead, (uintptr_t)place + LAND);
	return lead;
}

static struct hook_record records[HOOKS_MAX];
#define RECORD_PAIR 0x700000005u
#define WORD_NOTED (RECORD_PAIR + 3)

/* ---- building --------------------------------------------------------------------------------------------------- */

static struct arch_insn insn; /* of the form */
static uint8_t offsets[16], length;

static struct trampoline *build(void)
{
	struct window window = { .start = (uintptr_t)place, .strategy = PATCH_STRATEGY_TRAP, .original = place,
				 .offsets = offsets };
	struct trampoline *trampoline = NULL;
	struct hook hooks[HOOKS_MAX] = { 0 };
	const char *message = NULL;
	struct arch_insn next;

	length = 0;
	while (window.count < 2 || length < ARCH_JMP_SIZE) {
		cr_assert(arch_decode(place + length, 16, (uintptr_t)place + length, &next));
		if (length == 0)
			insn = next;
		offsets[window.count++] = length;
		length = (uint8_t)(length + next.length);
	}
	offsets[window.count] = length;
	window.length = length;
	for (size_t i = 0; i < hook_count; ++i) {
		hooks[i] = (struct hook){
			.address = (uintptr_t)place,
			.when = (uint8_t)setup->hooks[i].when,
			.lower = (uintptr_t)place,
			.upper = (uintptr_t)place + length,
			.code = { .read = setup->hooks[i].read, .write = setup->hooks[i].write,
				  .clobber = setup->hooks[i].clobber, .program_counter = (uintptr_t)place,
				  .action = (uint8_t)setup->hooks[i].action,
				  .stamp = setup->flags & STAMP, .own = setup->flags & OWN },
			.instead = instead,
		};
	}
	/* Some of those that branch are led. */
	if (form->bytes == jmp_short_form || form->bytes == jne_form || form->bytes == loopne_form)
		window.leads[window.lead_count++] = (struct window_lead){ (uintptr_t)place + LAND, lead_to_land() };
	cr_assert_eq(trampoline_build(&window, hooks, hook_count, &trampoline, &message), PATCH_OK, "%s", message);
	cr_assert_eq(staging_flush(), 0);
	for (size_t i = 0; i < hook_count; ++i) {
		const enum arch_action action = setup->hooks[i].action;

		records[i] = (struct hook_record){ procedure, (void *)i, RECORD_PAIR };
		if (setup->flags & ANY_PAIR)
			records[i].pair = (uint64_t)HOOK_PAIR_ANY << 32;
		if (action != ARCH_DIVERT && !(setup->flags & CLOSED))
			*(uint64_t *)trampoline->hooks[i].slot =
				action == ARCH_COUNT_THREAD ? (uintptr_t)thread_counters[i] - arch_thread_pointer() :
				action != ARCH_CALL_PROCEDURE ? (uintptr_t)shared->counters[i] :
								(uintptr_t)&records[i];
	}
	return trampoline;
}

/* ---- the child -------------------------------------------------------------------------------------------------- */

static pid_t child;
static struct user_regs_struct base; /* of the child when it stopped */

static bool is_shared(uintptr_t address)
{
	return address >= (uintptr_t)shared && address < (uintptr_t)(shared + 1);
}

static bool peek(void *data, uintptr_t address, void *out, size_t size)
{
	const struct iovec local = { out, size }, remote = { (void *)address, size };

	(void)data;
	if (is_shared(address)) {
		memcpy(out, (void *)address, size);
		return true;
	}
	return process_vm_readv(child, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static void poke(uintptr_t address, const void *bytes, size_t size)
{
	const struct iovec local = { (void *)(uintptr_t)bytes, size }, remote = { (void *)address, size };

	if (is_shared(address))
		memcpy((void *)address, bytes, size);
	else
		cr_assert_eq(process_vm_writev(child, &local, 1, &remote, 1, 0), (ssize_t)size);
}

static uint64_t peek_word(uintptr_t address)
{
	uint64_t word = 0;

	cr_assert(peek(NULL, address, &word, sizeof(word)));
	return word;
}

#define IN_FRAME(reg, user) [reg] = offsetof(struct user_regs_struct, user)
static const size_t user_offsets[16] = {
	IN_FRAME(0, rax), IN_FRAME(1, rcx), IN_FRAME(2, rdx),  IN_FRAME(3, rbx),  IN_FRAME(4, rsp),  IN_FRAME(5, rbp),
	IN_FRAME(6, rsi), IN_FRAME(7, rdi), IN_FRAME(8, r8),   IN_FRAME(9, r9),   IN_FRAME(10, r10), IN_FRAME(11, r11),
	IN_FRAME(12, r12), IN_FRAME(13, r13), IN_FRAME(14, r14), IN_FRAME(15, r15)
};
#define TRAP_FLAG 0x100u
#define STATUS 0xCD5u /* CF PF AF ZF SF DF OF */

static struct arch_registers get_registers(void)
{
	struct user_regs_struct user;
	struct arch_registers registers;

	cr_assert_eq(ptrace(PTRACE_GETREGS, child, NULL, &user), 0);
	for (unsigned int i = 0; i < 16; ++i)
		registers.general[i] = *(const unsigned long long *)((const char *)&user + user_offsets[i]);
	registers.flags = user.eflags & ~TRAP_FLAG;
	registers.pc = user.rip;
	return registers;
}

static void set_registers(const struct arch_registers *registers)
{
	struct user_regs_struct user = base;

	for (unsigned int i = 0; i < 16; ++i)
		*(unsigned long long *)((char *)&user + user_offsets[i]) = registers->general[i];
	user.eflags = registers->flags & ~TRAP_FLAG;
	user.rip = registers->pc;
	user.orig_rax = (unsigned long long)-1;
	cr_assert_eq(ptrace(PTRACE_SETREGS, child, NULL, &user), 0);
}

static int wait_for_stop(void)
{
	int status = 0;

	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSTOPPED(status), "%s, %s: the child is gone, status %x", form->name, setup->name, status);
	return WSTOPSIG(status);
}

/* A PUSHF that is stepped pushes the trap flag, too. */
static void step(const struct arch_registers *at)
{
	const bool pushes = *(const uint8_t *)at->pc == 0x9C;
	uint64_t flags;
	int signal;

	cr_assert_eq(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
	signal = wait_for_stop();
	cr_assert_eq(signal, SIGTRAP, "%s, %s: signal %d at %lx", form->name, setup->name, signal, at->pc);
	if (pushes) {
		flags = peek_word(at->general[ARCH_RSP] - 8) & ~(uint64_t)TRAP_FLAG;
		poke(at->general[ARCH_RSP] - 8, &flags, sizeof(flags));
	}
}

/* ---- the truth -------------------------------------------------------------------------------------------------- */

#define STATES_MAX 24
static struct arch_registers states[STATES_MAX];
static size_t state_count;
static uint64_t calls[HOOKS_MAX][2]; /* as they have to be at the end */

/* Memory that the instruction may write. */
struct memory {
	uint8_t stack[STACK_SIZE];
	uint8_t own[OWN_SIZE];
	uint8_t table[FORM_SIZE - TABLE];
};
static struct memory at_begin, at_end;

static void keep_memory(struct memory *memory)
{
	memcpy(memory->stack, shared->stack, sizeof(memory->stack));
	memcpy(memory->own, shared->own, sizeof(memory->own));
	memcpy(memory->table, place + TABLE, sizeof(memory->table));
}

static void put_memory(const struct memory *memory)
{
	memcpy(shared->stack, memory->stack, sizeof(memory->stack));
	memcpy(shared->own, memory->own, sizeof(memory->own));
	memcpy(place + TABLE, memory->table, sizeof(memory->table));
}

static struct arch_registers *add_state(void)
{
	cr_assert(state_count > 0 && state_count < STATES_MAX);
	states[state_count] = states[state_count - 1];
	return &states[state_count++];
}

static const uint8_t numbers[PATCH_ARCH_GREGS_COUNT] = { 0, 3, 1, 2, 6, 7, 5, 8, 9, 10, 11, 12, 13, 14, 15 };

static void tag(struct arch_registers *registers, size_t hook, unsigned int post)
{
	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i)
		if (setup->hooks[hook].write & (uint64_t)1 << i)
			registers->general[numbers[i]] ^= tag_of(hook, post, i);
}

static bool never_called(void)
{
	return setup->flags & (CLOSED | GUARDED | NO_STACK) || (setup->flags & MISPAIRED && !(setup->flags & ANY_PAIR));
}

static void add_call(size_t hook, unsigned int post)
{
	if (never_called() || setup->hooks[hook].action != ARCH_CALL_PROCEDURE)
		return;
	++calls[hook][post];
	tag(add_state(), hook, post);
}

static bool is_when(size_t hook, unsigned int when)
{
	return (setup->hooks[hook].when & when) == when;
}

static bool leaves(void)
{
	return insn.kind == ARCH_RET || insn.kind == ARCH_JMP;
}

static void add_pre(void)
{
	static const unsigned int order[] = { HOOK_RETURNED, HOOK_BEFORE, HOOK_EXIT };

	for (size_t n = 0; n < 3; ++n)
		for (size_t i = 0; i < hook_count; ++i)
			if (is_when(i, order[n]) && (order[n] != HOOK_EXIT || leaves()))
				add_call(i, order[n] != HOOK_BEFORE);
}

static void add_post(bool falls)
{
	const bool calling = insn.kind == ARCH_CALL || insn.kind == ARCH_CALL_IND;

	for (size_t i = hook_count; i-- > 0;)
		if (is_when(i, HOOK_AROUND))
			add_call(i, 1);
	for (size_t i = hook_count; i-- > 0;)
		if ((is_when(i, HOOK_FALL) && (falls || calling)) ||
		    (is_when(i, HOOK_EXIT) && !leaves() && !falls && !calling))
			add_call(i, 1);
}

static uint16_t written_after(void)
{
	uint16_t written = 0;

	for (size_t i = 0; i < hook_count; ++i)
		for (unsigned int r = 0; r < PATCH_ARCH_GREGS_COUNT; ++r)
			if ((setup->hooks[i].when & (HOOK_AROUND | HOOK_EXIT | HOOK_FALL)) > HOOK_BEFORE &&
			    (setup->hooks[i].write | setup->hooks[i].clobber) & (uint64_t)1 << r)
				written |= (uint16_t)(1U << numbers[r]);
	return written;
}

/* The instruction is executed behind the hooks on its way: it is the last thing that happens. */
static bool is_behind_ways(void)
{
	const unsigned int modrm = place[insn.modrm_offset];
	const unsigned int target = (modrm & 7) | (insn.opcode_offset > 0 && place[0] & 1 ? 8 : 0);

	return insn.kind == ARCH_RET ||
	       (insn.kind == ARCH_JMP_IND && modrm >> 6 == 3 && !(written_after() & 1U << target));
}

static bool moves(void)
{
	return setup->flags & MOVES_PC && !never_called();
}

/* In front of the instruction, when hooks have run. */
static struct arch_registers first_state(void)
{
	struct arch_registers first = { .flags = 0x202 | 0x8C1 }; /* CF ZF SF OF */
	const uintptr_t leads = (uintptr_t)place + form->leads;

	for (unsigned int i = 0; i < 16; ++i)
		first.general[i] = 0x111100001111u * (i + 1);
	first.general[0] = form->syscall	? 39 /* getpid() */ :
			   form->rax == A_TABLE ? (uintptr_t)place + TABLE :
			   form->rax == A_TARGET ? leads :
						   77;
	first.general[1] = 3;
	first.general[11] = leads;
	first.general[ARCH_RSP] = (uintptr_t)shared->stack + STACK_SIZE / 2 + 1024 + 8 + setup->off;
	if (setup->flags & BACKWARDS)
		first.flags |= 0x400;
	first.pc = (uintptr_t)place;
	return first;
}

static void fill_stack(uintptr_t stack_pointer)
{
	const uint64_t leads = (uintptr_t)place + form->leads;

	for (uintptr_t at = stack_pointer - 256; at < stack_pointer + 256; at += 8)
		memcpy((void *)at, &leads, sizeof(leads));
}

static void find_truth(void)
{
	const struct arch_registers first = first_state();

	memset(shared->stack, 0x55, sizeof(shared->stack));
	fill_stack(first.general[ARCH_RSP]);
	for (unsigned int i = 0; i < (FORM_SIZE - TABLE) / 8; ++i)
		((uint64_t *)(place + TABLE))[i] = (uintptr_t)place + form->leads;
	keep_memory(&at_begin);

	/* What the hooks in front put in is taken out before. */
	for (unsigned int pass = 0; pass < 2; ++pass) {
		struct arch_registers begin = first;

		for (unsigned int r = 0; pass == 1 && r < 16; ++r)
			begin.general[r] ^= states[state_count - 1].general[r] ^ first.general[r];
		memset(calls, 0, sizeof(calls));
		states[0] = begin;
		state_count = 1;
		add_pre();
	}
	if (moves()) {
		add_state()->pc = (uintptr_t)place + LAND + 8;
		keep_memory(&at_end);
		return;
	}
	if (is_when(0, HOOK_SYSCALL) && setup->flags & MADE) {
		struct arch_registers *made = add_state();

		made->general[0] = (uint64_t)-4321;
		made->pc += insn.length;
		made->general[1] = made->pc;
		keep_memory(&at_end);
	} else {
		struct arch_registers before;

		if (is_behind_ways())
			add_post(false);
		before = states[state_count - 1];
		set_registers(&before);
		step(&before);
		*add_state() = get_registers();
		keep_memory(&at_end);
		put_memory(&at_begin);
	}
	if (!is_behind_ways())
		add_post(states[state_count - 1].pc == (uintptr_t)place + insn.length);
	while (states[state_count - 1].pc - (uintptr_t)place < length) {
		const uintptr_t at = states[state_count - 1].pc - (uintptr_t)place;
		size_t next = 0;

		while (offsets[next] <= at)
			++next;
		add_state()->pc = (uintptr_t)place + offsets[next];
	}
}

static bool same(const struct arch_registers *a, const struct arch_registers *b)
{
	/* The kernel's to leave in r11: flags, with the trap flag of whoever is stepped. */
	const bool spoiled = form->syscall;

	for (unsigned int i = 0; i < 16; ++i)
		if (a->general[i] != b->general[i] && !(spoiled && (i == 11 || (i == 1 && is_when(0, HOOK_SYSCALL)))))
			return false;
	return (a->flags & STATUS) == (b->flags & STATUS) && a->pc == b->pc;
}

/* ---- one instruction ------------------------------------------------------------------------------------------- */

static uintptr_t tls(const void *variable)
{
	return base.fs_base + ((uintptr_t)variable - arch_thread_pointer());
}

static uintptr_t shadow_at; /* the word that hooks look at */
static unsigned int kinds_seen[ARCH_STRETCH_KIND + 1];
static uintptr_t interrupted_at;

/* What the child has of its own. */
struct own {
	struct hook_guard guard;
	struct hook_pair pairs[HOOK_PAIRS];
	struct own_stack *spares[OWN_SPARES];
	uint64_t counters[HOOKS_MAX][2];
	uint64_t word;
	int error;
};

static void keep_own(struct own *own)
{
	cr_assert(peek(NULL, tls(&libpatch_hook_guard), &own->guard, sizeof(own->guard)));
	cr_assert(peek(NULL, (uintptr_t)thread_block_known()->pairs, own->pairs, sizeof(own->pairs)));
	cr_assert(peek(NULL, (uintptr_t)libpatch_own_spares, own->spares, sizeof(own->spares)));
	cr_assert(peek(NULL, tls(thread_counters), own->counters, sizeof(own->counters)));
	cr_assert(peek(NULL, shadow_at, &own->word, sizeof(own->word)));
	cr_assert(peek(NULL, base.fs_base + (uintptr_t)arch_errno_offset(), &own->error, sizeof(own->error)));
}

static void put_own(const struct own *own)
{
	poke(tls(&libpatch_hook_guard), &own->guard, sizeof(own->guard));
	poke((uintptr_t)thread_block_known()->pairs, own->pairs, sizeof(own->pairs));
	poke((uintptr_t)libpatch_own_spares, own->spares, sizeof(own->spares));
	poke(tls(thread_counters), own->counters, sizeof(own->counters));
	poke(shadow_at, &own->word, sizeof(own->word));
	poke(base.fs_base + (uintptr_t)arch_errno_offset(), &own->error, sizeof(own->error));
}

static struct own own_begin, own_end; /* of an execution without any signal */
static struct shared shared_end;

#define FAIL(...)                                                                                                      \
	do {                                                                                                           \
		char text_[200];                                                                                       \
		snprintf(text_, sizeof(text_), __VA_ARGS__);                                                           \
		cr_assert_fail("%s, %s, %s, at +%#lx: %s", form->name, setup->name, far ? "far" : "near",              \
			       (unsigned long)(interrupted_at - block_now), text_);                                    \
	} while (0)

static uintptr_t block_now, entry;

static void run_to_end(void)
{
	int signal;

	cr_assert_eq(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
	signal = wait_for_stop();
	if (signal != SIGTRAP)
		FAIL("signal %d at %lx, block %lx", signal, get_registers().pc, block_now);
}

static void check_end(const struct arch_registers *wanted, uint64_t tagged)
{
	struct arch_registers got = get_registers();
	struct arch_registers want = *wanted;
	const uintptr_t from = want.general[ARCH_RSP] - (uintptr_t)shared->stack;
	struct own own;

	want.general[15] ^= tagged;
	got.pc -= 1;
	if (!same(&got, &want)) {
		for (unsigned int i = 0; i < 16; ++i)
			if (got.general[i] != want.general[i])
				FAIL("ends with register %u %lx, not %lx", i, got.general[i], want.general[i]);
		FAIL("ends at %lx with flags %lx, not %lx, %lx", got.pc, got.flags, want.pc, want.flags);
	}
	for (size_t i = 0; i < hook_count; ++i)
		for (unsigned int post = 0; post < 2; ++post)
			if (shared->calls[i][post] != calls[i][post])
				FAIL("%lu calls %u of hook %zu, not %lu", shared->calls[i][post], post, i,
				     calls[i][post]);
	if (memcmp(shared->stack + from, at_end.stack + from, STACK_SIZE - from) != 0)
		FAIL("another stack");
	if (memcmp(place + TABLE, at_end.table, sizeof(at_end.table)) != 0)
		FAIL("another table");
	keep_own(&own);
	if (own.guard.guard != own_end.guard.guard || own.guard.top != own_end.guard.top)
		FAIL("guard %lx, top %lx, not %lx, %lx", own.guard.guard, own.guard.top, own_end.guard.guard,
		     own_end.guard.top);
	if (own.word != own_end.word || own.error != own_end.error)
		FAIL("word %lx, errno %d, not %lx, %d", own.word, own.error, own_end.word, own_end.error);
	for (size_t i = 0; i < hook_count; ++i)
		if (own.counters[i][0] != own_end.counters[i][0] ||
		    shared->counters[i][0] != shared_end.counters[i][0] ||
		    !own.counters[i][1] != !own_end.counters[i][1])
			FAIL("counters %lu, %lu", own.counters[i][0], shared->counters[i][0]);
	if (shared->instead != shared_end.instead && is_when(0, HOOK_SYSCALL))
		FAIL("%lu calls instead", shared->instead);
}

static const struct arch_registers *find_state(const struct arch_registers *shown, size_t *from)
{
	for (size_t i = *from; i < state_count; ++i)
		if (same(shown, &states[i])) {
			*from = i;
			return &states[i];
		}
	return NULL;
}

static struct own_stack *own_stack(void)
{
	return (struct own_stack *)(shared->own + OWN_SIZE) - 1;
}

/* In it nothing but what the instruction itself does is below the stack pointer, or what a copy of it needs. */
#define BELOW_MAX 144

static void check_below(void)
{
	const size_t size = first_state().general[ARCH_RSP] - BELOW_MAX - (uintptr_t)shared->stack;

	if (memcmp(shared->stack, at_end.stack, size) != 0)
		FAIL("more of the stack is used");
	if (!(setup->flags & NO_STACK) && own_stack()->free != (uintptr_t)own_stack() - ARCH_OWN_FRAME_FREE)
		FAIL("the stack is not free");
}

/* Another execution, on the same stack: by the handler. */
static void run_nested(uintptr_t stack_pointer)
{
	struct arch_registers nested = states[0];
	uint64_t before[HOOKS_MAX][2], counters[HOOKS_MAX][2], thread[HOOKS_MAX][2], word;
	uint64_t made = shared->instead;
	uint8_t table[FORM_SIZE - TABLE];

	memcpy(table, place + TABLE, sizeof(table));
	memcpy(before, shared->calls, sizeof(before));
	memcpy(counters, shared->counters, sizeof(counters));
	cr_assert(peek(NULL, tls(thread_counters), thread, sizeof(thread)));
	word = peek_word(shadow_at);
	nested.pc = entry;
	nested.general[ARCH_RSP] = stack_pointer - 2048;
	fill_stack(nested.general[ARCH_RSP]);
	set_registers(&nested);
	run_to_end();
	for (size_t i = 0; i < hook_count; ++i)
		for (unsigned int post = 0; post < 2; ++post)
			if (shared->calls[i][post] - before[i][post] != calls[i][post])
				FAIL("the handler has %lu calls %u of hook %zu",
				     shared->calls[i][post] - before[i][post], post, i);
	memcpy(shared->calls, before, sizeof(before));
	memcpy(shared->counters, counters, sizeof(counters));
	poke(tls(thread_counters), thread, sizeof(thread));
	poke(shadow_at, &word, sizeof(word));
	memcpy(place + TABLE, table, sizeof(table));
	shared->instead = made;
}

static void interrupt(const struct arch_code_map *map, const struct arch_registers *at, size_t *index)
{
	static struct memory memory;
	const uintptr_t below = at->general[ARCH_RSP] - 128;
	uint64_t kept_calls[HOOKS_MAX][2], kept_counters[HOOKS_MAX][2], made = shared->instead;
	struct arch_canonical canonical = { 0 };
	struct arch_registers resumed;
	struct own own, shown_own;
	const uint64_t change = 0x5a5a00;

	interrupted_at = at->pc;
	block_now = map->block;
	keep_own(&own);
	keep_memory(&memory);
	memcpy(kept_calls, shared->calls, sizeof(kept_calls));
	memcpy(kept_counters, shared->counters, sizeof(kept_counters));

	/* The signal's frame. */
	memset((void *)(below - 512), 0xee, 512);
	if (setup->flags & OWN && own_stack_has(own_stack(), below))
		own_stack()->free = 0;
	if (!arch_canonical(map, at, base.fs_base, peek, NULL, &canonical))
		FAIL("no place");
	if (find_state(&canonical.shown, index) == NULL)
		FAIL("shows %lx with flags %lx, and registers that are no state from %zu of %zu on", canonical.shown.pc,
		     canonical.shown.flags, *index, state_count);
	for (size_t i = 0; i < canonical.write_count; ++i)
		poke(canonical.writes[i].address, &canonical.writes[i].value, canonical.writes[i].size);
	keep_own(&shown_own);
	if (shown_own.error != ERROR)
		FAIL("shows errno %d", shown_own.error);
	if (shown_own.guard.guard != own_begin.guard.guard && shown_own.guard.guard != own_end.guard.guard)
		FAIL("shows guard %lx", shown_own.guard.guard);

	if (!(setup->flags & (BACKWARDS | GUARDED | SECOND_ONLY | FULL)) && !moves() && hook_count > 0 &&
	    !(setup->hooks[0].when & (HOOK_EXIT | HOOK_ENTRY | HOOK_FALL) & ~HOOK_BEFORE))
		run_nested(below);
	resumed = canonical.shown;
	resumed.pc = canonical.pc;
	resumed.general[ARCH_RSP] -= canonical.below;
	resumed.general[15] ^= change;
	set_registers(&resumed);
	run_to_end();
	check_end(&states[state_count - 1], change);

	put_memory(&memory);
	put_own(&own);
	memcpy(shared->calls, kept_calls, sizeof(kept_calls));
	memcpy(shared->counters, kept_counters, sizeof(kept_counters));
	shared->instead = made;
	set_registers(at);
}

/* ---- one form with one setup ------------------------------------------------------------------------------------ */

/* Pairs that were noted by whoever is interrupted, or the pair of this place and a stack pointer above. */
static void prepare_pairs(uintptr_t slot, uintptr_t stack_pointer)
{
	struct hook_guard *guard = &libpatch_hook_guard;
	const size_t count = setup->flags & FULL ? HOOK_PAIRS : setup->flags & CROWDED ? 2 : setup->flags & ONE ? 1 : 0;

	const uintptr_t block = (uintptr_t)thread_block() - (uintptr_t)guard;

	memset(thread_block()->pairs, 0, sizeof(thread_block()->pairs));
	for (size_t n = 1; n <= count; ++n)
		*(struct hook_pair *)((uintptr_t)guard + hook_pair_top(block, n)) =
			(struct hook_pair){ 0x1000 + 16 * n, (uintptr_t)records, stack_pointer + 512, 0 };
	guard->top = setup->flags & ROOM ? hook_pair_top_below(block, count) : hook_pair_top(block, count);
	if (setup->flags & SECOND_ONLY) {
		guard->pair = (struct hook_pair){ slot + stack_pointer + 4096, (uintptr_t)records,
						  stack_pointer + 4096, 0 };
		guard->top = HOOK_PAIR_FIRST;
	}
}

/* For the child, which inherits it. */
static void prepare(const struct trampoline *trampoline)
{
	const uintptr_t stack_pointer = first_state().general[ARCH_RSP];

	memset(&libpatch_hook_guard, 0, sizeof(libpatch_hook_guard));
	memset(shared->own, 0, sizeof(shared->own));
	memset(libpatch_own_spares, 0, sizeof(libpatch_own_spares));
	libpatch_hook_guard.own = (struct own_stack *)(uintptr_t)&libpatch_own_none;
	own_stack()->adopted = 1;
	if (setup->flags & SPARE) {
		libpatch_own_spares[OWN_SPARES - 1] = own_stack();
	} else if (!(setup->flags & NO_STACK)) {
		libpatch_hook_guard.own = own_stack();
		own_stack()->self = own_stack();
		own_stack()->free = setup->flags & LEFT ? 0 : (uintptr_t)own_stack() - ARCH_OWN_FRAME_FREE;
	}
	cr_assert(shadow_find(stack_pointer));
	if (setup->flags & NO_LEAF)
		libpatch_hook_guard.shadow = &libpatch_shadow_none;
	libpatch_hook_guard.guard = setup->flags & NEW ? GUARD_UNKNOWN : setup->flags & GUARDED ? GUARD_INSIDE : 0;
	prepare_pairs(hook_count > 0 ? trampoline->hooks[0].slot : 0, stack_pointer);
	memset(shared->calls, 0, sizeof(shared->calls));
	memset(shared->counters, 0, sizeof(shared->counters));
	shared->instead = 0;
	memset(thread_counters, 0, sizeof(thread_counters));
}

static void start_child(void)
{
	child = fork();
	cr_assert(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		errno = ERROR;
		raise(SIGSTOP);
		_exit(1);
	}
	cr_assert_eq(wait_for_stop(), SIGSTOP);
	cr_assert_eq(ptrace(PTRACE_GETREGS, child, NULL, &base), 0);
}

static unsigned int stretch_at(const struct arch_code_map *map, uintptr_t pc)
{
	const struct arch_stretch *stretch = map->stretches;

	while (stretch[1].code <= pc - map->code)
		++stretch;
	return stretch->kind & ARCH_STRETCH_KIND;
}

static void walk(void)
{
	struct arch_registers at = states[0];
	struct arch_code_map map;
	size_t index = 0, steps = 0;

	at.pc = entry;
	set_registers(&at);
	while (at.pc != states[state_count - 1].pc) {
		if (pc_map_of_code(at.pc, &map)) {
			++kinds_seen[stretch_at(&map, at.pc)];
			interrupt(&map, &at, &index);
		}
		step(&at);
		at = get_registers();
		cr_assert(++steps < 10000);
	}
}

static bool fits(void)
{
	bool after = false;
	struct arch_insn decoded;

	cr_assert(arch_decode(place, 16, (uintptr_t)place, &decoded));
	for (size_t i = 0; i < hook_count; ++i) {
		if (setup->hooks[i].when == HOOK_SYSCALL)
			return form->syscall;
		after |= (setup->hooks[i].when & (HOOK_AROUND | HOOK_EXIT | HOOK_FALL)) > HOOK_BEFORE;
	}
	if (far && arch_refuses_far(place, &decoded) != NULL)
		return false;
	return !after || decoded.kind == ARCH_PLAIN ||
	       arch_refuses_around(place, &decoded, written_after(), false) == NULL;
}

static void run(void)
{
	const struct trampoline *trampoline;
	uint8_t *end, byte;
	bool falls;

	hook_count = 0;
	while (hook_count < HOOKS_MAX && setup->hooks[hook_count].when != 0)
		++hook_count;
	memcpy(place, form->bytes, FORM_SIZE);
	if (!fits())
		return;
	trampoline = build();
	entry = trampoline_entry(trampoline, 0);
	block_now = trampoline->block.address;
	interrupted_at = 0;
	prepare(trampoline);
	start_child();
	find_truth();
	falls = hook_count > 0 && setup->hooks[0].when == HOOK_FALL;
	shadow_at = (uintptr_t)shadow_word(states[falls ? state_count - 1 : 0].general[ARCH_RSP]);
	poke(shadow_at, &(uint64_t){ setup->flags & MISPAIRED ? 17 : WORD_NOTED }, 8);
	keep_own(&own_begin);
	end = (uint8_t *)states[state_count - 1].pc;
	byte = *end;
	*end = ARCH_INT3;

	states[0].pc = entry;
	set_registers(&states[0]);
	states[0].pc = (uintptr_t)place;
	run_to_end();
	keep_own(&own_end);
	if (setup->flags & OWN)
		check_below();
	memcpy(&shared_end, shared, sizeof(shared_end));
	check_end(&states[state_count - 1], 0);
	put_memory(&at_begin);
	put_own(&own_begin);
	memset(shared->calls, 0, sizeof(shared->calls));
	memset(shared->counters, 0, sizeof(shared->counters));
	shared->instead = 0;
	walk();

	*end = byte;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void make_place(bool far_away)
{
	const uintptr_t middle = 0x100000000000u, reach = 0x88000000u;
	void *at = NULL;

	far = far_away;
	if (far) {
		cr_assert_eq(mmap((void *)(middle - reach), 2 * reach, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0),
			     (void *)(middle - reach));
		at = (void *)middle;
	}
	place = mmap(at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		     MAP_SHARED | MAP_ANONYMOUS | (far ? MAP_FIXED : 0), -1, 0);
	cr_assert_neq(place, MAP_FAILED);
}

static bool is_emitted(unsigned int kind)
{
	if (kind == ARCH_BORROWED || kind == ARCH_GIVEN_BACK)
		return far;
	if (kind == ARCH_LED)
		return !far;
	return kind != ARCH_COUNTED_FLAGS || !arch_has_sahf();
}

static void run_all(bool far_away)
{
	cr_assert_eq(text_init(false), PATCH_OK);
	libpatch_own_size = OWN_SIZE;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(shared, MAP_FAILED);
	make_place(far_away);
	for (form = forms; form < forms + ARRAY_SIZE(forms); ++form)
		for (setup = setups; setup < setups + ARRAY_SIZE(setups); ++setup)
			if (form->every_setup || setup->flags & EVERY_FORM)
				run();
	for (unsigned int kind = 0; kind <= ARCH_HOOK_PUSHED; ++kind)
		cr_expect(kind == ARCH_STRETCH_END || kinds_seen[kind] > 0 || !is_emitted(kind), "kind %u", kind);
}

Test(canonical, near)
{
	run_all(false);
}

Test(canonical, far)
{
	run_all(true);
}
