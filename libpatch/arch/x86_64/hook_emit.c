/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The code of a hook: saves what the masks and the System V ABI demand, calls the procedure, puts everything back.
 * Frame layout in hook_frame.h. Nothing of the program's is touched outside the frame; flags are kept from the first
 * instruction to the last.
 *
 * What a hit executes is one straight line without a taken branch. All else goes behind the trampoline's last
 * instruction: arch_emit_cold().
 */
#include "arch/canonical.h"
#include "arch/cpu.h"
#include "arch/hook.h"
#include "arch/own_stack.h"

#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "arch/x86_64/encode.h"
#include "arch/x86_64/hook_call.h"
#include "arch/x86_64/hook_frame.h"
#include "arch/x86_64/own_stack.h"

#include <errno.h>
#include <libpatch/patch.h>

/* Hardware number of general_purpose_registers[i]. */
static const uint8_t hardware[PATCH_ARCH_GREGS_COUNT] = {
	RAX, RBX, RCX, RDX, RSI, RDI, RBP, 8, 9, 10, 11, 12, 13, 14, 15
};

#define MASK(name) ((uint64_t)1 << PATCH_X86_64_##name)
/* What a function may destroy (System V AMD64 psABI, 3.2.1). */
#define CALLER_SAVED                                                                                                   \
	(MASK(RAX) | MASK(RCX) | MASK(RDX) | MASK(RSI) | MASK(RDI) | MASK(R8) | MASK(R9) | MASK(R10) | MASK(R11))

/* Shown before rdi points to the context. */
#define EARLY (MASK(RAX) | MASK(RCX) | MASK(RDI))

#define PRIVATE(i) (ARCH_HOOK_FRAME_REGISTERS + 8 * (i))
#define CONTEXT(field) (ARCH_HOOK_FRAME_CONTEXT + (int32_t)offsetof(struct patch_exec_context, field))
#define OFFERED(i) (CONTEXT(general_purpose_registers) + 8 * (int32_t)(i))

_Static_assert(ARCH_HOOK_FRAME_CONTEXT + sizeof(struct patch_exec_context) <= ARCH_HOOK_FRAME_SIZE, "frame layout");
_Static_assert(ARCH_HOOK_FRAME_TOTAL % 16 == 8, "hook_emit_call()");
_Static_assert(PRIVATE(PATCH_ARCH_GREGS_COUNT) == ARCH_HOOK_FRAME_CONTEXT, "frame layout");
_Static_assert(offsetof(struct patch_exec_context, user_data) == 0x88, "interface");
_Static_assert(offsetof(struct patch_exec_context, extended_states) == 0x90, "interface");

static inline void emit(struct arch_code *code, const char *bytes, size_t size)
{
	arch_emit_bytes(code, bytes, size);
}
#define EMIT(literal) emit(code, literal, sizeof(literal) - 1)

/*
 * opcode reg, [base + offset], 64 bits wide; base: rsp or rdi. Inline, so that each piece has a known number of bytes.
 */
static inline __attribute__((always_inline)) void emit_slot(struct arch_code *code, uint8_t opcode, uint8_t reg,
							    uint8_t base, int32_t offset)
{
	const bool is_short = offset >= -128 && offset < 128;
	const size_t size = base == RSP ? 4 : 3; /* with a SIB byte */
	const uint8_t modrm = (is_short ? 0x40 : 0x80) | (reg & 7) << 3 | base;
	uint8_t bytes[4 + sizeof(offset)] = { reg >= R8 ? 0x4C : 0x48, opcode, modrm, 0x24 };

	__builtin_memcpy(bytes + size, &offset, sizeof(offset)); /* little endian: of a short one the first byte */
	arch_emit_bytes(code, bytes, size + (is_short ? 1 : sizeof(offset)));
}

static void emit_store(struct arch_code *code, int32_t offset, uint8_t reg)
{
	emit_slot(code, 0x89, reg, RSP, offset);
}

static void emit_load(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_slot(code, 0x8B, reg, RSP, offset);
}

static void emit_lea(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_slot(code, 0x8D, reg, RSP, offset);
}

/* A 32-bit displacement is the frame's own here: fixed opcodes of an instruction with [rsp + offset]. */
static void emit_wide(struct arch_code *code, const char *opcode, size_t size, int32_t offset)
{
	emit(code, opcode, size);
	arch_emit_u32(code, (uint32_t)offset);
}
#define EMIT_WIDE(literal, offset) emit_wide(code, literal, sizeof(literal) - 1, offset)

/* lea reg, [the program's stack pointer + above]. reg: rax, rcx, rdx */
static void emit_lea_program(struct arch_code *code, bool own, uint8_t reg, int32_t above)
{
	if (!own) {
		emit_lea(code, reg, ARCH_HOOK_FRAME_TOTAL + above);
		return;
	}
	emit_load(code, reg, ARCH_OWN_FRAME_STACK_POINTER);
	if (above != 0)
		emit_slot(code, 0x8D, reg, reg, above);
}

/* mov rax, [the program's stack pointer + above] */
static void emit_load_program(struct arch_code *code, bool own, int32_t above)
{
	if (!own) {
		emit_load(code, RAX, ARCH_HOOK_FRAME_TOTAL + above);
		return;
	}
	emit_load(code, RAX, ARCH_OWN_FRAME_STACK_POINTER);
	emit_slot(code, 0x8B, RAX, RAX, above);
}

