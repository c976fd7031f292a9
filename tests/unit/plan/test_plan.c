/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planner, byte for byte: which window it takes, by which strategy, and in which words it refuses.
 */
#include "bytes.h"

#include "plan/plan.h"

#include <criterion/criterion.h>
#include <string.h>

#define SITE 0x555500001000UL

#define ENDBR64 0xF3, 0x0F, 0x1E, 0xFA
#define NOP 0x90
#define INT3 0xCC
#define RET 0xC3
#define PUSH_RBX 0x53
#define MOV_EAX_EDI 0x89, 0xF8                                /* mov eax, edi */
#define XOR_EAX_ESI 0x31, 0xF0                                /* xor eax, esi */
#define MOV_RAX_RDI 0x48, 0x89, 0xF8                          /* mov rax, rdi */
#define LEA_RAX_RDI_4 0x48, 0x8D, 0x47, 0x04                  /* lea rax, [rdi + 4] */
#define MOV_EAX_IMM 0xB8, 0x78, 0x56, 0x34, 0x12              /* mov eax, 0x12345678 */
#define SUB_RSP_IMM 0x48, 0x81, 0xEC, 0x00, 0x01, 0x00, 0x00  /* sub rsp, 0x100 */
#define NOPL_5 0x0F, 0x1F, 0x44, 0x00, 0x00                   /* nop dword [rax + rax] */
#define JMP_REL8_BACK 0xEB, 0xFE                              /* jmp to itself */
#define UNDEFINED 0x06                                        /* no instruction in 64-bit mode */
#define CALL_FAR 0xFF, 0x18                  /* call far [rax] */
#define FAR_CALL "a far call leaves the address it was executed at on the stack"
#define CALL_FAR_STACK 0xFF, 0x5C, 0x24, 0x08 /* call far [rsp + 8] */
/* The longest one: mov qword cs:[rax + rax + 0x11223344], 0x55667788 with padding prefixes. */
#define FIFTEEN 0x2E, 0x2E, 0x2E, 0x48, 0xC7, 0x84, 0x00, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55

#define CALL_REL32 0xE8, 0x00, 0x01, 0x00, 0x00 /* call to 0x100 behind it */
#define CALL_RAX 0xFF, 0xD0                   /* call rax */
#define SHADOW_STACK "a call cannot be displaced while the thread has a user shadow stack"

#define ENDS "the function ends within the bytes of a jump"
#define ENDS_AT_ANOTHER "the function ends within the bytes of a jump, and another begins"
#define INNER_TARGET "the function branches to an instruction within the bytes of a jump"
#define INNER_MIDDLE "the function branches into the middle of an instruction within the bytes of a jump"
#define FIRST_MIDDLE "the function branches into the middle of the instruction"
#define NO_DECODE "the bytes behind the instruction do not decode"
#define TOO_MUCH "joining the patches around it would displace too much at once"
#define FOREIGN "an int3 that libpatch did not write is there already"

#define ALLOW PATCH_TRAP_POLICY_ALLOW
#define FORBID PATCH_TRAP_POLICY_FORBID
#define FORCE PATCH_TRAP_POLICY_FORCE
#define JUMP PATCH_STRATEGY_JUMP
#define CONSTRAINED PATCH_STRATEGY_CONSTRAINED_JUMP
#define TRAP PATCH_STRATEGY_TRAP
#define PUNNED PATCH_STRATEGY_PUNNED_JUMP

/* Offsets are from the site; upper, limit and reach are unknown or unwanted when 0. */
struct plan_case {
	const char *text;
	uint8_t bytes[32];
	size_t size;
	uint8_t upper;
	uint8_t limit;
	uint8_t beyond;
	uint8_t punnable;
	uint8_t reach;
	uint8_t target; /* of a direct branch in the function, 0: there is none */
	uint8_t led; /* can it be led? 0: nobody says */
	bool no_calls;
	uint8_t policy;
	/* Expected. A plan's offsets are from its start and begin with 0. */
	int status;
	uint8_t start;
	uint8_t strategy;
	uint8_t offsets[8];
	uint8_t offset_count;
	const char *message;
	uint8_t irritant;
};

#define WINDOW(...) .offset_count = sizeof((uint8_t[]){ __VA_ARGS__ }), .offsets = { __VA_ARGS__ }

static bool is_target(uintptr_t address, const void *data)
{
	const struct plan_case *c = data;

	return c->target != 0 && address == SITE + c->target;
}

enum { CAN_BE_LED = 1, CANNOT_BE_LED };

static bool can_lead(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data)
{
	const struct plan_case *c = data;

	cr_expect(is_target(address, data) && lower < address && address < upper, "%s: %#lx of [%#lx, %#lx)", c->text,
		  address, lower, upper);
	return c->led == CAN_BE_LED;
}

static void check_refusal(const char *text, const struct plan *plan, const char *message, uintptr_t irritant)
{
	if (message == NULL) {
		cr_expect_null(plan->message, "%s: says \"%s\"", text, plan->message ? plan->message : "");
		return;
	}
	cr_expect(plan->message != NULL && strcmp(plan->message, message) == 0, "%s: says \"%s\", not \"%s\"", text,
		  plan->message ? plan->message : "nothing", message);
	cr_expect_eq(plan->irritant, irritant, "%s: is about %#lx, not %#lx", text, plan->irritant, irritant);
}

