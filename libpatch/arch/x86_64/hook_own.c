/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A frame on the thread's own stack: taken, and given back. own_stack.h says what is where.
 */
#include "arch/x86_64/hook_parts.h"
#include "arch/x86_64/own_stack.h"

/*
 * The frame on the thread's own stack. What leads there changes no flag, and has no register but rcx, which is in
 * `kept` until the frame is there: jrcxz tells whether the stack is free. Only while flags are on top of the frame is
 * its first word not what rows say: no call is made there.
 */
void arch_emit_take_stack(struct arch_code *code, struct arch_cold_hook *cold)
{
	const uint8_t number = cold->number;

	EMIT_FIELD("\x64\x48\x89\x0C\x25", hook_tls_offset(&libpatch_hook_guard.kept)); /* mov fs:[kept], rcx */
	EMIT_FIELD("\x64\x48\x8B\x0C\x25", hook_tls_offset(&libpatch_hook_guard.own));  /* mov rcx, fs:[own] */
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT("\x48\x8B\x09"                /* mov rcx, [rcx + free] */
	     "\xE3\x02"                    /* jrcxz busy */
	     "\xEB\x05");                  /* jmp free */
	cold->busy = EMIT_FORWARD("\xE9"); /* busy: jmp ... */
	cold->free = (uint32_t)code->size;
	EMIT("\x48\x89\x21"   /* mov [rcx + ARCH_OWN_FRAME_STACK_POINTER], rsp */
	     "\x48\xC7\x81"); /* mov qword [rcx + ARCH_OWN_FRAME_FREE], 0 */
	arch_emit_u32(code, ARCH_OWN_FRAME_FREE);
	arch_emit_u32(code, 0);
	EMIT("\x48\x89\xCC");         /* mov rsp, rcx */
	arch_emit_row(code, ARCH_ROW_DEREF);
	EMIT("\x9C");                 /* pushfq */
	arch_emit_stretch(code, hook_stretch(ARCH_HOOK_PUSHED, ARCH_PUSHED_OWN), number);
	EMIT_FIELD("\x8F\x84\x24", ARCH_OWN_FRAME_FLAGS); /* pop qword [rsp + ...] */
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT_FIELD("\x64\x48\x8B\x0C\x25", hook_tls_offset(&libpatch_hook_guard.kept)); /* mov rcx, fs:[kept] */
	arch_emit_stretch(code, ARCH_HOOK_FLAGS, number);
}

/* To libpatch_own_stack, and the landing: own_stack.h says what is where. */
void arch_emit_cold_busy(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const uint8_t number = cold->number;

	if (!cold->own)
		return;
	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	arch_emit_landing(code, cold->busy);
	EMIT("\x48\x8D\x0D\x0F\0\0\0");                                                /* lea rcx, [rip + landing] */
	EMIT_FIELD("\x64\x48\x87\x0C\x25", hook_tls_offset(&libpatch_hook_guard.own)); /* xchg fs:[own], rcx */
	arch_emit_stretch(code, hook_stretch(ARCH_HOOK_OWN, ARCH_OWN_RCX), number);
	arch_emit_to_library(code, EMIT_FORWARD("\xFF\x25"), libpatch_own_stack); /* jmp [rip + ...] */
	arch_emit_stretch(code, hook_stretch(ARCH_HOOK_OWN, ARCH_OWN_NONE), number);
	/* OWN_LANDING_NONE: mov rcx, [rip + ...] */
	arch_emit_to_library(code, EMIT_FORWARD("\x48\x8B\x0D"), (arch_call_fn *)(uintptr_t)&libpatch_own_none);
	EMIT_FIELD("\x64\x48\x89\x0C\x25", hook_tls_offset(&libpatch_hook_guard.own));  /* mov fs:[own], rcx */
	EMIT_FIELD("\x64\x48\x8B\x0C\x25", hook_tls_offset(&libpatch_hook_guard.kept)); /* mov rcx, fs:[kept] */
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	EMIT("\xE9");                 /* jmp done */
	arch_emit_back(code, cold->done);
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT("\xE9");                 /* OWN_LANDING_GO: jmp free */
	arch_emit_back(code, cold->free);
	/* OWN_LANDING_AGAIN: mov rcx, fs:[kept] */
	EMIT_FIELD("\x64\x48\x8B\x0C\x25", hook_tls_offset(&libpatch_hook_guard.kept));
	EMIT("\xE9");                 /* jmp begins */
	arch_emit_back(code, cold->begins);
}

/* The frame's place is free, and then left: a handler that comes in between is on this stack, and makes it not free. */
void arch_emit_give_stack(struct arch_code *code)
{
	arch_emit_store(code, ARCH_OWN_FRAME_FREE, RSP);
	arch_emit_load(code, RSP, ARCH_OWN_FRAME_STACK_POINTER);
	arch_emit_row(code, 0);
}