/* The row of a frame. On the thread's own stack, its first word is the program's stack pointer. */
static uint8_t frame_row(bool own)
{
	return own ? ARCH_ROW_DEREF : ARCH_ROW_CFA_FRAME;
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

/* mov rax, reg */
static void emit_mov_rax(struct arch_code *code, uint8_t reg)
{
	const uint8_t mov[] = { reg >= R8 ? 0x4C : 0x48, 0x89, (uint8_t)(0xC0 | (reg & 7) << 3) };

	arch_emit_bytes(code, mov, sizeof(mov));
}

/* Where generated code finds a static thread-local variable: its distance from %fs. */
static int32_t tls_offset(const void *variable)
{
	return (int32_t)((uintptr_t)variable - arch_thread_pointer());
}

/* Fields of the thread's pairs (arch/upcalls.h); what is at `top` is added. */
#define PAIR_FIELD(field) ((int32_t)offsetof(struct hook_pair, field))

static int32_t top_offset(void)
{
	return tls_offset(&libpatch_hook_guard.top);
}

static int32_t pair_offset(int32_t field)
{
	return tls_offset(&libpatch_hook_guard) + field;
}

/* Where errno is. */
static int32_t errno_offset;

int32_t arch_errno_offset(void)
{
	return errno_offset;
}

/* Early: __errno_location() must not be called under the library lock, when it may be patched (I9). */
__attribute__((constructor(101))) static void locate_errno(void)
{
	errno_offset = tls_offset(&errno);
}

/* An opcode with a rel32 to what is emitted later: returns where the field ends. */
static uint32_t emit_forward(struct arch_code *code, const char *opcode, size_t size)
{
	emit(code, opcode, size);
	arch_emit_u32(code, 0);
	return (uint32_t)code->size;
}
#define EMIT_FORWARD(literal) emit_forward(code, literal, sizeof(literal) - 1)

/* A rel32 to an earlier offset. */
static void emit_back(struct arch_code *code, size_t to)
{
	arch_emit_u32(code, (uint32_t)(to - (code->size + 4)));
}

/* Fixed opcodes with a 32-bit %fs displacement. */
static void emit_fs(struct arch_code *code, const char *opcode, size_t size, int32_t offset)
{
	emit(code, opcode, size);
	arch_emit_u32(code, (uint32_t)offset);
}
#define EMIT_FS(literal, offset) emit_fs(code, literal, sizeof(literal) - 1, offset)

/* rax: where the way out leads, if that is in the function, else program_counter. Uses rcx. */
static void emit_where_to(struct arch_code *code, const struct arch_hook *hook)
{
	const uint8_t held = hook->exit->held;
	uint32_t inside;

	if (held == ARCH_HELD_ON_TOP)
		emit_load_program(code, hook->own, 0);
	else if (held == RAX)
		emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
	else if (held == RCX)
		emit_load(code, RAX, PRIVATE(PATCH_X86_64_RCX));
	else if (held == RSP)
		emit_lea_program(code, hook->own, RAX, 0);
	else
		emit_mov_rax(code, held);
	EMIT("\x48\xB9");         /* mov rcx, -lower */
	arch_emit_u64(code, -hook->lower);
	EMIT("\x48\x01\xC1"      /* add rcx, rax */
	     "\x48\x81\xF9");    /* cmp rcx, upper - lower */
	arch_emit_u32(code, (uint32_t)(hook->upper - hook->lower));
	inside = EMIT_FORWARD("\x0F\x82"); /* jb inside */
	EMIT("\x48\xB8");         /* mov rax, program_counter */
	arch_emit_u64(code, hook->program_counter);
	arch_emit_label(code, inside);
}

/* mov rax, the address reported. */
static void emit_program_counter(struct arch_code *code, uintptr_t reported)
{
	if (code->far || reported <= UINT32_MAX) {
		emit_set_rax(code, reported);
	} else {
		EMIT("\x48\x8D\x05"); /* lea rax, [rip + ...] */
		arch_emit_rel32(code, reported, 0);
	}
}

static bool hook_leads(const struct arch_hook *hook)
{
	return hook->exit != NULL && hook->exit->next == 0 && hook->upper != 0 &&
	       hook->upper - hook->lower <= INT32_MAX;
}

/* mov [rdi + offset], reg, for offsets in the context. */
static void emit_context_store(struct arch_code *code, size_t offset, uint8_t reg)
{
	emit_slot(code, 0x89, reg, RDI, (int32_t)offset);
}
#define CONTEXT_STORE(field, reg) emit_context_store(code, offsetof(struct patch_exec_context, field), reg)

/* How far the program's stack pointer is from where the hook begins. */
static int32_t exit_above(const struct arch_exit *exit)
{
	return exit != NULL ? exit->above : 0;
}

/* rcx holds the record, before and after, rdi points to the context afterwards, RFLAGS are in rax. */
static void emit_context(struct arch_code *code, const struct arch_hook *hook, uint64_t offered, uint8_t number)
{
	const struct arch_exit *exit = hook->exit;
	bool leads = hook_leads(hook);

	if (leads) {
		emit_where_to(code, hook);
		emit_store(code, ARCH_HOOK_FRAME_REPORTED, RAX);
		emit_load(code, RCX, ARCH_HOOK_FRAME_RECORD);
	}
	emit_lea(code, RDI, ARCH_HOOK_FRAME_CONTEXT);
	arch_emit_stretch(code, ARCH_HOOK_RDI, number);
	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i)
		if (offered & ~EARLY & (uint64_t)1 << i)
			emit_context_store(code, offsetof(struct patch_exec_context, general_purpose_registers) + 8 * i,
					   hardware[i]);
	if (!leads)
		emit_program_counter(code, hook->program_counter);
	CONTEXT_STORE(program_counter, RAX);
	emit_lea_program(code, hook->own, RAX, exit_above(exit));
	CONTEXT_STORE(stack_pointer, RAX);
	EMIT("\x48\x8B\x41\x08"); /* mov rax, [rcx + user_data] */
	CONTEXT_STORE(user_data, RAX);
	if (hook->own)
		emit_load(code, RAX, ARCH_OWN_FRAME_FLAGS);
	else
		EMIT("\x48\x8B\x04\x24"); /* mov rax, [rsp + ARCH_HOOK_FRAME_FLAGS] */
	CONTEXT_STORE(status_register, RAX);
}

/* By [rip + ...]; arch_emit_cold() puts the address of the function, the library's, there. */
static void emit_to_library(struct arch_code *code, uint32_t field, void (*function)(void))
{
	if (code->cold == NULL || code->cold->call_count == ARRAY_SIZE(code->cold->calls)) {
		code->out_of_range = true;
		return;
	}
	code->cold->calls[code->cold->call_count++] = (struct arch_cold_call){ (uintptr_t)function, field };
}

/* call [rip + ...] */
static void emit_call_library(struct arch_code *code, void (*function)(void))
{
	emit_to_library(code, EMIT_FORWARD("\xFF\x15"), function);
}

/* Has the procedure changed program_counter? jne, and where its field ends. Changes rax. */
static uint32_t emit_if_moved(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->leads)
		emit_load(code, RAX, ARCH_HOOK_FRAME_REPORTED);
	else
		emit_program_counter(code, cold->program_counter);
	emit_slot(code, 0x39, RAX, RSP, CONTEXT(program_counter)); /* cmp [rsp + ...], rax */
	return EMIT_FORWARD("\x0F\x85");
}

/* Where the thread goes on, and with what stack, is the procedure's to say. All registers are the program's but rax. */
static void emit_look_whether_moved(struct arch_code *code, struct arch_cold_hook *cold)
{
	cold->moved = emit_if_moved(code, cold);
	emit_lea_program(code, cold->own, RAX, cold->above);
	emit_slot(code, 0x39, RAX, RSP, CONTEXT(stack_pointer)); /* cmp [rsp + ...], rax */
	cold->moved_stack = EMIT_FORWARD("\x0F\x85");
}

