/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Words of a hook's code.
 */
#include "arch/x86_64/hook_code.h"

const uint8_t arch_hook_hardware[PATCH_ARCH_GREGS_COUNT] = {
	RAX, RBX, RCX, RDX, RSI, RDI, RBP, 8, 9, 10, 11, 12, 13, 14, 15
};

void arch_emit_lea_program(struct arch_code *code, bool own, uint8_t reg, int32_t above)
{
	if (!own) {
		arch_emit_lea(code, reg, ARCH_HOOK_FRAME_TOTAL + above);
		return;
	}
	arch_emit_load(code, reg, ARCH_OWN_FRAME_STACK_POINTER);
	if (above != 0)
		emit_slot(code, 0x8D, reg, reg, above);
}

void arch_emit_load_program(struct arch_code *code, bool own, int32_t above)
{
	if (!own) {
		arch_emit_load(code, RAX, ARCH_HOOK_FRAME_TOTAL + above);
		return;
	}
	arch_emit_load(code, RAX, ARCH_OWN_FRAME_STACK_POINTER);
	emit_slot(code, 0x8B, RAX, RAX, above);
}

/* mov rax, value */
static void emit_set_rax(struct arch_code *code, uint64_t value)
{
	if (value <= UINT32_MAX) {
		EMIT("\xB8");
		arch_emit_u32(code, (uint32_t)value);
	} else {
		EMIT("\x48\xB8");
		arch_emit_u64(code, value);
	}
}

void arch_emit_program_counter(struct arch_code *code, uintptr_t reported)
{
	if (code->far || reported <= UINT32_MAX) {
		emit_set_rax(code, reported);
		hook_note_field(code, ARCH_FIELD_REPORTED_LOW, code->size);
	} else {
		EMIT("\x48\x8D\x05"); /* lea rax, [rip + ...] */
		arch_emit_rel32(code, reported, 0);
		hook_note_field(code, ARCH_FIELD_REPORTED, code->size);
	}
}

void arch_emit_to_library(struct arch_code *code, uint32_t field, arch_call_fn *function)
{
	if (code->cold == NULL || code->cold->call_count == ARRAY_SIZE(code->cold->calls)) {
		code->out_of_range = true;
		return;
	}
	code->cold->calls[code->cold->call_count++] = (struct arch_cold_call){ (uintptr_t)function, field };
}

void arch_emit_call_library(struct arch_code *code, arch_call_fn *function)
{
	arch_emit_to_library(code, EMIT_FORWARD("\xFF\x15"), function);
}

void arch_emit_place(struct arch_code *code, uintptr_t slot)
{
	if (code->far) {
		EMIT("\x48\xB9");     /* mov rcx, slot */
		arch_emit_u64(code, slot);
	} else {
		EMIT("\x48\x8D\x0D"); /* lea rcx, [rip + slot] */
		arch_emit_rel32(code, slot, 0);
	}
}

void arch_emit_load_slot(struct arch_code *code, const struct arch_hook *hook)
{
	if (code->far) {
		EMIT("\x48\xA1");     /* mov rax, [slot] */
		arch_emit_u64(code, hook->slot);
		EMIT("\x48\x89\xC1"); /* mov rcx, rax */
	} else {
		EMIT("\x48\x8B\x0D"); /* mov rcx, [rip + slot] */
		arch_emit_rel32(code, hook->slot, 0);
		hook_note_field(code, ARCH_FIELD_SLOT, code->size);
	}
}
