/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks of PROBE_AROUND: the first notes that a second call is owed, the second calls what was noted.
 */
#include "arch/x86_64/hook_parts.h"

/* Fields of the thread's pairs (arch/upcalls.h); what is at `top` is added. */
#define PAIR_FIELD(field) ((int32_t)offsetof(struct hook_pair, field))

static int32_t top_offset(void)
{
	return hook_tls_offset(&libpatch_hook_guard.top);
}

static int32_t pair_offset(int32_t field)
{
	return hook_tls_offset(&libpatch_hook_guard) + field;
}

/* rcx: the execution that the pair is of, as the first call has left the stack pointer. */
static void emit_execution(struct arch_code *code, uintptr_t slot)
{
	arch_emit_place(code, slot);
	emit_slot(code, 0x03, RCX, RSP, CONTEXT(stack_pointer)); /* add rcx, [rsp + ...] */
}

/* rcx += the program's stack pointer + above */
static void emit_add_program(struct arch_code *code, bool own, int32_t above)
{
	if (own) {
		emit_slot(code, 0x03, RCX, RSP, ARCH_OWN_FRAME_STACK_POINTER); /* add rcx, [rsp] */
		EMIT("\x48\x8D\x89");                                          /* lea rcx, [rcx + ...] */
		arch_emit_u32(code, (uint32_t)above);
	} else {
		EMIT("\x48\x8D\x8C\x0C"); /* lea rcx, [rsp + rcx + ...] */
		arch_emit_u32(code, (uint32_t)(ARCH_HOOK_FRAME_TOTAL + above));
	}
}

void arch_emit_load_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	cold->look = (uint32_t)code->size;
	if (hook->pair == ARCH_PAIR_SECOND_ANYWHERE) {
		arch_emit_place(code, hook->slot);
		arch_emit_call_library(code, libpatch_find_pair_at);
		arch_emit_stretch(code, ARCH_HOOK_ASKED, cold->number);
		cold->unpaired = EMIT_FORWARD("\x0F\x85");         /* jne unpaired */
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		EMIT_FIELD("\x64\x48\x8B\x04\x25", top_offset());        /* mov rax, fs:[top] */
	} else {
		EMIT_FIELD("\x64\x48\x8B\x04\x25", top_offset());        /* mov rax, fs:[top] */
		arch_emit_place(code, hook->slot);
		emit_add_program(code, hook->own, hook_above(hook->exit) - hook->change); /* the execution */
		EMIT_FIELD("\x64\x48\x3B\x88", pair_offset(PAIR_FIELD(execution))); /* cmp rcx, fs:[rax + execution] */
		cold->unpaired = EMIT_FORWARD("\x0F\x85");         /* jne unpaired */
	}
	EMIT_FIELD("\x64\x48\x8B\x88", pair_offset(PAIR_FIELD(record))); /* mov rcx, fs:[rax + record] */
}

/* rax: `top`. ZF is set when there are no pairs: `top` is never 1, and `gone_past` is 1 or 0. */
static void emit_whether_pairs(struct arch_code *code)
{
	EMIT_FIELD("\x64\x48\x8B\x04\x25", top_offset()); /* mov rax, fs:[top] */
	/* cmp rax, fs:[gone_past] */
	EMIT_FIELD("\x64\x48\x3B\x04\x25", hook_tls_offset(&libpatch_hook_guard.gone_past));
}

void arch_emit_note_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	const int32_t next = sizeof(struct hook_pair);

	emit_whether_pairs(code);
	cold->crowded = EMIT_FORWARD("\x0F\x85");                  /* jne crowded */
	cold->room = (uint32_t)code->size;
	arch_emit_load(code, RCX, ARCH_HOOK_FRAME_RECORD);
	EMIT_FIELD("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(record)));
	arch_emit_load(code, RCX, CONTEXT(stack_pointer));
	EMIT_FIELD("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(stack_pointer)));
	cold->place = (uint32_t)code->size;
	emit_execution(code, hook->slot);
	EMIT_FIELD("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(execution)));
	EMIT("\x48\x83\xC0");                                         /* add rax, size of a pair */
	arch_emit_u8(code, (uint8_t)next);
	EMIT_FIELD("\x64\x48\x89\x04\x25", top_offset());                /* mov fs:[top], rax */
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
}

void arch_emit_drop_pair(struct arch_code *code, const struct arch_cold_hook *cold)
{
	EMIT_FIELD("\x64\x48\x8B\x0C\x25", top_offset());                       /* mov rcx, fs:[top] */
	EMIT_FIELD("\x64\x48\x89\x81", pair_offset(PAIR_FIELD(execution))); /* mov fs:[rcx + execution], rax */
	EMIT_FIELD("\x64\x48\x89\x81", pair_offset(PAIR_FIELD(record)));    /* mov fs:[rcx + record], rax */
	EMIT("\x48\x83\xE9");                                                   /* sub rcx, size of a pair */
	arch_emit_u8(code, sizeof(struct hook_pair));
	EMIT_FIELD("\x64\x48\x89\x0C\x25", top_offset());                /* mov fs:[top], rcx */
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
}

/*
 * The instruction is not executed, so there is no second call. All registers are the program's but rax. Since the guard
 * was cleared, handlers may have noted pairs above this one, so that the library looks for it, with the guard set.
 */
void arch_emit_forget_pair(struct arch_code *code, uintptr_t slot)
{
	const int32_t guard = hook_tls_offset(&libpatch_hook_guard.guard);

	EMIT_FIELD("\x64\x48\x89\x24\x25", guard);     /* mov fs:[guard], rsp */
	arch_emit_store(code, PRIVATE(PATCH_X86_64_RCX), RCX);
	emit_execution(code, slot);
	arch_emit_call_library(code, libpatch_forget_pair);
	arch_emit_load(code, RCX, PRIVATE(PATCH_X86_64_RCX));
	EMIT_FIELD("\x64\x48\xC7\x04\x25", guard);     /* mov qword fs:[guard], 0 */
	arch_emit_u32(code, 0);
}

void arch_emit_cold_pair(struct arch_code *code, const struct arch_cold_hook *cold)
{
	uint32_t none;

	if (cold->unpaired != 0) {
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_landing(code, cold->unpaired);
		if (cold->pair == ARCH_PAIR_SECOND) {
			arch_emit_call_library(code, libpatch_find_pair);
			arch_emit_stretch(code, ARCH_HOOK_ASKED, cold->number);
			EMIT("\x0F\x84");             /* je look */
			arch_emit_back(code, cold->look);
		}
		arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
		EMIT("\x31\xC9");                     /* xor ecx, ecx */
	} else if (cold->crowded != 0) {
		arch_emit_stretch(code, ARCH_HOOK_OWES, cold->number);
		arch_emit_landing(code, cold->crowded);
		arch_emit_place(code, cold->slot);
		arch_emit_call_library(code, libpatch_make_room);
		EMIT_FIELD("\x64\x48\x8B\x04\x25", top_offset()); /* mov rax, fs:[top] */
		EMIT("\xE9");                                 /* jmp room */
		arch_emit_back(code, cold->room);
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_landing(code, cold->closed);
		emit_whether_pairs(code);
		none = EMIT_FORWARD("\x0F\x84");       /* je none */
		arch_emit_place(code, cold->slot);
		arch_emit_call_library(code, libpatch_pass_pair);
		arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
		EMIT("\x31\xC9");                     /* xor ecx, ecx */
		arch_emit_label(code, none);
	} else {
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_landing(code, cold->closed);
		if (cold->paired != 0)
			arch_emit_pass_exit(code, cold);
	}
}