static void emit_to_move(struct arch_code *code, bool own)
{
	/* jmp [rip + ...] */
	emit_to_library(code, EMIT_FORWARD("\xFF\x25"), own ? libpatch_move_from_own : libpatch_move);
}

/* rcx: the place of the pair, which is the address of the slot. */
static void emit_place(struct arch_code *code, uintptr_t slot)
{
	if (code->far) {
		EMIT("\x48\xB9");     /* mov rcx, slot */
		arch_emit_u64(code, slot);
	} else {
		EMIT("\x48\x8D\x0D"); /* lea rcx, [rip + slot] */
		arch_emit_rel32(code, slot, 0);
	}
}

/* rcx: the execution that the pair is of, as the first call has left the stack pointer. */
static void emit_execution(struct arch_code *code, uintptr_t slot)
{
	emit_place(code, slot);
	emit_slot(code, 0x03, RCX, RSP, CONTEXT(stack_pointer)); /* add rcx, [rsp + ...] */
}

/*
 * The instruction is not executed, so there is no second call. All registers are the program's but rax. Since the guard
 * was cleared, handlers may have noted pairs above this one, so that the library looks for it, with the guard set.
 */
static void emit_forget_pair(struct arch_code *code, uintptr_t slot)
{
	const int32_t guard = tls_offset(&libpatch_hook_guard.guard);

	EMIT_FS("\x64\x48\x89\x24\x25", guard);     /* mov fs:[guard], rsp */
	emit_store(code, PRIVATE(PATCH_X86_64_RCX), RCX);
	emit_execution(code, slot);
	emit_call_library(code, libpatch_forget_pair);
	emit_load(code, RCX, PRIVATE(PATCH_X86_64_RCX));
	EMIT_FS("\x64\x48\xC7\x04\x25", guard);     /* mov qword fs:[guard], 0 */
	arch_emit_u32(code, 0);
}

/* With another stack only, the thread goes where it would have gone. */
static void emit_moved(struct arch_code *code, const struct arch_cold_hook *cold)
{
	uint32_t elsewhere;

	arch_emit_row(code, frame_row(cold->own));
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
	arch_emit_label(code, cold->moved_stack);
	elsewhere = emit_if_moved(code, cold);
	if (cold->held == ARCH_HELD_ON_TOP) {
		emit_load_program(code, cold->own, 0);
	} else if (cold->held == ARCH_HELD_BELOW) {
		emit_load_program(code, cold->own, -8);
	} else {
		EMIT("\x48\x8D\x05");                 /* lea rax, [rip + done] */
		emit_back(code, cold->done);
	}
	emit_store(code, CONTEXT(program_counter), RAX);
	if (cold->pair == ARCH_PAIR_FIRST)
		emit_to_move(code, cold->own);
	arch_emit_label(code, elsewhere);
	arch_emit_label(code, cold->moved);
	if (cold->pair == ARCH_PAIR_FIRST)
		emit_forget_pair(code, cold->slot);
	emit_to_move(code, cold->own);
}

/* What holds right in front of the call, and right behind it. */
static uint8_t stretch_in_front(const struct arch_cold_hook *cold)
{
	return cold->paired != 0 ? ARCH_HOOK_WORD : ARCH_HOOK_SAVED;
}

static uint8_t stretch_behind(const struct arch_cold_hook *cold)
{
	return cold->pair != ARCH_PAIR_NONE ? ARCH_HOOK_OWES : ARCH_HOOK_CALLED;
}

/*
 * rdi, esi, and rcx, the record, are set. The base of the frame is a multiple of 16 where the program's stack pointer
 * is what the ABI says for a function's entry, and in functions without a frame of their own; within others there is
 * mostly one word to be put on top. emit_unaligned() does it where the guess is wrong.
 */
static void hook_emit_call(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	const uint8_t row = ARCH_ROW_CFA_FRAME;

	if (hook->own) {
		EMIT("\xFF\x11");                         /* call [rcx + procedure] */
		arch_emit_stretch(code, stretch_behind(cold), cold->number);
		return;
	}
	if (hook->at_entry) {
		EMIT("\x40\xF6\xC4\x0F");                 /* test spl, 15 */
		cold->unaligned = EMIT_FORWARD("\x0F\x85"); /* jne unaligned */
		EMIT("\xFF\x11");                         /* call [rcx + procedure] */
		arch_emit_stretch(code, stretch_behind(cold), cold->number);
		cold->called = (uint32_t)code->size;
		cold->at_entry = true;
		return;
	}
	EMIT("\x50");                                     /* push rax */
	arch_emit_row(code, row + 1);
	EMIT("\x40\xF6\xC4\x0F");                         /* test spl, 15 */
	cold->unaligned = EMIT_FORWARD("\x0F\x85");         /* jne unaligned */
	EMIT("\xFF\x11");                                 /* call [rcx + procedure] */
	arch_emit_stretch(code, stretch_behind(cold), cold->number);
	EMIT("\x58");                                     /* pop rax */
	arch_emit_row(code, row);
	cold->called = (uint32_t)code->size;
}

/*
 * One word more than hook_emit_call() has guessed, or less. A stack that is not even a multiple of 8 the library
 * aligns.
 */
static void emit_unaligned(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const uint8_t row = ARCH_ROW_CFA_FRAME;

	arch_emit_row(code, cold->at_entry ? row : row + 1);
	arch_emit_stretch(code, stretch_in_front(cold), cold->number);
	arch_emit_label(code, cold->unaligned);
	arch_emit_u8(code, cold->at_entry ? 0x50 : 0x58); /* push rax, pop rax */
	arch_emit_row(code, cold->at_entry ? row + 1 : row);
	EMIT("\x40\xF6\xC4\x0F"                         /* test spl, 15 */
	     "\x75\x04"                                 /* jne odd */
	     "\xFF\x11");                               /* call [rcx + procedure] */
	arch_emit_stretch(code, stretch_behind(cold), cold->number);
	EMIT("\xEB\x06");                               /* jmp back */
	arch_emit_stretch(code, stretch_in_front(cold), cold->number);
	emit_call_library(code, libpatch_call_aligned);   /* odd: */
	arch_emit_stretch(code, stretch_behind(cold), cold->number);
	if (cold->at_entry) {                             /* back: */
		EMIT("\x58");                             /* pop rax */
		arch_emit_row(code, row);
	}
	EMIT("\xE9");                                     /* jmp called */
	emit_back(code, cold->called);
}

/* rcx: what the slot holds. May change rax. */
static void emit_load_slot(struct arch_code *code, const struct arch_hook *hook)
{
	if (code->far) {
		EMIT("\x48\xA1");     /* mov rax, [slot] */
		arch_emit_u64(code, hook->slot);
		EMIT("\x48\x89\xC1"); /* mov rcx, rax */
	} else {
		EMIT("\x48\x8B\x0D"); /* mov rcx, [rip + slot] */
		arch_emit_rel32(code, hook->slot, 0);
	}
}