static void check_case(const struct plan_case *c)
{
	const struct plan_request request = {
		.site = SITE,
		.bytes = c->bytes,
		.size = c->size,
		.upper = c->upper ? SITE + c->upper : 0,
		.limit = c->limit ? SITE + c->limit : UINTPTR_MAX,
		.beyond = c->beyond ? SITE + c->beyond : 0,
		.punnable = c->punnable ? SITE + c->punnable : 0,
		.is_target = is_target,
		.can_lead = c->led != 0 ? can_lead : NULL,
		.data = c,
		.reach = c->reach ? SITE + c->reach : 0,
		.policy = c->policy,
		.no_calls = c->no_calls,
	};
	uint8_t bytes[sizeof(c->bytes)];
	struct plan plan;
	patch_status status;

	memcpy(bytes, c->bytes, sizeof(bytes));
	memset(&plan, 0xA5, sizeof(plan));
	status = plan_site(&request, &plan);
	cr_expect_eq(status, c->status, "%s: status %d, not %d", c->text, status, c->status);
	check_refusal(c->text, &plan, c->message, SITE + c->irritant);
	if (c->status != PATCH_OK || status != PATCH_OK)
		return;
	cr_expect_eq(plan.start, SITE + c->start, "%s: starts at +%#lx", c->text, plan.start - SITE);
	cr_expect_eq(plan.strategy, c->strategy, "%s: strategy %u, not %u", c->text, plan.strategy, c->strategy);
	cr_expect_eq(plan.count, c->offset_count - 1, "%s: %u instructions", c->text, plan.count);
	cr_expect_eq(plan.length, c->offsets[c->offset_count - 1], "%s: %u bytes", c->text, plan.length);
	bytes_expect(c->text, plan.offsets, plan.count + 1U, c->offsets, c->offset_count);
	cr_expect_arr_eq(bytes, c->bytes, sizeof(bytes), "%s: the planner writes", c->text);
}

static void check_cases(const struct plan_case *cases, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		check_case(&cases[i]);
}

