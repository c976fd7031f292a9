/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The context that the procedure is shown. What is shown of rax, rcx and rdi is there already: hook_emit.c.
 */
#include "arch/x86_64/hook_parts.h"

bool arch_hook_leads(const struct arch_hook *hook)
{
	return hook->exit != NULL && hook->exit->next == 0 && hook->upper != 0 &&
	       hook->upper - hook->lower <= INT32_MAX;
}

/* mov rax, reg */
static void emit_mov_rax(struct arch_code *code, uint8_t reg)
{
	const uint8_t mov[] = { reg >= R8 ? 0x4C : 0x48, 0x89, (uint8_t)(0xC0 | (reg & 7) << 3) };

	arch_emit_bytes(code, mov, sizeof(mov));
}

/* rax: where the way out leads, if that is in the function, else program_counter. Uses rcx. */
static void emit_where_to(struct arch_code *code, const struct arch_hook *hook, uint64_t written)
{
	const uint8_t held = hook->exit->held;
	uint32_t inside;

	if (held == ARCH_HELD_ON_TOP)
		arch_emit_load_program(code, hook->own, 0);
	else if (held == RAX)
		arch_emit_load(code, RAX, KEPT(written, PATCH_X86_64_RAX));
	else if (held == RCX)
		arch_emit_load(code, RAX, KEPT(written, PATCH_X86_64_RCX));
	else if (held == RSP)
		arch_emit_lea_program(code, hook->own, RAX, 0);
	else
		emit_mov_rax(code, held);
	EMIT("\x48\xB9");         /* mov rcx, -lower */
	arch_emit_u64(code, -hook->lower);
	EMIT("\x48\x01\xC1"   /* add rcx, rax */
	     "\x48\x81\xF9"); /* cmp rcx, upper - lower */
	arch_emit_u32(code, (uint32_t)(hook->upper - hook->lower));
	inside = EMIT_FORWARD("\x0F\x82"); /* jb inside */
	EMIT("\x48\xB8");         /* mov rax, program_counter */
	arch_emit_u64(code, hook->program_counter);
	arch_emit_label(code, inside);
}

void arch_emit_context(struct arch_code *code, const struct arch_hook *hook, uint64_t offered,
		       const struct arch_cold_hook *cold)
{
	const struct arch_exit *exit = hook->exit;
	bool leads = arch_hook_leads(hook);

	if (leads) {
		emit_where_to(code, hook, cold->written);
		arch_emit_store(code, ARCH_HOOK_FRAME_REPORTED, RAX);
		arch_emit_load(code, RCX, ARCH_HOOK_FRAME_RECORD);
	}
	arch_emit_lea(code, RDI, ARCH_HOOK_FRAME_CONTEXT);
	arch_emit_stretch(code, ARCH_HOOK_RDI, cold->number);
	if (!leads)
		arch_emit_program_counter(code, hook->program_counter);
	CONTEXT_STORE(program_counter, RAX);
	arch_emit_lea_program(code, hook->own, RAX, hook_above(exit));
	CONTEXT_STORE(stack_pointer, RAX);
	FOR_EACH_REGISTER(offered & ~EARLY, i)
		CONTEXT_STORE(general_purpose_registers[i], arch_hook_hardware[i]);
	EMIT("\x48\x8B\x41\x08"); /* mov rax, [rcx + user_data] */
	CONTEXT_STORE(user_data, RAX);
	if (hook->own)
		arch_emit_load(code, RAX, ARCH_OWN_FRAME_FLAGS);
	else
		EMIT("\x48\x8B\x04\x24"); /* mov rax, [rsp + ARCH_HOOK_FRAME_FLAGS] */
	CONTEXT_STORE(status_register, RAX);
}
