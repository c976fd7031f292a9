/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code in front of the copy of a system call that asks a function of the library whether it has made the call, in the
 * program's stead. Registers are those of the call; nothing else of the program's changes.
 */
#include "arch/canonical.h"
#include "arch/syscall.h"

/* From the base up: flags, the registers of struct arch_call, and the red zone. */
#define FRAME_FLAGS 0
#define FRAME_CALL 8
#define FRAME_SIZE (FRAME_CALL + (int32_t)sizeof(struct arch_call))
#define FRAME_TOTAL (FRAME_SIZE + 128)
#define ROW_FRAME (FRAME_TOTAL / 8)

_Static_assert(sizeof(struct arch_call) == 56, "syscall_hook_registers()");

#define EMIT(code, literal) arch_emit_bytes(code, literal, sizeof(literal) - 1)

static void syscall_hook_registers(struct arch_code *code, uint8_t opcode)
{
	/* REX prefix and ModRM of [rsp + disp8], in the order of struct arch_call. */
	static const uint8_t registers[][2] = {
		{ 0x48, 0x44 }, /* rax */
		{ 0x48, 0x7C }, /* rdi */
		{ 0x48, 0x74 }, /* rsi */
		{ 0x48, 0x54 }, /* rdx */
		{ 0x4C, 0x54 }, /* r10 */
		{ 0x4C, 0x44 }, /* r8 */
		{ 0x4C, 0x4C }, /* r9 */
	};

	for (uint8_t i = 0; i < sizeof(registers) / sizeof(registers[0]); ++i) {
		arch_emit_u8(code, registers[i][0]);
		arch_emit_u8(code, opcode);
		arch_emit_u8(code, registers[i][1]);
		arch_emit_u8(code, 0x24);
		arch_emit_u8(code, (uint8_t)(FRAME_CALL + 8 * i));
	}
}

static void syscall_hook_leave(struct arch_code *code)
{
	syscall_hook_registers(code, 0x8B);                  /* mov reg, [rsp + ...] */
	EMIT(code, "\x9D");                          /* popfq */
	arch_emit_row(code, ROW_FRAME - 1);
	EMIT(code, "\x48\x8D\xA4\x24");              /* lea rsp, [rsp + ...] */
	arch_emit_u32(code, FRAME_TOTAL - 8);
	arch_emit_row(code, 0);
}

static size_t syscall_hook_field(struct arch_code *code)
{
	arch_emit_u32(code, 0);
	return code->size;
}

void arch_emit_syscall_hook(struct arch_code *code, arch_syscall_hook_fn *function, const uint8_t *bytes,
		       const struct arch_insn *insn, uintptr_t address, const struct arch_map *map)
{
	uint8_t original = code->original;
	const size_t begin = code->size;
	size_t made, done;

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	EMIT(code, "\x48\x8D\xA4\x24");              /* lea rsp, [rsp - ...] */
	arch_emit_u32(code, (uint32_t)-(FRAME_TOTAL - 8));
	arch_emit_row(code, ROW_FRAME - 1);
	EMIT(code, "\x9C");                          /* pushfq */
	arch_emit_row(code, ROW_FRAME);
	syscall_hook_registers(code, 0x89);                  /* mov [rsp + ...], reg */
	arch_emit_stretch(code, ARCH_INSTEAD_SAVED, (uint8_t)(code->size - begin));
	EMIT(code, "\xFC"                            /* cld */
		   "\x48\x8D\x7C\x24\x08"            /* lea rdi, [rsp + FRAME_CALL] */
		   "\x48\x8D\x44\x24\xF0"            /* lea rax, [rsp - 16] */
		   "\x48\x83\xE0\xC0"                /* and rax, -64 */
		   "\x48\x89\x20"                    /* mov [rax], rsp */
		   "\x48\x89\xC4");                  /* mov rsp, rax */
	arch_emit_row(code, ARCH_ROW_DEREF | ROW_FRAME);
	EMIT(code, "\x48\xB8");                      /* mov rax, function */
	arch_emit_u64(code, (uintptr_t)function);
	EMIT(code, "\xFF\xD0");                     /* call rax */
	arch_emit_stretch(code, ARCH_INSTEAD_ASKED, 0);
	EMIT(code, "\x48\x8B\x24\x24");             /* mov rsp, [rsp] */
	arch_emit_row(code, ROW_FRAME);
	EMIT(code, "\x84\xC0"                        /* test al, al */
		   "\x0F\x85");                      /* jnz made */
	made = syscall_hook_field(code);

	arch_emit_stretch(code, ARCH_INSTEAD_NOT, 0);
	syscall_hook_leave(code);
	arch_relocate(code, bytes, insn, address, map);
	arch_emit_stretch(code, ARCH_LEAVES, 0);
	EMIT(code, "\xE9");                          /* jmp done */
	done = syscall_hook_field(code);

	arch_emit_label(code, made);
	/* The call has been made: the program is behind it. */
	code->original = original + insn->length;
	arch_emit_row(code, ROW_FRAME);
	arch_emit_stretch(code, ARCH_INSTEAD_MADE, 0);
	syscall_hook_leave(code);
	arch_emit_stretch(code, ARCH_SYSCALL_MADE, 0);
	/* As SYSCALL leaves it (AMD APM vol. 3): the address of the next instruction. */
	EMIT(code, "\x48\xB9");                      /* mov rcx, ... */
	arch_emit_u64(code, address + insn->length);
	arch_emit_label(code, done);
	arch_emit_row(code, 0);
}
