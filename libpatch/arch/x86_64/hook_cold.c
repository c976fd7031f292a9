/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a hit seldom executes, behind the trampoline's last instruction.
 */
#include "arch/x86_64/hook_parts.h"

/* The program had DF or AC set: procedures run with both clear. */
static void emit_cold_backwards(struct arch_code *code, const struct arch_cold_hook *cold)
{
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	arch_emit_landing(code, cold->backwards);
	EMIT("\xFC"   /* cld */
	     "\x9C"); /* pushfq */
	if (cold->own)
		arch_emit_stretch(code, hook_stretch(ARCH_HOOK_PUSHED, ARCH_PUSHED_SAVED), cold->number);
	else
		arch_emit_row(code, ARCH_ROW_CFA_FRAME + 1);
	EMIT("\x81\x24\x24\xFF\xFF\xFB\xFF" /* and dword [rsp], ~AC */
	     "\x9D");                       /* popfq */
	if (cold->own)
		arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	else
		arch_emit_row(code, ARCH_ROW_CFA_FRAME);
	EMIT("\xE9");                            /* jmp forwards */
	arch_emit_back(code, cold->forwards);
}

/* The cold code of one hook. */
static void emit_cold_hook(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const int32_t guard = hook_tls_offset(&libpatch_hook_guard.guard);
	const size_t begins = code->size;

	code->original = cold->original;
	code->pushed = cold->pushed;
	if (arch_emit_kept_cold(code, cold))
		return;
	arch_begin_keeping(code, cold);
	arch_emit_row(code, hook_row(cold->own));
	arch_emit_cold_pair(code, cold);
	arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
	EMIT_FIELD("\x64\x48\x89\x0C\x25", guard);   /* mov fs:[guard], rcx */
	arch_emit_load(code, RCX, KEPT(cold->written, PATCH_X86_64_RCX));
	EMIT("\xE9");                             /* jmp passed_over */
	arch_emit_back(code, cold->passed_over);
	arch_emit_stretch(code, ARCH_HOOK_RAX, cold->number);
	arch_emit_landing(code, cold->guarded);
	arch_emit_call_library(code, libpatch_may_run);
	EMIT("\x0F\x84");                         /* je fresh */
	arch_emit_back(code, cold->fresh);
	EMIT("\xE9");                             /* jmp passed_over */
	arch_emit_back(code, cold->passed_over);
	emit_cold_backwards(code, cold);
	arch_emit_cold_errno(code, cold);
	arch_emit_cold_shadow(code, cold);
	arch_emit_cold_unaligned(code, cold);
	arch_emit_cold_moved(code, cold);
	arch_emit_cold_direction(code, cold);
	arch_emit_cold_busy(code, cold);
	arch_keep_cold(code, cold, begins);
}

void arch_emit_cold(struct arch_code *code)
{
	struct arch_cold *cold = code->cold;

	for (size_t i = 0; i < cold->hook_count; ++i)
		emit_cold_hook(code, &cold->hooks[i]);
	code->pushed = 0;
	/* One constant for all calls of a function. */
	for (size_t i = 0; i < cold->call_count; ++i) {
		uintptr_t function = cold->calls[i].function;

		if (function == 0)
			continue;
		arch_emit_constant(code, cold->calls[i].field, function);
		for (size_t j = i + 1; j < cold->call_count; ++j) {
			if (cold->calls[j].function != function)
				continue;
			arch_emit_label_at(code, cold->calls[j].field, code->size - sizeof(uint64_t));
			cold->calls[j].function = 0;
		}
	}
}