/* ---- pairs ------------------------------------------------------------------------------------------------------ */

/* rcx += the program's stack pointer + above */
static void emit_add_program(struct arch_code *code, bool own, int32_t above)
{
	if (own) {
		emit_slot(code, 0x03, RCX, RSP, ARCH_OWN_FRAME_STACK_POINTER); /* add rcx, [rsp] */
		EMIT("\x48\x8D\x89");     /* lea rcx, [rcx + ...] */
		arch_emit_u32(code, (uint32_t)above);
	} else {
		EMIT("\x48\x8D\x8C\x0C"); /* lea rcx, [rsp + rcx + ...] */
		arch_emit_u32(code, (uint32_t)(ARCH_HOOK_FRAME_TOTAL + above));
	}
}

/* rcx: the record that the first hook has noted. It stays noted until the procedure has returned. */
static void emit_load_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	cold->look = (uint32_t)code->size;
	if (hook->pair == ARCH_PAIR_SECOND_ANYWHERE) {
		emit_place(code, hook->slot);
		emit_call_library(code, libpatch_find_pair_at);
		arch_emit_stretch(code, ARCH_HOOK_ASKED, cold->number);
		cold->unpaired = EMIT_FORWARD("\x0F\x85");         /* jne unpaired */
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		EMIT_FS("\x64\x8B\x04\x25", top_offset());        /* mov eax, fs:[top] */
	} else {
		EMIT_FS("\x64\x8B\x04\x25", top_offset());        /* mov eax, fs:[top] */
		emit_place(code, hook->slot);
		emit_add_program(code, hook->own, exit_above(hook->exit) - hook->change); /* the execution */
		EMIT_FS("\x64\x48\x3B\x88", pair_offset(PAIR_FIELD(execution))); /* cmp rcx, fs:[rax + execution] */
		cold->unpaired = EMIT_FORWARD("\x0F\x85");         /* jne unpaired */
	}
	EMIT_FS("\x64\x48\x8B\x88", pair_offset(PAIR_FIELD(record))); /* mov rcx, fs:[rax + record] */
}

/* eax: `top`. ZF is set when there are no pairs: `top` is never 1, and `gone_past` is 1 or 0. */
static void emit_whether_pairs(struct arch_code *code)
{
	EMIT_FS("\x64\x8B\x04\x25", top_offset());                /* mov eax, fs:[top] */
	EMIT_FS("\x64\x3B\x04\x25", tls_offset(&libpatch_hook_guard.gone_past)); /* cmp eax, fs:[gone_past] */
}

