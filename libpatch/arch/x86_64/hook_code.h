/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Words of a hook's code: moves from and to its frame, calls of the library, the slot. hook_parts.h has what is said
 * with them. Fixed bytes are written in place, by EMIT, and pieces with a field behind fixed bytes by EMIT_FIELD.
 */
#ifndef LIBPATCH_ARCH_X86_64_HOOK_CODE_H
#define LIBPATCH_ARCH_X86_64_HOOK_CODE_H

#include "arch/canonical.h"
#include "arch/hook.h"
#include "arch/own_stack.h"
#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "arch/x86_64/encode.h"
#include "arch/x86_64/hook_call.h"
#include "arch/x86_64/hook_frame.h"

#include <libpatch/patch.h>

#define MASK(name) ((uint64_t)1 << PATCH_X86_64_##name)
/* Shown before rdi points to the context. */
#define EARLY (MASK(RAX) | MASK(RCX) | MASK(RDI))

/* In the frame, by index of a general purpose register: what the program had, and what the context has. */
#define PRIVATE(i) (ARCH_HOOK_FRAME_REGISTERS + 8 * (int32_t)(i))
#define CONTEXT(field) (ARCH_HOOK_FRAME_CONTEXT + (int32_t)offsetof(struct patch_exec_context, field))
#define OFFERED(i) (CONTEXT(general_purpose_registers) + 8 * (int32_t)(i))
/* Where the program's register is while the hook runs: what the procedure may write is in the context only. */
#define KEPT(written, i) ((written) >> (i) & 1 ? OFFERED(i) : PRIVATE(i))

/* For each index of a general purpose register that is in the mask, a variable. */
#define FOR_EACH_REGISTER(mask, i)                                                                                     \
	for (unsigned int i, rest_ = (unsigned int)(mask);                                                             \
	     rest_ != 0 && (i = (unsigned int)__builtin_ctz(rest_), true); rest_ &= rest_ - 1)

/* Hardware number of general_purpose_registers[i]. */
extern const uint8_t arch_hook_hardware[PATCH_ARCH_GREGS_COUNT];

#define EMIT(literal) arch_emit_bytes(code, literal, sizeof(literal) - 1)

/* Fixed bytes and 32 bits behind them. Returns where the field ends. */
static inline __attribute__((always_inline)) uint32_t emit_field(struct arch_code *code, const char *opcode,
								 size_t size, uint32_t value)
{
	uint8_t bytes[8 + sizeof(value)];

	__builtin_memcpy(bytes, opcode, size);
	__builtin_memcpy(bytes + size, &value, sizeof(value));
	arch_emit_bytes(code, bytes, size + sizeof(value));
	return (uint32_t)code->size;
}
#define EMIT_FIELD(literal, value) emit_field(code, literal, sizeof(literal) - 1, (uint32_t)(value))
/* A rel32 to what is emitted later: arch_emit_label() sets it. */
#define EMIT_FORWARD(literal) EMIT_FIELD(literal, 0)
/* While a hook's code is kept, its field that ends at `field_end` is noted: hook_kept.c. */
static inline void hook_note_field(struct arch_code *code, enum arch_field_kind kind, size_t field_end)
{
	struct arch_kept_fields *fields = code->cold->keeping;

	if (fields != NULL && fields->count++ < ARRAY_SIZE(fields->list))
		fields->list[fields->count - 1] = (struct arch_field){ (uint16_t)field_end, kind };
}
/* In cold code: a rel32 to an offset of the hook. */
static inline void arch_emit_back(struct arch_code *code, size_t to)
{
	arch_emit_u32(code, (uint32_t)(to - (code->size + 4)));
	hook_note_field(code, ARCH_FIELD_BACK, code->size);
}
/* The same, from there to the current offset. */
static inline void arch_emit_landing(struct arch_code *code, size_t field_end)
{
	arch_emit_label(code, field_end);
	hook_note_field(code, ARCH_FIELD_LANDING, field_end);
}

/*
 * opcode reg, [base + offset], 64 bits wide; base: rsp or rdi. Made in one word, and written in one: behind it is room
 * for cold code.
 */
