/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks at entries and exits of functions: the word that stands for the stack pointer (runtime/shadow.h).
 */
#include "arch/x86_64/hook_parts.h"

#define LEAF_WORDS ((uint8_t)offsetof(struct shadow_leaf, words))
_Static_assert(offsetof(struct shadow_leaf, page) == 0 && offsetof(struct shadow_leaf, words) < 128, "emitted");
_Static_assert(offsetof(struct hook_record, pair) == 16, "emitted");

/* An indirect jump may stay in the function: the context says where it leads then, and not where the hook is. */
static void emit_skip_inside(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	if (!arch_hook_leads(hook))
		return;
	arch_emit_program_counter(code, hook->program_counter);
	emit_slot(code, 0x39, RAX, RDI, (int32_t)offsetof(struct patch_exec_context, program_counter));
	cold->inside = EMIT_FORWARD("\x0F\x85"); /* jne inside */
}

/*
 * rcx holds the record, rdi points to the context: both stay. Uses rax, rdx, rsi, and r8, which has what is taken from
 * the word until the call.
 */
void arch_emit_shadow(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	if (hook->shadow == ARCH_SHADOW_EXIT)
		emit_skip_inside(code, hook, cold);
	cold->shadow = (uint32_t)code->size;
	EMIT_FIELD("\x64\x48\x8B\x14\x25", hook_tls_offset(&libpatch_hook_guard.shadow)); /* mov rdx, fs:[shadow] */
	arch_emit_lea_program(code, hook->own, RAX, hook_above(hook->exit));
	EMIT("\x48\x8B\x32"                        /* mov rsi, [rdx + page] */
	     "\x48\x31\xC6"                        /* xor rsi, rax */
	     "\x48\xC1\xEE\x0C");                  /* shr rsi, 12 */
	cold->shadowed = EMIT_FORWARD("\x0F\x85"); /* jne shadowed */
	EMIT("\x25\xF8\x0F\x00\x00");              /* and eax, 0xff8 */
	if (hook->shadow == ARCH_SHADOW_ENTRY) {
		EMIT("\x48\x8B\x71\x10"   /* mov rsi, [rcx + pair] */
		     "\x48\x89\x74\x02"); /* mov [rdx + rax + words], rsi */
		arch_emit_u8(code, LEAF_WORDS);
		cold->shadowless = (uint32_t)code->size;
		return;
	}
	EMIT("\x4C\x8B\x44\x02");       /* mov r8, [rdx + rax + words] */
	arch_emit_u8(code, LEAF_WORDS);
	EMIT("\x4C\x89\xC6"                         /* mov rsi, r8 */
	     "\x48\x2B\x71\x10"                     /* sub rsi, [rcx + pair] */
	     "\x48\xC1\xEE\x20");                   /* shr rsi, 32 */
	cold->mispaired = EMIT_FORWARD("\x0F\x85"); /* jne mispaired */
	cold->paired = (uint32_t)code->size;
	arch_emit_stretch(code, ARCH_HOOK_WORD, cold->number);
	EMIT("\x48\xC7\x44\x02");       /* mov qword [rdx + rax + words], 0 */
	arch_emit_u8(code, LEAF_WORDS);
	arch_emit_u32(code, 0);
}

/*
 * A closed exit: what the entry has noted for this call does not stay. Exits close one after the other, and another one
 * may be open still when the next call, which the entry was closed for, comes there.
 */
void arch_emit_pass_exit(struct arch_code *code, const struct arch_cold_hook *cold)
{
	arch_emit_lea_program(code, cold->own, RCX, cold->above);
	arch_emit_call_library(code, libpatch_pass_exit);
	EMIT("\x31\xC9");                             /* xor ecx, ecx */
}

void arch_emit_cold_shadow(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->shadowed == 0)
		return;
	arch_emit_row(code, hook_row(cold->own));
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	arch_emit_landing(code, cold->shadowed);
	arch_emit_lea_program(code, cold->own, RDX, cold->above);
	arch_emit_call_library(code, libpatch_find_shadow);
	EMIT("\x0F\x84");                 /* je shadow */
	arch_emit_back(code, cold->shadow);
	if (cold->shadowless != 0) {
		EMIT("\xE9");              /* jmp shadowless */
		arch_emit_back(code, cold->shadowless);
		return;
	}
	if (cold->inside != 0)
		arch_emit_landing(code, cold->inside);
	EMIT("\xE9");                      /* jmp uncalled */
	arch_emit_back(code, cold->uncalled);
	/* The procedure is a list's, and is to see the word. */
	arch_emit_landing(code, cold->mispaired);
	EMIT("\x83\x79\x14\xFF" /* cmp dword [rcx + pair + 4], HOOK_PAIR_ANY */
	     "\x0F\x85");       /* jne uncalled */
	arch_emit_back(code, cold->uncalled);
	arch_emit_store(code, ARCH_HOOK_FRAME_REPORTED, R8);
	EMIT("\xE9");                      /* jmp paired */
	arch_emit_back(code, cold->paired);
}