/* Behind the first call: note the pair, above those that are there. Uses rax and rcx. */
static void emit_note_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	const int32_t next = sizeof(struct hook_pair);

	emit_whether_pairs(code);
	cold->crowded = EMIT_FORWARD("\x0F\x85");                  /* jne crowded */
	cold->room = (uint32_t)code->size;
	emit_load(code, RCX, ARCH_HOOK_FRAME_RECORD);
	EMIT_FS("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(record)));
	emit_load(code, RCX, CONTEXT(stack_pointer));
	EMIT_FS("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(stack_pointer)));
	cold->place = (uint32_t)code->size;
	emit_execution(code, hook->slot);
	EMIT_FS("\x64\x48\x89\x88", pair_offset(next + PAIR_FIELD(execution)));
	EMIT("\x83\xC0");                                         /* add eax, size of a pair */
	arch_emit_u8(code, (uint8_t)next);
	EMIT_FS("\x64\x89\x04\x25", top_offset());                /* mov fs:[top], eax */
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
}

/* Behind the second call: the top pair is complete. rax is 0; uses rcx. */
static void emit_drop_pair(struct arch_code *code, const struct arch_cold_hook *cold)
{
	EMIT_FS("\x64\x8B\x0C\x25", top_offset());                /* mov ecx, fs:[top] */
	EMIT_FS("\x64\x48\x89\x81", pair_offset(PAIR_FIELD(execution))); /* mov fs:[rcx + execution], rax */
	EMIT_FS("\x64\x48\x89\x81", pair_offset(PAIR_FIELD(record))); /* mov fs:[rcx + record], rax */
	EMIT("\x83\xE9");                                         /* sub ecx, size of a pair */
	arch_emit_u8(code, sizeof(struct hook_pair));
	EMIT_FS("\x64\x89\x0C\x25", top_offset());                /* mov fs:[top], ecx */
	arch_emit_stretch(code, ARCH_HOOK_CALLED, cold->number);
}

/*
 * A closed exit: what the entry has noted for this call does not stay. Exits close one after the other, and another one
 * may be open still when the next call, which the entry was closed for, comes there.
 */
static void emit_pass_exit(struct arch_code *code, const struct arch_cold_hook *cold)
{
	emit_lea_program(code, cold->own, RCX, cold->above);
	emit_call_library(code, libpatch_pass_exit);
	EMIT("\x31\xC9");                             /* xor ecx, ecx */
}

/* The cold code of pairs; what of it belongs in front of that of `closed`. */
static void emit_cold_pair(struct arch_code *code, const struct arch_cold_hook *cold)
{
	uint32_t none;

	if (cold->unpaired != 0) {
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_label(code, cold->unpaired);
		if (cold->pair == ARCH_PAIR_SECOND) {
			emit_call_library(code, libpatch_find_pair);
			arch_emit_stretch(code, ARCH_HOOK_ASKED, cold->number);
			EMIT("\x0F\x84");             /* je look */
			emit_back(code, cold->look);
		}
		arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
		EMIT("\x31\xC9");                     /* xor ecx, ecx */
	} else if (cold->crowded != 0) {
		arch_emit_stretch(code, ARCH_HOOK_OWES, cold->number);
		arch_emit_label(code, cold->crowded);
		emit_place(code, cold->slot);
		emit_call_library(code, libpatch_make_room);
		EMIT_FS("\x64\x8B\x04\x25", top_offset()); /* mov eax, fs:[top] */
		EMIT("\xE9");                         /* jmp room */
		emit_back(code, cold->room);
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_label(code, cold->closed);
		emit_whether_pairs(code);
		none = EMIT_FORWARD("\x0F\x84");       /* je none */
		emit_place(code, cold->slot);
		emit_call_library(code, libpatch_pass_pair);
		arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
		EMIT("\x31\xC9");                     /* xor ecx, ecx */
		arch_emit_label(code, none);
	} else {
		arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
		arch_emit_label(code, cold->closed);
		if (cold->paired != 0)
			emit_pass_exit(code, cold);
	}
}

/* ---- entries and exits of functions ------------------------------------------------------------------------------ */

#define LEAF_WORDS ((uint8_t)offsetof(struct shadow_leaf, words))
_Static_assert(offsetof(struct shadow_leaf, page) == 0 && offsetof(struct shadow_leaf, words) < 128, "emit_shadow()");
_Static_assert(offsetof(struct hook_record, pair) == 16, "emit_shadow()");

/* An indirect jump may stay in the function: the context says where it leads then, and not where the hook is. */
static void emit_skip_inside(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	if (!hook_leads(hook))
		return;
	emit_program_counter(code, hook->program_counter);
	emit_slot(code, 0x39, RAX, RDI, (int32_t)offsetof(struct patch_exec_context, program_counter));
	cold->inside = EMIT_FORWARD("\x0F\x85"); /* jne inside */
}

/*
 * rcx holds the record, rdi points to the context: both stay. Uses rax, rdx, rsi, and r8, which has what is taken from
 * the word until the call.
 */
static void emit_shadow(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	if (hook->shadow == ARCH_SHADOW_NONE)
		return;
	if (hook->shadow == ARCH_SHADOW_EXIT)
		emit_skip_inside(code, hook, cold);
	cold->shadow = (uint32_t)code->size;
	EMIT_FS("\x64\x48\x8B\x14\x25", tls_offset(&libpatch_hook_guard.shadow)); /* mov rdx, fs:[shadow] */
	emit_lea_program(code, hook->own, RAX, exit_above(hook->exit));
	EMIT("\x48\x8B\x32"            /* mov rsi, [rdx + page] */
	     "\x48\x31\xC6"            /* xor rsi, rax */
	     "\x48\xC1\xEE\x0C");      /* shr rsi, 12 */
	cold->shadowed = EMIT_FORWARD("\x0F\x85"); /* jne shadowed */
	EMIT("\x25\xF8\x0F\x00\x00");  /* and eax, 0xff8 */
	if (hook->shadow == ARCH_SHADOW_ENTRY) {
		EMIT("\x48\x8B\x71\x10"   /* mov rsi, [rcx + pair] */
		     "\x48\x89\x74\x02");  /* mov [rdx + rax + words], rsi */
		arch_emit_u8(code, LEAF_WORDS);
		cold->shadowless = (uint32_t)code->size;
		return;
	}
	EMIT("\x4C\x8B\x44\x02");       /* mov r8, [rdx + rax + words] */
	arch_emit_u8(code, LEAF_WORDS);
	EMIT("\x4C\x89\xC6"            /* mov rsi, r8 */
	     "\x48\x2B\x71\x10"        /* sub rsi, [rcx + pair] */
	     "\x48\xC1\xEE\x20");      /* shr rsi, 32 */
	cold->mispaired = EMIT_FORWARD("\x0F\x85"); /* jne mispaired */
	cold->paired = (uint32_t)code->size;
	arch_emit_stretch(code, ARCH_HOOK_WORD, cold->number);
	EMIT("\x48\xC7\x44\x02");       /* mov qword [rdx + rax + words], 0 */
	arch_emit_u8(code, LEAF_WORDS);
	arch_emit_u32(code, 0);
}

static void emit_cold_shadow(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->shadowed == 0)
		return;
	arch_emit_row(code, frame_row(cold->own));
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	arch_emit_label(code, cold->shadowed);
	emit_lea_program(code, cold->own, RDX, cold->above);
	emit_call_library(code, libpatch_find_shadow);
	EMIT("\x0F\x84");                 /* je shadow */
	emit_back(code, cold->shadow);
	if (cold->shadowless != 0) {
		EMIT("\xE9");              /* jmp shadowless */
		emit_back(code, cold->shadowless);
		return;
	}
	if (cold->inside != 0)
		arch_emit_label(code, cold->inside);
	EMIT("\xE9");                      /* jmp uncalled */
	emit_back(code, cold->uncalled);
	/* The procedure is a list's, and is to see the word. */
	arch_emit_label(code, cold->mispaired);
	EMIT("\x83\x79\x14\xFF"          /* cmp dword [rcx + pair + 4], HOOK_PAIR_ANY */
	     "\x0F\x85");                /* jne uncalled */
	emit_back(code, cold->uncalled);
	emit_store(code, ARCH_HOOK_FRAME_REPORTED, R8);
	EMIT("\xE9");                      /* jmp paired */
	emit_back(code, cold->paired);
}

/* ---- the hook --------------------------------------------------------------------------------------------------- */

/* General purpose registers that are loaded from the context. */
static uint64_t hook_written(const struct arch_hook *hook)
{
	return (hook->write | hook->clobber) & ARCH_GENERAL;
}

uint16_t arch_hook_writes(const struct arch_hook *hook)
{
	const uint64_t written = hook_written(hook);
	unsigned int numbers = 0;

	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i)
		if (written & (uint64_t)1 << i)
			numbers |= 1U << hardware[i];
	return hook->action == ARCH_CALL_PROCEDURE ? (uint16_t)numbers : 0;
}

/* Upper bits of a kind. */
static uint8_t stretch_of(uint8_t kind, uint8_t what)
{
	return (uint8_t)(kind | what << ARCH_STRETCH_REGISTER);
}

/*
 * The frame on the thread's own stack. What leads there changes no flag, and has no register but rcx, which is in
 * `kept` until the frame is there: jrcxz tells whether the stack is free. Only while flags are on top of the frame is
 * its first word not what rows say: no call is made there.
 */
static void emit_take_stack(struct arch_code *code, struct arch_cold_hook *cold)
{
	const uint8_t number = cold->number;

	EMIT_FS("\x64\x48\x89\x0C\x25", tls_offset(&libpatch_hook_guard.kept)); /* mov fs:[kept], rcx */
	EMIT_FS("\x64\x48\x8B\x0C\x25", tls_offset(&libpatch_hook_guard.own));  /* mov rcx, fs:[own] */
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT("\x48\x8B\x09"          /* mov rcx, [rcx + free] */
	     "\xE3\x02"              /* jrcxz busy */
	     "\xEB\x05");            /* jmp free */
	cold->busy = EMIT_FORWARD("\xE9"); /* busy: jmp ... */
	cold->free = (uint32_t)code->size;
	EMIT("\x48\x89\x21"          /* mov [rcx + ARCH_OWN_FRAME_STACK_POINTER], rsp */
	     "\x48\xC7\x81");        /* mov qword [rcx + ARCH_OWN_FRAME_FREE], 0 */
	arch_emit_u32(code, ARCH_OWN_FRAME_FREE);
	arch_emit_u32(code, 0);
	EMIT("\x48\x89\xCC");         /* mov rsp, rcx */
	arch_emit_row(code, ARCH_ROW_DEREF);
	EMIT("\x9C");                 /* pushfq */
	arch_emit_stretch(code, stretch_of(ARCH_HOOK_PUSHED, ARCH_PUSHED_OWN), number);
	EMIT_WIDE("\x8F\x84\x24", ARCH_OWN_FRAME_FLAGS); /* pop qword [rsp + ...] */
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT_FS("\x64\x48\x8B\x0C\x25", tls_offset(&libpatch_hook_guard.kept)); /* mov rcx, fs:[kept] */
	arch_emit_stretch(code, ARCH_HOOK_FLAGS, number);
}