static inline __attribute__((always_inline)) void emit_slot(struct arch_code *code, uint8_t opcode, uint8_t reg,
							    uint8_t base, int32_t offset)
{
	const bool is_short = offset >= -128 && offset < 128;
	const unsigned int at = base == RSP ? 4 : 3; /* with a SIB byte */
	const uint64_t word = (reg >= R8 ? 0x4C : 0x48) | (uint64_t)opcode << 8 |
			      (uint64_t)((is_short ? 0x40 : 0x80) | (reg & 7) << 3 | base) << 16 |
			      (base == RSP ? (uint64_t)0x24 << 24 : 0) | (uint64_t)(uint32_t)offset << 8 * at;

	if (code->size + sizeof(word) <= code->capacity)
		__builtin_memcpy(code->bytes + code->size, &word, sizeof(word));
	code->size += at + (is_short ? 1 : sizeof(offset));
}

/* mov [rsp + offset], reg */
static inline void arch_emit_store(struct arch_code *code, int32_t offset, uint8_t reg)
{
	emit_slot(code, 0x89, reg, RSP, offset);
}
/* mov reg, [rsp + offset] */
static inline void arch_emit_load(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_slot(code, 0x8B, reg, RSP, offset);
}
/* lea reg, [rsp + offset] */
static inline void arch_emit_lea(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_slot(code, 0x8D, reg, RSP, offset);
}

/* mov [rdi + ...], reg: the context's fields where rdi points to it. */
#define CONTEXT_STORE(field, reg) emit_slot(code, 0x89, reg, RDI, (int32_t)offsetof(struct patch_exec_context, field))

/* lea reg, [the program's stack pointer + above]. reg: rax, rcx, rdx */
void arch_emit_lea_program(struct arch_code *code, bool own, uint8_t reg, int32_t above);
/* mov rax, [the program's stack pointer + above] */
void arch_emit_load_program(struct arch_code *code, bool own, int32_t above);
/* mov rax, the address reported. */
void arch_emit_program_counter(struct arch_code *code, uintptr_t reported);

/* By [rip + ...]; arch_emit_cold() puts the address of the function, the library's, there. */
void arch_emit_to_library(struct arch_code *code, uint32_t field, arch_call_fn *function);
/* call [rip + ...] */
void arch_emit_call_library(struct arch_code *code, arch_call_fn *function);

/* rcx: the slot's address, which is the place of a pair. */
void arch_emit_place(struct arch_code *code, uintptr_t slot);
/* rcx: what the slot holds. May change rax. */
void arch_emit_load_slot(struct arch_code *code, const struct arch_hook *hook);

/* Where generated code finds a static thread-local variable: its distance from %fs. */
static inline int32_t hook_tls_offset(const void *variable)
{
	return (int32_t)((uintptr_t)variable - arch_thread_pointer());
}

/* How far the program's stack pointer is from where the hook begins. */
static inline int32_t hook_above(const struct arch_exit *exit)
{
	return exit != NULL ? exit->above : 0;
}

/* The row of a frame. On the thread's own stack, its first word is the program's stack pointer. */
static inline uint8_t hook_row(bool own)
{
	return own ? ARCH_ROW_DEREF : ARCH_ROW_CFA_FRAME;
}

/* A kind of stretch with what its upper bits say. */
static inline uint8_t hook_stretch(uint8_t kind, uint8_t what)
{
	return (uint8_t)(kind | what << ARCH_STRETCH_REGISTER);
}

/* What holds right in front of the call of the procedure, and right behind it. */
static inline uint8_t hook_stretch_in_front(const struct arch_cold_hook *cold)
{
	return cold->paired != 0 ? ARCH_HOOK_WORD : ARCH_HOOK_SAVED;
}

static inline uint8_t hook_stretch_behind(const struct arch_cold_hook *cold)
{
	return cold->pair != ARCH_PAIR_NONE ? ARCH_HOOK_OWES : ARCH_HOOK_CALLED;
}

#endif
