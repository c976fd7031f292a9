/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A hook's frame: made, with RFLAGS in it; and left, with RFLAGS as they were, rax, and the stack.
 */
#include "arch/cpu.h"
#include "arch/x86_64/hook_parts.h"

void arch_emit_enter(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_HOOK_BEGINS, cold->number);
	if (hook->own) {
		arch_emit_take_stack(code, cold);
		return;
	}
	arch_emit_lea(code, RSP, -(ARCH_HOOK_FRAME_TOTAL - 8));
	arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
	EMIT("\x9C"); /* pushfq */
	arch_emit_row(code, ARCH_ROW_CFA_FRAME);
	arch_emit_stretch(code, ARCH_HOOK_FLAGS, cold->number);
}

static void emit_leave_own(struct arch_code *code, struct arch_cold_hook *cold)
{
	EMIT_FIELD("\xF7\x84\x24", ARCH_OWN_FRAME_FLAGS); /* test dword [rsp + ...], DF | AC */
	arch_emit_u32(code, 0x40400);
	cold->direction = EMIT_FORWARD("\x0F\x85");               /* jne direction */
	EMIT_FIELD("\x0F\xB6\x84\x24", ARCH_OWN_FRAME_FLAGS + 1); /* movzx eax, byte [rsp + ... + 1] */
	EMIT("\x24\x08"                                           /* and al, OF >> 8 */
	     "\x04\x78");                                         /* add al, 128 - (OF >> 8) */
	EMIT_FIELD("\x8A\xA4\x24", ARCH_OWN_FRAME_FLAGS);         /* mov ah, [rsp + ...] */
	EMIT("\x9E");                                             /* sahf */
	arch_emit_load(code, RAX, KEPT(cold->written, PATCH_X86_64_RAX));
	arch_emit_give_stack(code);
}

static void emit_pop_flags(struct arch_code *code)
{
	EMIT("\x9D"); /* popfq */
	arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
	arch_emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL - 8);
	arch_emit_row(code, 0);
}

void arch_emit_leave(struct arch_code *code, struct arch_cold_hook *cold)
{
	if (cold->own) {
		emit_leave_own(code, cold);
		return;
	}
	if (!arch_has_sahf()) {
		arch_emit_load(code, RAX, KEPT(cold->written, PATCH_X86_64_RAX));
		emit_pop_flags(code);
		return;
	}
	/*
	 * popfq takes four times as long as all of this, and is needed for DF and AC only: what else there is in RFLAGS
	 * beside the arithmetic flags (TF, ID, ...) is as the program had it, or as the procedure has set it on
	 * purpose.
	 */
	EMIT("\xF7\x04\x24\x00\x04\x04\x00");       /* test dword [rsp + ARCH_HOOK_FRAME_FLAGS], DF | AC */
	cold->direction = EMIT_FORWARD("\x0F\x85"); /* jne direction */
	EMIT("\x0F\xB6\x44\x24\x01"                 /* movzx eax, byte [rsp + ARCH_HOOK_FRAME_FLAGS + 1] */
	     "\x24\x08"                             /* and al, OF >> 8 */
	     "\x04\x78"                             /* add al, 128 - (OF >> 8): overflows if it is set */
	     "\x8A\x24\x24"                         /* mov ah, [rsp + ARCH_HOOK_FRAME_FLAGS] */
	     "\x9E");                               /* sahf: all of them but OF */
	arch_emit_load(code, RAX, KEPT(cold->written, PATCH_X86_64_RAX));
	arch_emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL);
	arch_emit_row(code, 0);
}

/* By popfq: the program had DF or AC set. */
void arch_emit_cold_direction(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->direction == 0)
		return;
	arch_emit_row(code, hook_row(cold->own));
	arch_emit_stretch(code, ARCH_HOOK_LEAVES, cold->number);
	arch_emit_landing(code, cold->direction);
	arch_emit_load(code, RAX, KEPT(cold->written, PATCH_X86_64_RAX));
	if (cold->own) {
		EMIT_FIELD("\xFF\xB4\x24", ARCH_OWN_FRAME_FLAGS); /* push qword [rsp + ...] */
		arch_emit_stretch(code, hook_stretch(ARCH_HOOK_PUSHED, ARCH_PUSHED_LEAVES), cold->number);
		EMIT("\x9D");             /* popfq */
		arch_emit_stretch(code, ARCH_HOOK_LEAVES, cold->number);
		arch_emit_give_stack(code);
	} else {
		emit_pop_flags(code);
	}
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	EMIT("\xE9");                     /* jmp done */
	arch_emit_back(code, cold->done);
}