/* The frame's place is free, and then left: a handler that comes in between is on this stack, and makes it not free. */
static void emit_give_stack(struct arch_code *code)
{
	emit_store(code, ARCH_OWN_FRAME_FREE, RSP);
	emit_load(code, RSP, ARCH_OWN_FRAME_STACK_POINTER);
	arch_emit_row(code, 0);
}

/* To libpatch_own_stack, and the landing: own_stack.h says what is where. */
static void emit_cold_busy(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const uint8_t number = cold->number;

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	arch_emit_label(code, cold->busy);
	EMIT("\x48\x8D\x0D\x0F\0\0\0"); /* lea rcx, [rip + landing] */
	EMIT_FS("\x64\x48\x87\x0C\x25", tls_offset(&libpatch_hook_guard.own)); /* xchg fs:[own], rcx */
	arch_emit_stretch(code, stretch_of(ARCH_HOOK_OWN, ARCH_OWN_RCX), number);
	emit_to_library(code, EMIT_FORWARD("\xFF\x25"), libpatch_own_stack); /* jmp [rip + ...] */
	arch_emit_stretch(code, stretch_of(ARCH_HOOK_OWN, ARCH_OWN_NONE), number);
	/* OWN_LANDING_NONE: mov rcx, [rip + ...] */
	emit_to_library(code, EMIT_FORWARD("\x48\x8B\x0D"), (arch_call_fn *)(uintptr_t)&libpatch_own_none);
	EMIT_FS("\x64\x48\x89\x0C\x25", tls_offset(&libpatch_hook_guard.own));  /* mov fs:[own], rcx */
	EMIT_FS("\x64\x48\x8B\x0C\x25", tls_offset(&libpatch_hook_guard.kept)); /* mov rcx, fs:[kept] */
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	EMIT("\xE9");                 /* jmp done */
	emit_back(code, cold->done);
	arch_emit_stretch(code, ARCH_HOOK_OWN, number);
	EMIT("\xE9");                 /* OWN_LANDING_GO: jmp free */
	emit_back(code, cold->free);
	/* OWN_LANDING_AGAIN: mov rcx, fs:[kept] */
	EMIT_FS("\x64\x48\x8B\x0C\x25", tls_offset(&libpatch_hook_guard.kept));
	EMIT("\xE9");                 /* jmp begins */
	emit_back(code, cold->begins);
}

static void emit_leave_own(struct arch_code *code, struct arch_cold_hook *cold)
{
	EMIT_WIDE("\xF7\x84\x24", ARCH_OWN_FRAME_FLAGS); /* test dword [rsp + ...], DF | AC */
	arch_emit_u32(code, 0x40400);
	cold->direction = EMIT_FORWARD("\x0F\x85");       /* jne direction */
	EMIT_WIDE("\x0F\xB6\x84\x24", ARCH_OWN_FRAME_FLAGS + 1); /* movzx eax, byte [rsp + ... + 1] */
	EMIT("\x24\x08"                                  /* and al, OF >> 8 */
	     "\x04\x78");                                /* add al, 128 - (OF >> 8) */
	EMIT_WIDE("\x8A\xA4\x24", ARCH_OWN_FRAME_FLAGS); /* mov ah, [rsp + ...] */
	EMIT("\x9E");                                    /* sahf */
	emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
	emit_give_stack(code);
}

/* RFLAGS as they were, rax, the stack. */
static void hook_emit_leave(struct arch_code *code, struct arch_cold_hook *cold)
{
	if (cold->own) {
		emit_leave_own(code, cold);
		return;
	}
	if (!arch_has_sahf()) {
		emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
		EMIT("\x9D"); /* popfq */
		arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
		emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL - 8);
		arch_emit_row(code, 0);
		return;
	}
	/*
	 * popfq takes four times as long as all of this, and is needed for DF and AC only: what else there is in RFLAGS
	 * beside the arithmetic flags (TF, ID, ...) is as the program had it, or as the procedure has set it on
	 * purpose.
	 */
	EMIT("\xF7\x04\x24\x00\x04\x04\x00"); /* test dword [rsp + ARCH_HOOK_FRAME_FLAGS], DF | AC */
	cold->direction = EMIT_FORWARD("\x0F\x85"); /* jne direction */
	EMIT("\x0F\xB6\x44\x24\x01"  /* movzx eax, byte [rsp + ARCH_HOOK_FRAME_FLAGS + 1] */
	     "\x24\x08"              /* and al, OF >> 8 */
	     "\x04\x78"              /* add al, 128 - (OF >> 8): overflows if it is set */
	     "\x8A\x24\x24"          /* mov ah, [rsp + ARCH_HOOK_FRAME_FLAGS] */
	     "\x9E");                /* sahf: all of them but OF */
	emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
	emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL);
	arch_emit_row(code, 0);
}

static void emit_count_stretch(struct arch_code *code, uint8_t kind, size_t begin)
{
	arch_emit_stretch(code, kind, (uint8_t)(code->size - begin));
}

/*
 * Without a call, a guard or a frame: what is needed of registers is pushed below the red zone. No instruction changes
 * flags but an atomic increment, around which they are kept in ax. A slot that is 0 is a closed hook.
 */
