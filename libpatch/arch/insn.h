/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instructions of the program: bytes and an address in, a description out. Pure: nothing here reads or writes live
 * memory, and no type of the decoder's library appears.
 */
#ifndef LIBPATCH_ARCH_INSN_H
#define LIBPATCH_ARCH_INSN_H

#include "base/compiler.h"

enum arch_kind {
	ARCH_PLAIN,    /* no control flow of its own */
	ARCH_JMP,      /* direct jump */
	ARCH_JCC,      /* direct conditional jump with rel8/rel32 */
	ARCH_LOOP,     /* loop, loope, loopne, jrcxz, jecxz: rel8 only */
	ARCH_CALL,     /* direct call */
	ARCH_JMP_IND,  /* jump through register or memory */
	ARCH_CALL_IND, /* call through register or memory */
	ARCH_RET,
	ARCH_XBEGIN,   /* rel32 to the abort handler */
	ARCH_TRAP      /* int3, int n, ud0/1/2, hlt: never falls through by itself */
};

enum arch_flags {
	ARCH_F_ENDBR = 1 << 0,   /* endbr64 */
	ARCH_F_NOP = 1 << 1,     /* any form of no-op */
	ARCH_F_NOFALL = 1 << 2,  /* control never reaches the next instruction: jmp, ret, ud2, hlt, ... */
	ARCH_F_FILLER = 1 << 3, /* int3 or NOP: what assemblers and linkers fill gaps with */
	ARCH_F_MEM_RSP = 1 << 4, /* ModRM memory operand with RSP as its base */
	ARCH_F_SYSCALL = 1 << 5, /* syscall, sysenter, int 0x80 */
	ARCH_F_REFUSED = 1 << 6  /* cannot be executed at another address; `why` says it */
};

struct arch_insn {
	uint8_t length;      /* 1 to 15 */
	uint8_t kind;        /* enum arch_kind */
	uint8_t flags;       /* enum arch_flags */
	uint8_t disp_offset; /* offset of a RIP-relative disp32 in the encoding, 0 if none */
	uint8_t rel_offset;  /* offset of a relative branch displacement, 0 if none */
	uint8_t rel_size;    /* its bytes: 0, 1 or 4 */
	uint8_t opcode_offset; /* offset of the first opcode byte, prefixes (REX included) before it */
	uint8_t modrm_offset;  /* offset of ModRM, 0 if none */
	uintptr_t target;    /* branch target, else address a RIP-relative operand refers to, else 0 */
	const char *why;     /* for ARCH_F_REFUSED: the reason, in words; else NULL */
};

/*
 * Decode one instruction of `size` readable bytes as if at `address`. False: the bytes are no valid instruction (or it
 * is longer than `size`).
 */
bool arch_decode(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn);

/*
 * The length of an instruction of which INSN_MAX bytes can be read, if it is one of those that compilers write most,
 * and has no control flow of its own and no flag but ARCH_F_MEM_RSP. 0: nothing is said. In half the time.
 */
size_t arch_plain_length(const uint8_t bytes[INSN_MAX]);

/* endbr64, as compilers write it; other prefixes can be in front of it. */
#define ARCH_ENDBR_SIZE 4
static inline bool arch_is_endbr(const uint8_t bytes[ARCH_ENDBR_SIZE])
{
	return bytes[0] == 0xF3 && bytes[1] == 0x0F && bytes[2] == 0x1E && bytes[3] == 0xFA;
}

/*
 * May control reach what is behind the last instruction of a function? Behind a call there, it does not: compilers end
 * so what calls a function that never returns.
 */
static inline bool arch_runs_on(const struct arch_insn *insn)
{
	return !(insn->flags & ARCH_F_NOFALL) && insn->kind != ARCH_CALL && insn->kind != ARCH_CALL_IND &&
	       insn->kind != ARCH_TRAP;
}

/* A jump, conditional or not, to an address that it names. */
static inline bool arch_is_direct_jump(unsigned int kind)
{
	return kind == ARCH_JMP || kind == ARCH_JCC || kind == ARCH_LOOP;
}

/* Does an ARCH_RET or ARCH_JMP_IND change the code segment, or more: is it anything but `ret` and `jmp` as usual? */
static inline bool arch_is_far(const uint8_t *bytes, const struct arch_insn *insn)
{
	const uint8_t opcode = bytes[insn->opcode_offset];

	if (insn->kind == ARCH_JMP_IND)
		return (bytes[insn->modrm_offset] >> 3 & 7) == 5;
	return insn->kind == ARCH_RET && opcode != 0xC2 && opcode != 0xC3;
}

/* May the instruction raise SIGTRAP or SIGILL by itself, as trap bytes do? When the answer is false, it does not. */
static inline bool arch_may_trap(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; ++i)
		if (bytes[i] == 0xCC || bytes[i] == 0xCD || bytes[i] == 0xF1 || bytes[i] == 0xF4 ||
		    (bytes[i] == 0x0F && i + 1 < length &&
		     (bytes[i + 1] == 0x0B || bytes[i + 1] == 0xB9 || bytes[i + 1] == 0xFF)))
			return true;
	return false;
}

/*
 * The general purpose registers that the instruction names, or uses without naming them: bit i for register number i.
 */
uint16_t arch_general_registers(const uint8_t *bytes, const struct arch_insn *insn);

/* What the instruction adds to the stack pointer. False: something that its bytes do not tell. */
bool arch_stack_change(const uint8_t *bytes, const struct arch_insn *insn, int32_t *change);

/* May the byte be the opcode of a branch with an 8-bit displacement, which is the next byte? */
static inline bool arch_may_be_short_branch(uint8_t byte)
{
	return (byte & 0xF0) == 0x70 || byte == 0xEB || (byte & 0xFC) == 0xE0;
}

/* May any of the eight bytes be such an opcode? */
static inline bool arch_may_have_short_branch(uint64_t word)
{
	return bytes_have_zero((word & 0xF0 * BYTES_ONE) ^ 0x70 * BYTES_ONE) ||
	       bytes_have_zero(word ^ 0xEB * BYTES_ONE) ||
	       bytes_have_zero((word & 0xFC * BYTES_ONE) ^ 0xE0 * BYTES_ONE);
}

/* An address in the code of the decoder, by which its module is found: that module is not to be patched. */
const void *arch_decoder_code(void);
/* The functions of that library, to be bound before the first call. */
extern const struct dependency arch_decoder_dependency;

#endif
