/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code in front of the copy of a system call that asks a function of the library whether it has made the call, in the
 * program's stead. Registers are those of the call; nothing else of the program's changes.
 */
#include "arch/canonical.h"
#include "arch/cpu.h"
#include "arch/syscall.h"
#include "arch/x86_64/flags.h"

/* From the base up: flags, struct arch_call, and the red zone. */
#define FRAME_FLAGS 0
#define FRAME_CALL 8
#define FRAME_FRONT (FRAME_CALL + (int32_t)offsetof(struct arch_call, front))
#define FRAME_NEXT (FRAME_CALL + (int32_t)offsetof(struct arch_call, next))
#define FRAME_SIZE (FRAME_CALL + (int32_t)sizeof(struct arch_call))
#define FRAME_TOTAL (FRAME_SIZE + 128)
#define ROW_FRAME (FRAME_TOTAL / 8)

_Static_assert(FRAME_NEXT < 128, "displacements of one byte");

#define SYSCALL_SIZE 2

#define EMIT(code, literal) arch_emit_bytes(code, literal, sizeof(literal) - 1)

/* The first registers of struct arch_call: those of the call, or all. */
#define REGISTERS_OF_CALL 7
#define REGISTERS_ALL 13
static void syscall_hook_registers(struct arch_code *code, uint8_t opcode, uint8_t count)
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
		{ 0x48, 0x5C }, /* rbx */
		{ 0x48, 0x6C }, /* rbp */
		{ 0x4C, 0x64 }, /* r12 */
		{ 0x4C, 0x6C }, /* r13 */
		{ 0x4C, 0x74 }, /* r14 */
		{ 0x4C, 0x7C }, /* r15 */
	};

	_Static_assert(ARRAY_SIZE(registers) == REGISTERS_ALL &&
			       REGISTERS_ALL * 8 == offsetof(struct arch_call, front),
		       "struct arch_call");
	for (uint8_t i = 0; i < count; ++i) {
		arch_emit_u8(code, registers[i][0]);
		arch_emit_u8(code, opcode);
		arch_emit_u8(code, registers[i][1]);
		arch_emit_u8(code, 0x24);
		arch_emit_u8(code, (uint8_t)(FRAME_CALL + 8 * i));
	}
}

/* As hooks do it (hook_frame.c), for DF and AC by POPFQ. Uses rax. */
static void syscall_hook_put_back_flags(struct arch_code *code)
{
	if (arch_has_sahf())
		EMIT(code, "\xF7\x04\x24\x00\x04\x04\x00" /* test dword [rsp], DF | AC */
			   "\x75\x0F"                     /* jne popped */
			   "\x0F\xB6\x44\x24\x01"         /* movzx eax, byte [rsp + 1] */
			   "\x24\x08"                     /* and al, OF >> 8 */
			   "\x04\x78"                     /* add al, 128 - (OF >> 8) */
			   "\x8A\x24\x24"                 /* mov ah, [rsp] */
			   "\x9E"                         /* sahf */
			   "\xEB\x04");                   /* jmp behind */
	EMIT(code, "\xFF\x34\x24");                       /* popped: push qword [rsp] */
	arch_emit_row(code, ROW_FRAME + 1);
	EMIT(code, "\x9D");                               /* popfq */
	arch_emit_row(code, ROW_FRAME);
}

static void syscall_hook_leave(struct arch_code *code)
{
	syscall_hook_put_back_flags(code);
	syscall_hook_registers(code, 0x8B, REGISTERS_OF_CALL);                /* mov reg, [rsp + ...] */
	EMIT(code, "\x48\x8D\xA4\x24");              /* lea rsp, [rsp + ...] */
	arch_emit_u32(code, FRAME_TOTAL);
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
	const size_t front = code->size;
	size_t made, done;

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	EMIT(code, "\x48\x8D\xA4\x24");              /* lea rsp, [rsp - ...] */
	arch_emit_u32(code, (uint32_t)-(FRAME_TOTAL - 8));
	arch_emit_row(code, ROW_FRAME - 1);
	EMIT(code, "\x9C");                          /* pushfq */
	arch_emit_row(code, ROW_FRAME);
	syscall_hook_registers(code, 0x89, REGISTERS_ALL);                /* mov [rsp + ...], reg */
	arch_emit_stretch(code, ARCH_INSTEAD_SAVED, (uint8_t)(code->size - front));
	EMIT(code, "\x48\x8D\x05");                  /* lea rax, [rip - ...]: front */
	arch_emit_u32(code, (uint32_t)front - ((uint32_t)code->size + 4));
	EMIT(code, "\x48\x89\x44\x24");              /* mov [rsp + FRAME_FRONT], rax */
	arch_emit_u8(code, FRAME_FRONT);
	EMIT(code, "\x48\xB8");                      /* mov rax, next */
	arch_emit_u64(code, address + insn->length);
	EMIT(code, "\x48\x89\x44\x24");              /* mov [rsp + FRAME_NEXT], rax */
	arch_emit_u8(code, FRAME_NEXT);
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

uintptr_t arch_call_stack_pointer(const struct arch_call *call)
{
	return (uintptr_t)call - FRAME_CALL + FRAME_TOTAL;
}

void arch_call_registers(const struct arch_call *call, bool made, greg_t *registers)
{
	const char *frame = (const char *)call - FRAME_CALL;

	registers[REG_RAX] = call->rax;
	registers[REG_RDI] = call->rdi;
	registers[REG_RSI] = call->rsi;
	registers[REG_RDX] = call->rdx;
	registers[REG_R10] = call->r10;
	registers[REG_R8] = call->r8;
	registers[REG_R9] = call->r9;
	registers[REG_RBX] = call->rbx;
	registers[REG_RBP] = call->rbp;
	registers[REG_R12] = call->r12;
	registers[REG_R13] = call->r13;
	registers[REG_R14] = call->r14;
	registers[REG_R15] = call->r15;
	registers[REG_RSP] = (greg_t)arch_call_stack_pointer(call);
	registers[REG_EFL] = (greg_t)flags_put_back((uint64_t)registers[REG_EFL],
						    *(const uint64_t *)(frame + FRAME_FLAGS));
	registers[REG_RIP] = (greg_t)(made ? call->next : call->next - SYSCALL_SIZE);
	/* As SYSCALL leaves them (AMD APM vol. 3). */
	registers[REG_RCX] = (greg_t)call->next;
	registers[REG_R11] = registers[REG_EFL];
}