static void emit_count(struct arch_code *code, const struct arch_hook *hook)
{
	const uint8_t row = ARCH_HOOK_RED_ZONE / 8;
	const size_t begin = code->size;
	size_t closed;

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	EMIT("\x48\x8D\x64\x24\x80"); /* lea rsp, [rsp - 128] */
	arch_emit_row(code, row);
	EMIT("\x51");                 /* push rcx */
	arch_emit_row(code, row + 1);
	EMIT("\x50");                 /* push rax */
	arch_emit_row(code, row + 2);
	emit_count_stretch(code, ARCH_COUNT_SAVED, begin);
	emit_load_slot(code, hook);
	EMIT("\xE3\x00");             /* jrcxz closed */
	closed = code->size;
	/* First: whoever is put back to the beginning stamps once more, and does not count twice. */
	if (hook->stamp) {
		EMIT("\x52");             /* push rdx */
		arch_emit_row(code, row + 3);
		emit_count_stretch(code, ARCH_COUNT_PUSHED, begin);
		EMIT("\x50");             /* push rax */
		arch_emit_row(code, row + 4);
		/* Put together in memory: a shift would change flags. */
		EMIT("\x0F\x31"          /* rdtsc */
		     "\x89\x04\x24"      /* mov [rsp], eax */
		     "\x89\x54\x24\x04"  /* mov [rsp + 4], edx */
		     "\x58");            /* pop rax */
		arch_emit_row(code, row + 3);
		if (hook->action == ARCH_COUNT_THREAD)
			EMIT("\x64");     /* fs: */
		EMIT("\x48\x89\x41\x08"  /* mov [rcx + 8], rax */
		     "\x5A");            /* pop rdx */
		arch_emit_row(code, row + 2);
		emit_count_stretch(code, ARCH_COUNT_SAVED, begin);
	}
	if (hook->action != ARCH_COUNT_ATOMIC) {
		const char *prefix = hook->action == ARCH_COUNT_THREAD ? "\x64" : "\x3E"; /* fs:, ds: */

		arch_emit_bytes(code, prefix, 1);
		EMIT("\x48\x8B\x01");     /* mov rax, [rcx] */
		EMIT("\x48\x8D\x40\x01"); /* lea rax, [rax + 1] */
		arch_emit_bytes(code, prefix, 1);
		EMIT("\x48\x89\x01");     /* mov [rcx], rax */
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	} else if (arch_has_sahf()) {
		EMIT("\x9F"              /* lahf */
		     "\x0F\x90\xC0"      /* seto al */
		     "\xF0\x48\xFF\x01"); /* lock inc qword [rcx] */
		arch_emit_stretch(code, ARCH_COUNTED_AX, 0);
		EMIT("\x04\x7F"          /* add al, 127 */
		     "\x9E");            /* sahf */
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	} else {
		EMIT("\x9C");             /* pushfq */
		arch_emit_row(code, row + 3);
		EMIT("\xF0\x48\xFF\x01"); /* lock inc qword [rcx] */
		arch_emit_stretch(code, ARCH_COUNTED_FLAGS, 0);
		EMIT("\x9D");            /* popfq */
		arch_emit_row(code, row + 2);
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	}
	if (code->bytes != NULL && closed <= code->capacity)
		code->bytes[closed - 1] = (uint8_t)(code->size - closed);
	EMIT("\x58");                 /* pop rax */
	arch_emit_row(code, row + 1);
	EMIT("\x59");                 /* pop rcx */
	arch_emit_row(code, row);
	emit_lea(code, RSP, ARCH_HOOK_RED_ZONE);
	arch_emit_row(code, 0);
}

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook)
{
	const int32_t guard = tls_offset(&libpatch_hook_guard.guard);
	const int32_t error = errno_offset != 0 ? errno_offset : tls_offset(&errno);
	uint64_t destroyed = CALLER_SAVED;
	uint64_t written = hook_written(hook);
	uint64_t offered = written | (hook->read & ARCH_GENERAL);
	arch_call_fn *extended = arch_call_with_state(hook->clobber, hook->x87_empty);
	struct arch_cold_hook unused, *cold = &unused;
	uint8_t number = 0;

	if (hook->action == ARCH_DIVERT) {
		arch_emit_row(code, 0);
		arch_emit_jmp_slot(code, hook->slot);
		return;
	}
	if (hook->action != ARCH_CALL_PROCEDURE) {
		emit_count(code, hook);
		return;
	}
	if (code->cold != NULL && code->cold->hook_count < ARRAY_SIZE(code->cold->hooks)) {
		number = (uint8_t)code->cold->hook_count++;
		cold = &code->cold->hooks[number];
	} else {
		code->out_of_range = true;
	}
	*cold = (struct arch_cold_hook){
		.number = number,
		.begins = (uint32_t)code->size,
		.written = (uint16_t)written,
		.original = code->original,
		.pushed = code->pushed,
		.pair = hook->pair,
		.slot = hook->slot,
		.program_counter = hook->program_counter,
		/* At an exit, what is called is told the hook's address. */
		.leads = hook->shadow != ARCH_SHADOW_EXIT && hook_leads(hook),
		.above = exit_above(hook->exit),
		.own = hook->own,
		.held = hook->exit != NULL ? hook->exit->held : 0,
		.on_way = hook->exit != NULL,
	};

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_HOOK_BEGINS, number);
	if (hook->own) {
		emit_take_stack(code, cold);
	} else {
		emit_lea(code, RSP, -(ARCH_HOOK_FRAME_TOTAL - 8));
		arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
		EMIT("\x9C"); /* pushfq */
		arch_emit_row(code, ARCH_ROW_CFA_FRAME);
		arch_emit_stretch(code, ARCH_HOOK_FLAGS, number);
	}
	emit_store(code, PRIVATE(PATCH_X86_64_RAX), RAX);
	arch_emit_stretch(code, ARCH_HOOK_RAX, number);
	if (offered & MASK(RAX))
		emit_store(code, OFFERED(PATCH_X86_64_RAX), RAX);

	/*
	 * The order of the next four is what quiescence rests on (runtime/hook_threads.h): no record in the frame, the
	 * guard, the slot read, the record in the frame.
	 */
	EMIT_FS("\x64\x48\x8B\x04\x25", guard); /* mov rax, fs:[guard] */
	EMIT("\x48\x85\xC0");                   /* test rax, rax */
	cold->guarded = EMIT_FORWARD("\x0F\x85"); /* jne guarded */
	cold->fresh = (uint32_t)code->size;
	emit_store(code, PRIVATE(PATCH_X86_64_RCX), RCX);
	arch_emit_stretch(code, ARCH_HOOK_RCX, number);
	if (offered & MASK(RCX))
		emit_store(code, OFFERED(PATCH_X86_64_RCX), RCX);
	emit_store(code, ARCH_HOOK_FRAME_RECORD, RAX);
	EMIT_FS("\x64\x48\x89\x24\x25", guard); /* mov fs:[guard], rsp */
	if (hook->pair >= ARCH_PAIR_SECOND) {
		emit_load_pair(code, hook, cold);
	} else {
		emit_load_slot(code, hook);
		EMIT("\x48\x85\xC9");                   /* test rcx, rcx */
		cold->closed = EMIT_FORWARD("\x0F\x84"); /* je closed */
	}
	emit_store(code, ARCH_HOOK_FRAME_RECORD, RCX);
	EMIT_FS("\x64\x8B\x04\x25", error);     /* mov eax, fs:[errno] */
	EMIT("\x89\x44\x24\x10");               /* mov [rsp + ARCH_HOOK_FRAME_ERRNO], eax */

	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i)
		if (destroyed & ~written & ~(MASK(RAX) | MASK(RCX)) & (uint64_t)1 << i)
			emit_store(code, PRIVATE(i), hardware[i]);
	if (offered & MASK(RDI))
		emit_store(code, OFFERED(PATCH_X86_64_RDI), RDI);
	emit_context(code, hook, offered, cold->number);
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	/* cld takes longer than to see that it is not needed, and to clear AC takes popfq. */
	EMIT("\xA9\x00\x04\x04\x00");          /* test eax, DF | AC */
	cold->backwards = EMIT_FORWARD("\x0F\x85"); /* jne backwards */
	cold->forwards = (uint32_t)code->size;
	emit_shadow(code, hook, cold);
	EMIT("\x31\xF6");                       /* xor esi, esi */
	CONTEXT_STORE(extended_states, RSI);    /* one that offers them writes it again */
	if (hook->post)
		EMIT("\xFF\xC6");               /* inc esi */
	if (extended != NULL) {
		emit_call_library(code, extended);
		arch_emit_stretch(code, stretch_behind(cold), number);
	} else {
		hook_emit_call(code, hook, cold);
	}

	cold->uncalled = (uint32_t)code->size;
	EMIT("\x8B\x44\x24\x10");               /* mov eax, [rsp + ARCH_HOOK_FRAME_ERRNO] */
	/* A store would make the next hook wait for this one. */
	EMIT_FS("\x64\x3B\x04\x25", error);     /* cmp eax, fs:[errno] */
	cold->errno_changed = EMIT_FORWARD("\x0F\x85"); /* jne errno_changed */
	cold->errno_kept = (uint32_t)code->size;
	if (hook->pair == ARCH_PAIR_FIRST)
		emit_note_pair(code, hook, cold);
	EMIT("\x31\xC0");                       /* xor eax, eax */
	if (hook->pair >= ARCH_PAIR_SECOND)
		emit_drop_pair(code, cold);
	EMIT_FS("\x64\x48\x89\x04\x25", guard); /* mov fs:[guard], rax */
	for (unsigned int i = 1; i < PATCH_ARCH_GREGS_COUNT; ++i) {
		if (written & (uint64_t)1 << i)
			emit_load(code, hardware[i], OFFERED(i));
		else if (destroyed & (uint64_t)1 << i)
			emit_load(code, hardware[i], PRIVATE(i));
	}
	if (written & MASK(RAX)) {
		emit_load(code, RAX, OFFERED(PATCH_X86_64_RAX));
		emit_store(code, PRIVATE(PATCH_X86_64_RAX), RAX);
	}
	emit_look_whether_moved(code, cold);
	cold->passed_over = (uint32_t)code->size;
	arch_emit_stretch(code, ARCH_HOOK_LEAVES, number);
	hook_emit_leave(code, cold);
	cold->done = (uint32_t)code->size;
}

