/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure that has changed program_counter or stack_pointer: the thread goes on as that says.
 */
#include "arch/x86_64/hook_parts.h"

/* Has the procedure changed program_counter? jne, and where its field ends. Changes rax. */
static uint32_t emit_if_moved(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->leads)
		arch_emit_load(code, RAX, ARCH_HOOK_FRAME_REPORTED);
	else
		arch_emit_program_counter(code, cold->program_counter);
	emit_slot(code, 0x39, RAX, RSP, CONTEXT(program_counter)); /* cmp [rsp + ...], rax */
	return EMIT_FORWARD("\x0F\x85");
}

void arch_emit_look_whether_moved(struct arch_code *code, struct arch_cold_hook *cold)
{
	cold->moved = emit_if_moved(code, cold);
	arch_emit_lea_program(code, cold->own, RAX, cold->above);
	emit_slot(code, 0x39, RAX, RSP, CONTEXT(stack_pointer)); /* cmp [rsp + ...], rax */
	cold->moved_stack = EMIT_FORWARD("\x0F\x85");
}

static void emit_to_move(struct arch_code *code, const struct arch_cold_hook *cold)
{
	/* For code that does not know what the procedure may write. */
	if (cold->written & MASK(RAX)) {
		arch_emit_load(code, RAX, OFFERED(PATCH_X86_64_RAX));
		arch_emit_store(code, PRIVATE(PATCH_X86_64_RAX), RAX);
	}
	/* jmp [rip + ...] */
	arch_emit_to_library(code, EMIT_FORWARD("\xFF\x25"), cold->own ? libpatch_move_from_own : libpatch_move);
}

/* With another stack only, the thread goes where it would have gone. */
void arch_emit_cold_moved(struct arch_code *code, const struct arch_cold_hook *cold)
{
	uint32_t elsewhere;

	arch_emit_row(code, hook_row(cold->own));
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
	arch_emit_landing(code, cold->moved_stack);
	elsewhere = emit_if_moved(code, cold);
	if (cold->held == ARCH_HELD_ON_TOP) {
		arch_emit_load_program(code, cold->own, 0);
	} else if (cold->held == ARCH_HELD_BELOW) {
		arch_emit_load_program(code, cold->own, -8);
	} else {
		EMIT("\x48\x8D\x05");                 /* lea rax, [rip + done] */
		arch_emit_back(code, cold->done);
	}
	arch_emit_store(code, CONTEXT(program_counter), RAX);
	if (cold->pair == ARCH_PAIR_FIRST)
		emit_to_move(code, cold);
	arch_emit_label(code, elsewhere);
	arch_emit_landing(code, cold->moved);
	if (cold->pair == ARCH_PAIR_FIRST)
		arch_emit_forget_pair(code, cold->slot);
	emit_to_move(code, cold);
}