Test(plan, windows)
{
	static const struct plan_case cases[] = {
		{ "5", BYTES(MOV_EAX_IMM, RET), .strategy = JUMP, WINDOW(0, 5) },
		{ "7", BYTES(SUB_RSP_IMM, RET), .strategy = JUMP, WINDOW(0, 7) },
		{ "a NOP of 5", BYTES(NOPL_5, RET), .strategy = JUMP, WINDOW(0, 5) },
		{ "15", BYTES(FIFTEEN, RET), .strategy = JUMP, WINDOW(0, 15) },
		{ "1 + 4", BYTES(PUSH_RBX, LEA_RAX_RDI_4, RET), .strategy = CONSTRAINED, WINDOW(0, 1, 5) },
		{ "4 + 1", BYTES(LEA_RAX_RDI_4, NOP, RET), .strategy = CONSTRAINED, WINDOW(0, 4, 5) },
		{ "2 + 2 + 1", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP, RET), .strategy = CONSTRAINED, WINDOW(0, 2, 4, 5) },
		{ "3 + 1 + 1", BYTES(MOV_RAX_RDI, PUSH_RBX, NOP, RET), .strategy = CONSTRAINED, WINDOW(0, 3, 4, 5) },
		{ "five of 1", BYTES(PUSH_RBX, NOP, PUSH_RBX, NOP, PUSH_RBX, RET), .strategy = CONSTRAINED,
		  WINDOW(0, 1, 2, 3, 4, 5) },
		{ "longer than the jump", BYTES(MOV_RAX_RDI, SUB_RSP_IMM, RET), .strategy = CONSTRAINED,
		  WINDOW(0, 3, 10) },
		{ "1 + 15", BYTES(NOP, FIFTEEN, RET), .strategy = CONSTRAINED, WINDOW(0, 1, 16) },
		{ "the end is exact", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .upper = 5, .limit = 5, .strategy = CONSTRAINED,
		  WINDOW(0, 2, 5) },
		{ "a branch that ends the window", BYTES(MOV_RAX_RDI, JMP_REL8_BACK, UNDEFINED),
		  .strategy = CONSTRAINED,
		  WINDOW(0, 3, 5) },
		/* What comes behind a return is an instruction of its own: something may branch there. */
		{ "a return inside", BYTES(RET, LEA_RAX_RDI_4), .strategy = CONSTRAINED, WINDOW(0, 1, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, windows_do_not_depend_on_forbid)
{
	static const struct plan_case cases[] = {
		{ "5", BYTES(MOV_EAX_IMM), .policy = FORBID, .strategy = JUMP, WINDOW(0, 5) },
		{ "2 + 2 + 1", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .policy = FORBID, .strategy = CONSTRAINED,
		  WINDOW(0, 2, 4, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, endbr64_is_kept)
{
	static const struct plan_case cases[] = {
		{ "endbr64, 5", BYTES(ENDBR64, MOV_EAX_IMM), .start = 4, .strategy = JUMP, WINDOW(0, 5) },
		{ "endbr64, 1 + 4", BYTES(ENDBR64, PUSH_RBX, LEA_RAX_RDI_4), .start = 4, .strategy = CONSTRAINED,
		  WINDOW(0, 1, 5) },
		{ "endbr64, forced", BYTES(ENDBR64, MOV_EAX_IMM), .policy = FORCE, .start = 4, .strategy = TRAP,
		  WINDOW(0, 5) },
		{ "endbr64, then the end", BYTES(ENDBR64, RET, NOP, NOP, NOP, NOP), .upper = 5, .limit = 9, .start = 4,
		  .strategy = CONSTRAINED, WINDOW(0, 1, 2, 3, 4, 5) },
		/* A second one is an instruction as any other. */
		{ "endbr64 twice", BYTES(ENDBR64, ENDBR64, NOP), .start = 4, .strategy = CONSTRAINED, WINDOW(0, 4, 5) },
		{ "endbr64 behind the site", BYTES(NOP, ENDBR64), .strategy = CONSTRAINED, WINDOW(0, 1, 5) },
		{ "endbr64 and no more", BYTES(ENDBR64), .status = PATCH_EDISASM,
		  .message = "the bytes behind endbr64 are no valid instruction", .irritant = 4 },
		{ "endbr64 and no instruction", BYTES(ENDBR64, UNDEFINED, NOP), .status = PATCH_EDISASM,
		  .message = "the bytes behind endbr64 are no valid instruction", .irritant = 4 },
		{ "endbr64 and another function", BYTES(ENDBR64, MOV_EAX_IMM), .upper = 4, .status = PATCH_EDISASM,
		  .message = "the function ends behind endbr64", .irritant = 4 },
		{ "endbr64, foreign int3", BYTES(ENDBR64, INT3, NOP), .status = PATCH_ECHANGED, .message = FOREIGN,
		  .irritant = 4 },
		{ "endbr64, refused", BYTES(ENDBR64, CALL_FAR), .status = PATCH_ERELOCATE,
		  .message = FAR_CALL, .irritant = 4 },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, force_is_a_trap_on_one_instruction)
{
	static const struct plan_case cases[] = {
		{ "5", BYTES(MOV_EAX_IMM), .policy = FORCE, .strategy = TRAP, WINDOW(0, 5) },
		{ "1", BYTES(PUSH_RBX, LEA_RAX_RDI_4), .policy = FORCE, .strategy = TRAP, WINDOW(0, 1) },
		{ "at the end", BYTES(RET), .upper = 1, .limit = 1, .policy = FORCE, .strategy = TRAP, WINDOW(0, 1) },
		{ "a branch into it", BYTES(MOV_EAX_IMM), .target = 1, .policy = FORCE, .strategy = TRAP,
		  WINDOW(0, 5) },
		{ "no instruction behind it", BYTES(NOP, UNDEFINED), .policy = FORCE, .strategy = TRAP, WINDOW(0, 1) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, no_instruction_at_the_site)
{
	static const struct plan_case cases[] = {
		{ "undefined", BYTES(UNDEFINED, NOP), .status = PATCH_EDISASM,
		  .message = "the bytes at the address are no valid instruction" },
		{ "cut short", BYTES(0xB8, 0x78, 0x56, 0x34), .status = PATCH_EDISASM,
		  .message = "the bytes at the address are no valid instruction" },
		{ "undefined, forced", BYTES(UNDEFINED, NOP), .policy = FORCE, .status = PATCH_EDISASM,
		  .message = "the bytes at the address are no valid instruction" },
		{ "foreign int3", BYTES(INT3, LEA_RAX_RDI_4), .status = PATCH_ECHANGED, .message = FOREIGN },
		{ "foreign int3, forbidden", BYTES(INT3, LEA_RAX_RDI_4), .policy = FORBID, .status = PATCH_ECHANGED,
		  .message = FOREIGN },
		{ "foreign int3, forced", BYTES(INT3, LEA_RAX_RDI_4), .policy = FORCE, .status = PATCH_ECHANGED,
		  .message = FOREIGN },
		{ "refused", BYTES(CALL_FAR, MOV_RAX_RDI), .status = PATCH_ERELOCATE,
		  .message = FAR_CALL },
		{ "refused, forced", BYTES(CALL_FAR_STACK, NOP), .policy = FORCE, .status = PATCH_ERELOCATE,
		  .message = FAR_CALL },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, branches_to_a_boundary)
{
	static const struct plan_case cases[] = {
		{ "first boundary", BYTES(NOP, LEA_RAX_RDI_4), .target = 1, .strategy = TRAP, WINDOW(0, 1),
		  .message = INNER_TARGET, .irritant = 1 },
		{ "last boundary", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .target = 4, .strategy = TRAP, WINDOW(0, 2),
		  .message = INNER_TARGET, .irritant = 4 },
		{ "forbidden: traps, but only there", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .target = 4,
		  .policy = FORBID,
		  .strategy = CONSTRAINED, WINDOW(0, 2, 4, 5) },
		{ "behind the window", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP, RET), .target = 5, .strategy = CONSTRAINED,
		  WINDOW(0, 2, 4, 5) },
		{ "of a window that is longer than the jump", BYTES(MOV_RAX_RDI, SUB_RSP_IMM, RET), .target = 10,
		  .strategy = CONSTRAINED, WINDOW(0, 3, 10) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

/* The boundary branched to is what the message is about, not the window's last one. */
Test(plan, branches_to_a_middle_boundary)
{
	static const struct plan_case cases[] = {
		{ "middle boundary", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .target = 2, .strategy = TRAP, WINDOW(0, 2),
		  .message = INNER_TARGET, .irritant = 2 },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, branches_to_the_site_are_harmless)
{
	static const struct {
		uint8_t bytes[5];
		uint8_t strategy;
	} heads[] = {
		{ { MOV_EAX_IMM }, JUMP },
		{ { MOV_EAX_EDI, MOV_RAX_RDI }, CONSTRAINED },
	};
	static const struct plan_case to_the_site = { .target = 4 };
	struct plan plan;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++) {
		const struct plan_request request = {
			.site = SITE + 4,
			.bytes = heads[i].bytes,
			.size = sizeof(heads[i].bytes),
			.limit = UINTPTR_MAX,
			.is_target = is_target,
			.data = &to_the_site,
		};

		cr_assert_eq(plan_site(&request, &plan), PATCH_OK);
		cr_expect_eq(plan.strategy, heads[i].strategy, "head %zu", i);
	}
}

Test(plan, branches_into_an_instruction)
{
	static const struct plan_case cases[] = {
		/* je over a LOCK prefix (hazard 11) */
		{ "into the first", BYTES(0xF0, 0x48, 0x0F, 0xB1, 0x17), .target = 1, .strategy = TRAP, WINDOW(0, 5),
		  .message = FIRST_MIDDLE, .irritant = 1 },
		{ "into the last byte of the first", BYTES(MOV_EAX_IMM), .target = 4, .strategy = TRAP, WINDOW(0, 5),
		  .message = FIRST_MIDDLE, .irritant = 4 },
		{ "into the first, forbidden", BYTES(MOV_EAX_IMM), .target = 3, .policy = FORBID,
		  .status = PATCH_ENOJUMP,
		  .message = FIRST_MIDDLE, .irritant = 3 },
		{ "behind the jump's bytes, but displaced", BYTES(SUB_RSP_IMM), .target = 6, .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = FIRST_MIDDLE, .irritant = 6 },
		{ "into the second", BYTES(NOP, LEA_RAX_RDI_4), .target = 4, .strategy = TRAP, WINDOW(0, 1),
		  .message = INNER_MIDDLE, .irritant = 1 },
		{ "into the second, forbidden", BYTES(NOP, LEA_RAX_RDI_4), .target = 2, .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = INNER_MIDDLE, .irritant = 1 },
		{ "into the third, forbidden", BYTES(NOP, MOV_EAX_EDI, XOR_EAX_ESI), .target = 4, .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = INNER_MIDDLE, .irritant = 3 },
		{ "into the one behind the window", BYTES(MOV_EAX_IMM, LEA_RAX_RDI_4), .target = 6, .strategy = JUMP,
		  WINDOW(0, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, function_ends)
{
	static const struct plan_case cases[] = {
		{ "nop padding", BYTES(MOV_EAX_EDI, RET, NOP, NOP), .upper = 3, .limit = 16, .strategy = CONSTRAINED,
		  WINDOW(0, 2, 3, 4, 5) },
		{ "long nop padding", BYTES(MOV_EAX_EDI, RET, NOPL_5), .upper = 3, .limit = 8, .strategy = CONSTRAINED,
		  WINDOW(0, 2, 3, 8) },
		{ "int3 padding", BYTES(RET, INT3, INT3, INT3, INT3), .upper = 1, .limit = 16, .strategy = CONSTRAINED,
		  WINDOW(0, 1, 2, 3, 4, 5) },
		{ "padding up to the next function", BYTES(MOV_EAX_EDI, RET, NOP, NOP), .upper = 3, .limit = 5,
		  .strategy = CONSTRAINED, WINDOW(0, 2, 3, 4, 5) },
		{ "too little padding", BYTES(MOV_EAX_EDI, RET, NOP, NOP), .upper = 3, .limit = 4, .strategy = TRAP,
		  WINDOW(0, 2), .message = ENDS_AT_ANOTHER, .irritant = 4 },
		{ "too little padding, forbidden", BYTES(MOV_EAX_EDI, RET, NOP, NOP), .upper = 3, .limit = 4,
		  .policy = FORBID, .status = PATCH_ENOJUMP, .message = ENDS_AT_ANOTHER, .irritant = 4 },
		{ "a nop that reaches into the next function", BYTES(MOV_EAX_EDI, RET, NOPL_5), .upper = 3, .limit = 7,
		  .policy = FORBID, .status = PATCH_ENOJUMP, .message = ENDS_AT_ANOTHER, .irritant = 3 },
		{ "another function at once", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI), .upper = 3, .limit = 3,
		  .policy = FORBID, .status = PATCH_ENOJUMP, .message = ENDS_AT_ANOTHER, .irritant = 3 },
		{ "another function that begins with nops", BYTES(MOV_EAX_EDI, RET, NOP, NOP), .upper = 3, .limit = 3,
		  .strategy = TRAP, WINDOW(0, 2), .message = ENDS_AT_ANOTHER, .irritant = 3 },
		{ "unknown code behind it", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI), .upper = 3, .strategy = TRAP,
		  WINDOW(0, 2), .message = ENDS, .irritant = 3 },
		{ "unknown code behind it, forbidden", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI), .upper = 3,
		  .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = ENDS, .irritant = 3 },
		{ "code behind some padding", BYTES(MOV_EAX_EDI, RET, NOP, PUSH_RBX), .upper = 3, .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = ENDS, .irritant = 4 },
		{ "nothing is known of it", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI), .strategy = CONSTRAINED,
		  WINDOW(0, 2, 3, 5) },
		{ "long enough alone", BYTES(MOV_EAX_IMM), .upper = 5, .limit = 5, .strategy = JUMP, WINDOW(0, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, bytes_behind_the_site_that_cannot_go_along)
{
	static const struct plan_case cases[] = {
		{ "undefined", BYTES(MOV_EAX_EDI, UNDEFINED, NOP, NOP), .strategy = TRAP, WINDOW(0, 2),
		  .message = NO_DECODE,
		  .irritant = 2 },
		{ "undefined, forbidden", BYTES(MOV_EAX_EDI, UNDEFINED, NOP, NOP), .policy = FORBID,
		  .status = PATCH_ENOJUMP, .message = NO_DECODE, .irritant = 2 },
		{ "unreadable", BYTES(MOV_EAX_EDI), .strategy = TRAP, WINDOW(0, 2), .message = NO_DECODE,
		  .irritant = 2 },
		{ "cut short", BYTES(MOV_EAX_EDI, 0x48, 0x8D, 0x47), .policy = FORBID, .status = PATCH_ENOJUMP,
		  .message = NO_DECODE, .irritant = 2 },
		{ "refused", BYTES(MOV_RAX_RDI, CALL_FAR), .strategy = TRAP, WINDOW(0, 3),
		  .message = FAR_CALL, .irritant = 3 },
		{ "refused, forbidden", BYTES(NOP, CALL_FAR_STACK), .policy = FORBID, .status = PATCH_ENOJUMP,
		  .message = FAR_CALL, .irritant = 1 },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

/*
 * A displaced call returns to where it was not called from, as the shadow stack sees it: with one, none is displaced.
 */
Test(plan, calls_with_a_shadow_stack)
{
	static const struct plan_case cases[] = {
		{ "a call, without one", BYTES(CALL_REL32, NOP), .strategy = JUMP, WINDOW(0, 5) },
		{ "a call", BYTES(CALL_REL32, NOP), .no_calls = true, .status = PATCH_ENOTSUP,
		  .message = SHADOW_STACK },
		{ "an indirect call", BYTES(CALL_RAX, NOP, NOP, NOP), .no_calls = true, .status = PATCH_ENOTSUP,
		  .message = SHADOW_STACK },
		{ "a call that would be a trap", BYTES(CALL_REL32, NOP), .policy = FORCE, .no_calls = true,
		  .status = PATCH_ENOTSUP, .message = SHADOW_STACK },
		{ "in the window, without one", BYTES(MOV_RAX_RDI, CALL_RAX, NOP), .strategy = CONSTRAINED,
		  WINDOW(0, 3, 5) },
		{ "in the window", BYTES(MOV_RAX_RDI, CALL_RAX, NOP), .no_calls = true, .strategy = TRAP, WINDOW(0, 3),
		  .message = SHADOW_STACK, .irritant = 3 },
		{ "in the window, forbidden", BYTES(MOV_RAX_RDI, CALL_RAX, NOP), .policy = FORBID, .no_calls = true,
		  .status = PATCH_ENOJUMP, .message = SHADOW_STACK, .irritant = 3 },
		{ "no call", BYTES(MOV_EAX_IMM, NOP), .no_calls = true, .strategy = JUMP, WINDOW(0, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

Test(plan, reach_makes_the_window_grow)
{
	static const struct plan_case cases[] = {
		{ "within the window", BYTES(MOV_EAX_IMM, NOP), .reach = 5, .strategy = JUMP, WINDOW(0, 5) },
		{ "one instruction more", BYTES(MOV_EAX_IMM, NOP, NOP), .reach = 6, .strategy = CONSTRAINED,
		  WINDOW(0, 5, 6) },
		{ "not inside an instruction", BYTES(MOV_EAX_IMM, SUB_RSP_IMM, NOP), .reach = 6,
		  .strategy = CONSTRAINED,
		  WINDOW(0, 5, 12) },
		{ "past the end of the function", BYTES(MOV_EAX_IMM, RET, MOV_RAX_RDI), .upper = 6, .limit = 6,
		  .reach = 9,
		  .strategy = TRAP, WINDOW(0, 5), .message = ENDS_AT_ANOTHER, .irritant = 6 },
		{ "a branch to what it takes in", BYTES(MOV_EAX_IMM, NOP, NOP), .target = 5, .reach = 6,
		  .strategy = TRAP,
		  WINDOW(0, 5), .message = INNER_TARGET, .irritant = 5 },
		{ "a trap has no reach", BYTES(MOV_EAX_IMM, NOP), .reach = 6, .policy = FORCE, .strategy = TRAP,
		  WINDOW(0, 5) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

/* Bytes behind the window are the end of the jump, and stay what they are. */
Test(plan, punned_where_a_window_would_trap)
{
	static const struct plan_case cases[] = {
		{ "a branch to the boundary", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2, .punnable = 5,
		  .strategy = PUNNED, WINDOW(0, 2) },
		{ "a branch to the boundary, forbidden", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2, .punnable = 5,
		  .policy = FORBID, .strategy = PUNNED, WINDOW(0, 2) },
		{ "a branch to the second boundary", BYTES(NOP, MOV_RAX_RDI, NOP), .target = 4, .punnable = 5,
		  .strategy = PUNNED, WINDOW(0, 1, 4) },
		{ "four", BYTES(LEA_RAX_RDI_4, NOP), .target = 4, .punnable = 5, .strategy = PUNNED, WINDOW(0, 4) },
		{ "a call that returns there", BYTES(0xFF, 0xD0, MOV_RAX_RDI), .punnable = 5, .strategy = PUNNED,
		  WINDOW(0, 2) },
		{ "behind a return", BYTES(RET, LEA_RAX_RDI_4), .punnable = 5, .strategy = PUNNED, WINDOW(0, 1) },
		{ "a branch that can be led", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2, .punnable = 5,
		  .led = CAN_BE_LED, .strategy = CONSTRAINED, WINDOW(0, 2, 5) },
		{ "a branch that cannot be led", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2, .punnable = 5,
		  .led = CANNOT_BE_LED, .strategy = PUNNED, WINDOW(0, 2) },
		{ "a branch that cannot be led, nor a jump elsewhere", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2,
		  .led = CANNOT_BE_LED, .strategy = TRAP, WINDOW(0, 2), .message = INNER_TARGET, .irritant = 2 },
		{ "no branch to be led", BYTES(MOV_EAX_EDI, UNDEFINED, NOP, NOP), .led = CAN_BE_LED,
		  .strategy = TRAP, WINDOW(0, 2), .message = "the bytes behind the instruction do not decode",
		  .irritant = 2 },
		{ "code behind padding behind a return", BYTES(RET, NOP, LEA_RAX_RDI_4), .punnable = 5,
		  .strategy = PUNNED, WINDOW(0, 1, 2) },
		{ "padding behind a return", BYTES(RET, NOP, NOP, NOP, NOP), .punnable = 5, .strategy = CONSTRAINED,
		  WINDOW(0, 1, 2, 3, 4, 5) },
		{ "another function", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI), .upper = 3, .limit = 3, .punnable = 5,
		  .strategy = PUNNED, WINDOW(0, 2, 3) },
		{ "what is no instruction", BYTES(MOV_EAX_EDI, UNDEFINED, NOP, NOP), .punnable = 5,
		  .strategy = PUNNED, WINDOW(0, 2) },
		{ "not past the mapping", BYTES(MOV_EAX_EDI, MOV_RAX_RDI), .target = 2, .punnable = 4,
		  .strategy = TRAP, WINDOW(0, 2), .message = INNER_TARGET, .irritant = 2 },
		{ "not past what is readable", BYTES(MOV_EAX_EDI, XOR_EAX_ESI), .target = 2, .punnable = 5,
		  .strategy = TRAP, WINDOW(0, 2), .message = INNER_TARGET, .irritant = 2 },
		{ "with another to take in", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .target = 4, .reach = 4,
		  .punnable = 5, .strategy = PUNNED, WINDOW(0, 2, 4) },
		{ "not with one behind to take in", BYTES(MOV_EAX_EDI, XOR_EAX_ESI, NOP), .target = 2, .reach = 4,
		  .punnable = 5, .strategy = TRAP, WINDOW(0, 2), .message = INNER_TARGET, .irritant = 2 },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

/* Where nothing better is left: boundaries that a call returns to, or that something may jump to. */
Test(plan, boundaries_that_may_trap)
{
	static const struct plan_case cases[] = {
		{ "a call that returns there", BYTES(0xFF, 0xD0, MOV_RAX_RDI), .strategy = CONSTRAINED,
		  WINDOW(0, 2, 5) },
		{ "a branch to it, too", BYTES(0xFF, 0xD0, MOV_RAX_RDI), .target = 2, .strategy = TRAP, WINDOW(0, 2),
		  .message = INNER_TARGET, .irritant = 2 },
		{ "endbr64 behind the site", BYTES(NOP, ENDBR64), .punnable = 5, .strategy = PUNNED, WINDOW(0, 1) },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

/* The next function's entry becomes a boundary: only FORBID, only known code, only as the last resort. */
Test(plan, the_next_function_is_the_last_resort)
{
	static const struct plan_case cases[] = {
		{ "forbidden", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI, RET), .upper = 3, .limit = 3, .beyond = 6,
		  .policy = FORBID, .strategy = CONSTRAINED, WINDOW(0, 2, 3, 5) },
		{ "not past its end", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI, RET), .upper = 3, .limit = 3, .beyond = 4,
		  .policy = FORBID, .status = PATCH_ENOJUMP, .message = ENDS_AT_ANOTHER, .irritant = 3 },
		{ "allowed", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI, RET), .upper = 3, .limit = 3, .beyond = 6,
		  .strategy = TRAP, WINDOW(0, 2), .message = ENDS_AT_ANOTHER, .irritant = 3 },
		{ "punned first", BYTES(MOV_EAX_EDI, RET, MOV_EAX_EDI, RET), .upper = 3, .limit = 3, .beyond = 6,
		  .punnable = 6, .policy = FORBID, .strategy = PUNNED, WINDOW(0, 2, 3) },
		{ "padding that is not", BYTES(RET, PUSH_RBX, MOV_EAX_EDI, RET), .upper = 1, .limit = 2, .beyond = 5,
		  .policy = FORBID, .status = PATCH_ENOJUMP, .message = ENDS, .irritant = 1 },
	};

	check_cases(cases, ARRAY_SIZE(cases));
}

static bool is_any_start(uintptr_t address, const void *data)
{
	(void)data;
	return address >= SITE && address < SITE + 5;
}

/* Where a candidate is in the order of all. */
static unsigned int rank(struct plan_rung rung)
{
	return (unsigned int)rung.level << 16 | (unsigned int)rung.shape << 8 | rung.variant;
}

/* All candidates for one of five NOPs: each once, none worse than the one before, and the trap last. */
Test(plan, candidates_end_with_the_trap)
{
	static const uint8_t bytes[] = { NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP };
	struct plan_request request = {
		.site = SITE + 2,
		.bytes = bytes + 2,
		.size = sizeof(bytes) - 2,
		.before = 2,
		.limit = UINTPTR_MAX,
		.punnable = SITE + sizeof(bytes),
		.is_start = is_any_start,
	};
	static const struct {
		uint8_t strategy;
		uint8_t start;
		uint8_t length;
	} wanted[] = {
		{ CONSTRAINED, 2, 5 }, { CONSTRAINED, 1, 5 }, { CONSTRAINED, 0, 5 },
		{ PUNNED, 2, 4 }, { PUNNED, 2, 3 }, { PUNNED, 2, 2 }, { PUNNED, 2, 1 },
		{ PUNNED, 1, 4 }, { PUNNED, 1, 3 }, { PUNNED, 1, 2 },
		{ PUNNED, 0, 4 }, { PUNNED, 0, 3 },
	};
	struct plan plan;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		cr_assert_eq(plan_site(&request, &plan), PATCH_OK);
		cr_expect_eq(plan.strategy, wanted[i].strategy, "candidate %zu: strategy %u", i, plan.strategy);
		cr_expect_eq(plan.start, SITE + wanted[i].start, "candidate %zu: start +%#lx", i, plan.start - SITE);
		cr_expect_eq(plan.length, wanted[i].length, "candidate %zu: %u bytes", i, plan.length);
		request.candidate = plan_next(plan.candidate);
	}
	while (plan.strategy != TRAP) {
		unsigned int before = rank(plan.candidate);

		cr_assert_eq(plan_site(&request, &plan), PATCH_OK);
		cr_assert_gt(rank(plan.candidate), before);
		request.candidate = plan_next(plan.candidate);
	}
	cr_expect_eq(plan.start, SITE + 2);
	cr_expect_eq(plan.length, 1);
}

/* A window over `bytes` up to `reach`; the plan's length, or 0 when it is refused for being too long. */
static unsigned int reach_over(const uint8_t *bytes, size_t size, uintptr_t reach, struct plan *plan)
{
	const struct plan_request request = {
		.site = SITE,
		.bytes = bytes,
		.size = size,
		.limit = UINTPTR_MAX,
		.reach = SITE + reach,
		.policy = FORBID,
	};
	patch_status status = plan_site(&request, plan);

	if (status == PATCH_OK)
		return plan->length;
	cr_expect_eq(status, PATCH_ENOJUMP);
	check_refusal("reach", plan, TOO_MUCH, plan->irritant);
	return 0;
}

Test(plan, too_many_bytes_or_instructions)
{
	static const uint8_t fifteen[] = { FIFTEEN };
	uint8_t bytes[WINDOW_LENGTH_MAX + 32];
	struct plan plan;
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = fifteen[i % sizeof(fifteen)];
	cr_expect_eq(reach_over(bytes, sizeof(bytes), 120, &plan), 120);
	cr_expect_eq(plan.count, 8);
	cr_expect_eq(plan.offsets[8], 120);
	cr_expect_eq(reach_over(bytes, sizeof(bytes), 121, &plan), 0);
	cr_expect_eq(plan.irritant, SITE + 120);

	memset(bytes, NOP, sizeof(bytes));
	cr_expect_eq(reach_over(bytes, sizeof(bytes), 64, &plan), 64);
	cr_expect_eq(plan.count, WINDOW_INSNS_MAX);
	cr_expect_eq(plan.offsets[64], 64);
	cr_expect_eq(reach_over(bytes, sizeof(bytes), 65, &plan), 0);
	cr_expect_eq(plan.irritant, SITE + 64);
}

Test(plan, nothing_known_of_branches)
{
	static const uint8_t bytes[] = { MOV_EAX_EDI, MOV_RAX_RDI };
	const struct plan_request request = {
		.site = SITE,
		.bytes = bytes,
		.size = sizeof(bytes),
		.limit = UINTPTR_MAX,
	};
	struct plan plan;

	cr_expect_eq(plan_site(&request, &plan), PATCH_OK);
	cr_expect_eq(plan.strategy, CONSTRAINED);
	cr_expect_eq(plan.length, 5);
}

/* Bit i: byte i of the rel32 is a boundary. The trap byte tells an instruction of one byte from longer ones. */
static unsigned int boundaries_of(const uint8_t *offsets, unsigned int count)
{
	unsigned int pattern = 0, i;
	uint8_t traps[4];

	window_rel32_traps(offsets, count, traps);
	for (i = 0; i < 4; i++)
		pattern |= (traps[i] != 0) << i;
	for (i = 1; i < count; i++)
		if (offsets[i] < ARCH_JMP_SIZE)
			cr_expect_eq(arch_trap_class(traps[offsets[i] - 1]),
				     offsets[i + 1] - offsets[i] > 1 ? ARCH_TRAP_SIGTRAP : ARCH_TRAP_SIGILL);
	return pattern;
}

/*
 * Every way to divide a jump's five bytes into instructions, the last of which may be longer: boundary at offset i + 1
 * for every bit i of `pattern`.
 */
Test(plan, boundaries_of_every_pattern)
{
	unsigned int pattern, i, extra;

	for (pattern = 0; pattern < 16; pattern++) {
		for (extra = 0; extra < 3; extra++) {
			uint8_t offsets[8] = { 0 };
			unsigned int count = 1;

			for (i = 0; i < 4; i++) {
				if (pattern & 1U << i)
					offsets[count++] = (uint8_t)(i + 1);
			}
			offsets[count] = (uint8_t)(ARCH_JMP_SIZE + extra);
			cr_expect_eq(boundaries_of(offsets, count), pattern, "pattern %#x with %u bytes more: %#x",
				     pattern, extra, boundaries_of(offsets, count));
			/* An instruction behind the jump's bytes makes no difference. */
			offsets[count + 1] = (uint8_t)(ARCH_JMP_SIZE + extra + 3);
			cr_expect_eq(boundaries_of(offsets, count + 1), pattern, "pattern %#x, one more: %#x", pattern,
				     boundaries_of(offsets, count + 1));
		}
	}
}

/* The planner and window_rel32_traps() agree for real instructions of every length. */
Test(plan, every_pattern_is_planned)
{
	static const uint8_t insns[5][5] = { { NOP }, { MOV_EAX_EDI }, { MOV_RAX_RDI }, { LEA_RAX_RDI_4 },
					     { MOV_EAX_IMM } };
	unsigned int pattern;

	for (pattern = 0; pattern < 16; pattern++) {
		uint8_t bytes[ARCH_JMP_SIZE];
		struct plan_request request = { .site = SITE, .bytes = bytes, .size = 5, .limit = UINTPTR_MAX };
		unsigned int at = 0, end;
		struct plan plan;

		while (at < ARCH_JMP_SIZE) {
			end = at + 1;
			while (end < ARCH_JMP_SIZE && !(pattern & 1U << (end - 1)))
				end++;
			memcpy(bytes + at, insns[end - at - 1], end - at);
			at = end;
		}
		cr_assert_eq(plan_site(&request, &plan), PATCH_OK, "pattern %#x", pattern);
		cr_expect_eq(plan.strategy, pattern ? CONSTRAINED : JUMP, "pattern %#x", pattern);
		cr_expect_eq(plan.count, 1 + __builtin_popcount(pattern), "pattern %#x", pattern);
		cr_expect_eq(boundaries_of(plan.offsets, plan.count), pattern, "pattern %#x", pattern);
	}
}

/* ---- windows that begin in front of the site -------------------------------------------------------------------- */

struct backwards {
	const char *text;
	uint8_t code[16];  /* from the function's start to its end; another function follows */
	uint8_t size;
	uint16_t starts;   /* bit per byte that starts an instruction */
	uint8_t site;      /* offset of the instruction to hook */
	uint8_t target;    /* of a direct branch, 0: there is none */
	uint8_t policy;
	int status;
	uint8_t strategy;
	uint8_t start;     /* expected window */
	uint8_t length;
	bool from_start;   /* must begin with the function */
};

static bool is_backwards_target(uintptr_t address, const void *data)
{
	const struct backwards *c = data;

	return c->target != 0 && address == SITE + c->target;
}

static bool is_backwards_start(uintptr_t address, const void *data)
{
	const struct backwards *c = data;

	return address >= SITE && address < SITE + c->size && (c->starts >> (address - SITE) & 1);
}

Test(plan, windows_that_begin_in_front_of_the_site)
{
	/* push rbx; mov eax, edi; mov ecx, esi; pop rbx; ret */
#define BODY { 0x53, 0x89, 0xF8, 0x89, 0xF1, 0x5B, 0xC3 }, 7, 0x6B
	static const struct backwards cases[] = {
		{ "ret", BODY, .site = 6, .policy = FORBID, .strategy = CONSTRAINED, .start = 1, .length = 6 },
		{ "pop", BODY, .site = 5, .policy = ALLOW, .strategy = CONSTRAINED, .start = 1, .length = 5 },
		{ "the site itself is a target", BODY, .site = 6, .target = 6, .policy = ALLOW,
		  .strategy = CONSTRAINED, .start = 1, .length = 6 },
		{ "one in front of it is", BODY, .site = 6, .target = 5, .policy = ALLOW,
		  .strategy = CONSTRAINED, .start = 1, .length = 6 },
		{ "a site in front of the target", BODY, .site = 1, .target = 3, .policy = ALLOW, .strategy = TRAP,
		  .start = 1, .length = 2 },
		/* push rbx; mov ecx, esi; je; pop rbx; ret: from +3 control may turn away. */
		{ "a branch between the target and the site",
		  { 0x53, 0x89, 0xF1, 0x74, 0xFB, 0x5B, 0xC3 },
		  7,
		  0x6B,
		  .site = 6,
		  .target = 3,
		  .policy = ALLOW,
		  .strategy = TRAP,
		  .start = 6,
		  .length = 1 },
		{ "the target is behind that branch",
		  { 0x53, 0x89, 0xF1, 0x74, 0xFB, 0x5B, 0xC3 },
		  7,
		  0x6B,
		  .site = 6,
		  .target = 5,
		  .policy = ALLOW,
		  .strategy = CONSTRAINED,
		  .start = 1,
		  .length = 6 },
		{ "the same, forbidden to trap", BODY, .site = 6, .target = 6, .policy = FORBID,
		  .strategy = CONSTRAINED, .start = 1, .length = 6 },
		{ "begins where it must", BODY, .site = 6, .policy = FORBID, .strategy = CONSTRAINED, .start = 0,
		  .length = 7, .from_start = true },
		{ "a jump in front",
		  { 0x53, 0x89, 0xF8, 0xEB, 0xFE, 0x90, 0xC3 },
		  7,
		  0x6B,
		  .site = 6,
		  .policy = FORBID,
		  .status = PATCH_ENOJUMP },
		{ "a call in front",
		  { 0x53, 0xE8, 0, 0, 0, 0, 0xC3 },
		  7,
		  0x43,
		  .site = 6,
		  .policy = FORBID,
		  .status = PATCH_ENOJUMP },
		{ "the function begins too near",
		  { 0x90, 0x90, 0xC3 },
		  3,
		  0x7,
		  .site = 2,
		  .policy = FORBID,
		  .status = PATCH_ENOJUMP },
		{ "an endbr64 in front",
		  { 0xF3, 0x0F, 0x1E, 0xFA, 0xC3 },
		  5,
		  0x11,
		  .site = 4,
		  .policy = FORBID,
		  .status = PATCH_ENOJUMP },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct backwards *c = &cases[i];
		const struct plan_request request = {
			.site = SITE + c->site,
			.bytes = c->code + c->site,
			.size = (size_t)c->size - c->site,
			.before = c->site,
			.upper = SITE + c->size,
			.limit = SITE + c->size,
			.is_target = is_backwards_target,
			.is_start = is_backwards_start,
			.data = c,
			.from = c->from_start ? SITE : 0,
			.policy = c->policy,
		};
		struct plan plan;

		cr_expect_eq(plan_site(&request, &plan), c->status, "%s", c->text);
		if (c->status != PATCH_OK)
			continue;
		cr_expect_eq(plan.strategy, c->strategy, "%s", c->text);
		cr_expect_eq(plan.site, SITE + c->site, "%s", c->text);
		cr_expect_eq(plan.start, SITE + c->start, "%s: starts at +%lu", c->text, plan.start - SITE);
		cr_expect_eq(plan.length, c->length, "%s: is %u long", c->text, plan.length);
	}
}