void arch_hook_describe(const struct arch_cold_hook *cold, uintptr_t region, struct arch_hook_map *map)
{
	*map = (struct arch_hook_map){
		.program_counter = (int32_t)(cold->program_counter - region),
		.above = cold->above,
		.begins = (uint16_t)cold->begins,
		.ends = (uint16_t)cold->done,
		.place = (uint16_t)cold->place,
		.written = cold->written,
		.held = cold->held,
		.pushed = cold->pushed,
		.pair = cold->pair,
		.leads = cold->leads,
		.on_way = cold->on_way,
		.own = cold->own,
	};
}

/* The cold code of one hook. */
static void emit_cold_hook(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const int32_t guard = tls_offset(&libpatch_hook_guard.guard);

	code->original = cold->original;
	code->pushed = cold->pushed;
	arch_emit_row(code, frame_row(cold->own));
	emit_cold_pair(code, cold);
	arch_emit_stretch(code, ARCH_HOOK_PASSED, cold->number);
	EMIT_FS("\x64\x48\x89\x0C\x25", guard);   /* mov fs:[guard], rcx */
	emit_load(code, RCX, PRIVATE(PATCH_X86_64_RCX));
	EMIT("\xE9");                             /* jmp passed_over */
	emit_back(code, cold->passed_over);
	arch_emit_stretch(code, ARCH_HOOK_RAX, cold->number);
	arch_emit_label(code, cold->guarded);
	emit_call_library(code, libpatch_may_run);
	EMIT("\x0F\x84");                         /* je fresh */
	emit_back(code, cold->fresh);
	EMIT("\xE9");                             /* jmp passed_over */
	emit_back(code, cold->passed_over);
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	arch_emit_label(code, cold->backwards);
	EMIT("\xFC"                              /* cld */
	     "\x9C");                            /* pushfq */
	if (cold->own)
		arch_emit_stretch(code, stretch_of(ARCH_HOOK_PUSHED, ARCH_PUSHED_SAVED), cold->number);
	else
		arch_emit_row(code, ARCH_ROW_CFA_FRAME + 1);
	EMIT("\x81\x24\x24\xFF\xFF\xFB\xFF"    /* and dword [rsp], ~AC */
	     "\x9D");                            /* popfq */
	if (cold->own)
		arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	else
		arch_emit_row(code, ARCH_ROW_CFA_FRAME);
	EMIT("\xE9");                            /* jmp forwards */
	emit_back(code, cold->forwards);
	arch_emit_row(code, frame_row(cold->own));
	arch_emit_stretch(code, stretch_behind(cold), cold->number);
	arch_emit_label(code, cold->errno_changed);
	EMIT_FS("\x64\x89\x04\x25", errno_offset != 0 ? errno_offset : tls_offset(&errno)); /* mov fs:[errno], eax */
	EMIT("\xE9");                      /* jmp errno_kept */
	emit_back(code, cold->errno_kept);
	emit_cold_shadow(code, cold);
	if (!cold->own && cold->unaligned != 0)
		emit_unaligned(code, cold);
	emit_moved(code, cold);
	if (cold->direction != 0) {
		arch_emit_row(code, frame_row(cold->own));
		arch_emit_stretch(code, ARCH_HOOK_LEAVES, cold->number);
		arch_emit_label(code, cold->direction);
		emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
		if (cold->own) {
			EMIT_WIDE("\xFF\xB4\x24", ARCH_OWN_FRAME_FLAGS); /* push qword [rsp + ...] */
			arch_emit_stretch(code, stretch_of(ARCH_HOOK_PUSHED, ARCH_PUSHED_LEAVES), cold->number);
			EMIT("\x9D");             /* popfq */
			arch_emit_stretch(code, ARCH_HOOK_LEAVES, cold->number);
			emit_give_stack(code);
		} else {
			EMIT("\x9D");             /* popfq */
			arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
			emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL - 8);
			arch_emit_row(code, 0);
		}
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		EMIT("\xE9");                     /* jmp done */
		emit_back(code, cold->done);
	}
	if (cold->own)
		emit_cold_busy(code, cold);
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
