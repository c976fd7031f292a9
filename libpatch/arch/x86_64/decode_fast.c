/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The instructions that compilers write most, by a table: in some 60 instructions, where Zydis takes some 800. Any
 * other is left to that; where this decoder knows one, both say the same.
 *
 * Encodings (Intel SDM vol. 2, 2.1 and 2.2, tables) with at most one REX and one other prefix, whose
 * every form has the same layout and none is invalid: what is not so is left out of the tables, or looked at by
 * is_known(). And the no-ops that code is filled with, which have many prefixes.
 */
#include "arch/x86_64/decode.h"

#include <string.h>

/* What is behind an opcode. 0: it is not for here. */
enum layout {
	KNOWN = 1 << 7,
	PREFIX = 1 << 6,    /* no opcode: count_prefixes() */
	LOOK = 1 << 5,      /* is_known() is to look at it */
	RELATIVE = 1 << 4,  /* the immediate is a distance */
	NO_REX = 1 << 3,
	HAS_MODRM = 1 << 2,
	IMMEDIATE = 3       /* an index of immediates[] */
};
#define ALONE KNOWN /* the opcode is all */
#define IMM8 (KNOWN | 1)
#define IMM32 (KNOWN | 2)
#define IMM_FULL (KNOWN | 3) /* as wide as the register */
#define BARE (KNOWN | NO_REX | LOOK)
#define REL8 (BARE | RELATIVE | IMM8)
#define REL32 (BARE | RELATIVE | IMM32)
#define MODRM (KNOWN | HAS_MODRM)
#define MODRM_IMM8 (MODRM | IMM8)
#define MODRM_IMM32 (MODRM | IMM32)

/* By IMMEDIATE, then with a prefix 66, with REX.W, with both. */
static const uint8_t immediates[4][4] = { { 0, 0, 0, 0 }, { 1, 1, 1, 1 }, { 4, 2, 4, 4 }, { 4, 4, 8, 8 } };

/* By ModRM.mod and ModRM.rm: bytes of a displacement, and what else there is. */
#define SIB (1 << 3)
#define FROM_END (1 << 4)
static const uint8_t operands[4][8] = {
	{ [4] = SIB, [5] = FROM_END | 4 }, { 1, 1, 1, 1, SIB | 1, 1, 1, 1 }, { 4, 4, 4, 4, SIB | 4, 4, 4, 4 }
};

/* Operation on eax or al, registers and memory: eight opcodes in a row, of which the last two are something else. */
#define ARITHMETIC(first)                                                                                              \
	[first] = MODRM, [(first) + 1] = MODRM, [(first) + 2] = MODRM, [(first) + 3] = MODRM, [(first) + 4] = IMM8,    \
	[(first) + 5] = IMM32

static const uint8_t primary[256] = {
	[0x2E] = PREFIX, [0x64 ... 0x66] = PREFIX, [0xF2 ... 0xF3] = PREFIX,
	ARITHMETIC(0x00), ARITHMETIC(0x08), ARITHMETIC(0x10), ARITHMETIC(0x18),
	ARITHMETIC(0x20), ARITHMETIC(0x28), ARITHMETIC(0x30), ARITHMETIC(0x38),
	[0x50 ... 0x5F] = ALONE, /* push, pop */
	[0x63] = MODRM,          /* movsxd */
	[0x68] = IMM32,          /* push */
	[0x69] = MODRM_IMM32,    /* imul */
	[0x6A] = IMM8,
	[0x6B] = MODRM_IMM8,
	[0x70 ... 0x7F] = REL8,
	[0x80] = MODRM_IMM8,
	[0x81] = MODRM_IMM32,
	[0x83] = MODRM_IMM8,
	[0x84 ... 0x8B] = MODRM, /* test, xchg, mov */
	[0x8D] = MODRM | LOOK,   /* lea */
	[0x90] = BARE,           /* nop */
	[0x98 ... 0x99] = ALONE, /* cdqe, cqo */
	[0xA8] = IMM8,           /* test */
	[0xA9] = IMM32,
	[0xB0 ... 0xB7] = IMM8,  /* mov */
	[0xB8 ... 0xBF] = IMM_FULL,
	[0xC0 ... 0xC1] = MODRM_IMM8 | LOOK,
	[0xC3] = BARE,           /* ret */
	[0xC6] = MODRM_IMM8 | LOOK, /* mov */
	[0xC7] = MODRM_IMM32 | LOOK,
	[0xC9] = ALONE,          /* leave */
	[0xCC] = BARE,           /* int3 */
	[0xD0 ... 0xD3] = MODRM | LOOK,
	[0xE8 ... 0xE9] = REL32, /* call, jmp */
	[0xEB] = REL8,
	[0xF6 ... 0xF7] = MODRM | LOOK, /* and, of test, an immediate */
	[0xFE ... 0xFF] = MODRM | LOOK,
};

/* Behind 0F. */
static const uint8_t secondary[256] = {
	[0x10 ... 0x11] = MODRM, /* movups */
	[0x1F] = MODRM | LOOK,   /* nop */
	[0x28 ... 0x29] = MODRM, /* movaps */
	[0x2E ... 0x2F] = MODRM, /* ucomiss, comiss */
	[0x40 ... 0x4F] = MODRM, /* cmov */
	[0x54] = MODRM,          /* andps */
	[0x57] = MODRM,          /* xorps */
	[0x80 ... 0x8F] = REL32,
	[0x90 ... 0x9F] = MODRM | LOOK, /* set */
	[0xAF] = MODRM,          /* imul */
	[0xB6 ... 0xB7] = MODRM, /* movzx */
	[0xBE ... 0xBF] = MODRM, /* movsx */
};

/* Behind 66, F3 and F2, and 0F. */
static const uint8_t secondary_66[256] = {
	[0x10 ... 0x11] = MODRM, /* movupd */
	[0x1F] = MODRM | LOOK,   /* nop */
	[0x28 ... 0x29] = MODRM, /* movapd */
	[0x2E ... 0x2F] = MODRM, /* ucomisd, comisd */
	[0x54] = MODRM,          /* andpd */
	[0x57 ... 0x59] = MODRM, /* xorpd, addpd, mulpd */
	[0x60 ... 0x6F] = MODRM, /* punpck, pcmpgt, pack, movd, movdqa */
	[0x70] = MODRM_IMM8,     /* pshufd */
	[0x74 ... 0x76] = MODRM, /* pcmpeq */
	[0x7E ... 0x7F] = MODRM, /* movd, movdqa */
	[0xD4] = MODRM,          /* paddq */
	[0xD6] = MODRM,          /* movq */
	[0xDB] = MODRM,          /* pand */
	[0xDF] = MODRM,          /* pandn */
	[0xEB] = MODRM,          /* por */
	[0xEF] = MODRM,          /* pxor */
	[0xF8 ... 0xFE] = MODRM, /* psub, padd */
};
static const uint8_t secondary_f3[256] = {
	[0x10 ... 0x11] = MODRM, /* movss */
	[0x2A] = MODRM,          /* cvtsi2ss */
	[0x2C ... 0x2D] = MODRM, /* cvtss2si */
	[0x51] = MODRM,          /* sqrtss */
	[0x58 ... 0x5A] = MODRM, /* addss, mulss, cvtss2sd */
	[0x5C ... 0x5F] = MODRM, /* subss, minss, divss, maxss */
	[0x6F] = MODRM,          /* movdqu */
	[0x7E ... 0x7F] = MODRM, /* movq, movdqu */
};
static const uint8_t secondary_f2[256] = {
	[0x10 ... 0x11] = MODRM, /* movsd */
	[0x2A] = MODRM,          /* cvtsi2sd */
	[0x2C ... 0x2D] = MODRM, /* cvtsd2si */
	[0x51] = MODRM,          /* sqrtsd */
	[0x58 ... 0x5A] = MODRM, /* addsd, mulsd, cvtsd2ss */
	[0x5C ... 0x5F] = MODRM, /* subsd, minsd, divsd, maxsd */
};

struct fields {
	uint8_t prefix; /* 66, F2, F3, 64 or 65; 2E: such as only no-ops have; 0: none */
	uint8_t rex;  /* 0: none */
	uint8_t opcode;
	uint8_t modrm;
	uint8_t layout;
};

static unsigned int reg_of(const struct fields *fields)
{
	return fields->modrm >> 3 & 7;
}

/* False: its ModRM makes something else of it. Kinds are set. */
static bool is_known(struct fields *fields, struct arch_insn *insn)
{
	switch (fields->opcode) {
	case 0x8D:
		return fields->modrm >> 6 != 3;
	case 0xC0: case 0xC1: case 0xD0: case 0xD1: case 0xD2: case 0xD3:
		return reg_of(fields) != 6;
	case 0xC6: case 0xC7:
		return reg_of(fields) == 0;
	case 0xF6: case 0xF7:
		if (reg_of(fields) == 0)
			fields->layout = fields->opcode == 0xF6 ? MODRM_IMM8 : MODRM_IMM32;
		return reg_of(fields) != 1;
	case 0xFE:
		return reg_of(fields) <= 1;
	case 0xFF:
		if (reg_of(fields) == 2) {
			insn->kind = ARCH_CALL_IND;
		} else if (reg_of(fields) == 4) {
			insn->kind = ARCH_JMP_IND;
			insn->flags |= ARCH_F_NOFALL;
		}
		return (1U << reg_of(fields) & 0x57) != 0; /* inc, dec, call, jmp, push */
	case 0x90:
		insn->flags |= ARCH_F_NOP | ARCH_F_FILLER;
		return true;
	case 0xC3:
		insn->kind = ARCH_RET;
		insn->flags |= ARCH_F_NOFALL;
		return true;
	case 0xCC:
		insn->kind = ARCH_TRAP;
		insn->flags |= ARCH_F_FILLER;
		return true;
	case 0xE8:
		insn->kind = ARCH_CALL;
		return true;
	case 0xE9: case 0xEB:
		insn->kind = ARCH_JMP;
		insn->flags |= ARCH_F_NOFALL;
		return true;
	default:
		insn->kind = ARCH_JCC;
		return true;
	}
}

static bool is_known_secondary(const struct fields *fields, struct arch_insn *insn)
{
	if (fields->layout & RELATIVE)
		insn->kind = ARCH_JCC;
	if (fields->opcode == 0x1F)
		insn->flags |= ARCH_F_NOP | ARCH_F_FILLER;
	/* Of nop and set, the register field is not used, and expected to be 0. */
	return (fields->opcode != 0x1F && fields->opcode >> 4 != 9) || reg_of(fields) == 0;
}

/*
 * Without 0F, behind 66 or a segment's prefix: arithmetic and moves between registers and memory, no control flow and
 * nothing that is one byte longer or shorter for another reason than its immediate.
 */
static bool takes_prefix(uint8_t opcode)
{
	return (opcode < 0x40 && (opcode & 7) < 4) || opcode == 0x81 || opcode == 0x83 ||
	       (opcode >= 0x84 && opcode <= 0x8B) || opcode == 0xC7;
}

/* How an opcode goes on behind a prefix. */
static __attribute__((noinline)) uint8_t layout_behind(uint8_t prefix, bool escaped, uint8_t opcode)
{
	switch (prefix) {
	case 0x66:
		if (escaped)
			return secondary_66[opcode];
		break;
	case 0xF2:
		return escaped ? secondary_f2[opcode] : 0;
	case 0xF3:
		return escaped ? secondary_f3[opcode] : 0;
	case 0x2E:
		return escaped && opcode == 0x1F ? MODRM | LOOK : 0;
	default:
		if (escaped)
			return 0;
		break;
	}
	return takes_prefix(opcode) ? primary[opcode] : 0;
}

/* Behind so many prefixes 66, all is there to be read that is read: 2E, REX, 0F, opcode, ModRM, SIB. */
#define PREFIXES_MAX (INSN_MAX - 6)

/* Of many prefixes, all of which only no-ops have: how many. Of others there may be one. */
static __attribute__((noinline)) size_t count_prefixes(const uint8_t *bytes)
{
	size_t at = 0;

	while (at < PREFIXES_MAX && bytes[at] == 0x66)
		++at;
	at += bytes[at] == 0x2E;
	return at == 0 ? 1 : at;
}

static int32_t signed32(const uint8_t *bytes)
{
	int32_t value;

	__builtin_memcpy(&value, bytes, sizeof(value));
	return value;
}

/* Of an operand whose ModRM ends at `at`: SIB and displacement. Returns where they end. */
static size_t measure_operand(const struct fields *fields, const uint8_t *bytes, size_t at, struct arch_insn *insn)
{
	const uint8_t operand = operands[fields->modrm >> 6][fields->modrm & 7];

	if (operand & SIB) {
		const uint8_t base = bytes[at++] & 7;

		if (base == 4 && !(fields->rex & 1) && !(insn->flags & ARCH_F_NOP))
			insn->flags |= ARCH_F_MEM_RSP;
		if (base == 5 && fields->modrm < 0x40)
			return at + 4;
	} else if ((operand & FROM_END) && !(insn->flags & ARCH_F_NOP)) {
		insn->disp_offset = (uint8_t)at;
	}
	return at + (operand & 7);
}

static bool decode_endbr(struct arch_insn *insn)
{
	*insn = (struct arch_insn){
		.length = ARCH_ENDBR_SIZE,
		.opcode_offset = 1,
		.modrm_offset = 3,
		.flags = ARCH_F_ENDBR,
	};
	return true;
}

/*
 * Behind so many bytes of prefixes, which are as `prefix` in struct fields says. INSN_MAX bytes can be read, of which
 * `size` are the instruction's. Inline twice, and without calls where there is no prefix: scans decode most.
 */
static inline __attribute__((always_inline)) bool decode_behind(uint8_t prefix, size_t at, const uint8_t *bytes,
								size_t size, uintptr_t address, struct arch_insn *insn)
{
	struct fields fields = { .prefix = prefix, .opcode = bytes[at] };
	bool escaped;
	size_t end;

	*insn = (struct arch_insn){ 0 };
	if ((fields.opcode & 0xF0) == 0x40) {
		fields.rex = fields.opcode;
		fields.opcode = bytes[++at];
	}
	insn->opcode_offset = (uint8_t)at;
	escaped = fields.opcode == 0x0F;
	if (escaped)
		fields.opcode = bytes[++at];
	++at;
	fields.layout = prefix == 0 ? (escaped ? secondary : primary)[fields.opcode] :
				      layout_behind(prefix, escaped, fields.opcode);
	if (!(fields.layout & KNOWN) || ((fields.layout & NO_REX) && fields.rex != 0))
		return false;
	if (fields.layout & HAS_MODRM) {
		insn->modrm_offset = (uint8_t)at;
		fields.modrm = bytes[at++];
	}
	if ((fields.layout & LOOK) && !(escaped ? is_known_secondary(&fields, insn) : is_known(&fields, insn)))
		return false;
	if (fields.layout & HAS_MODRM)
		at = measure_operand(&fields, bytes, at, insn);
	end = at + immediates[fields.layout & IMMEDIATE][(prefix == 0x66) | (fields.rex >> 2 & 2)];
	if (end > size)
		return false;
	insn->length = (uint8_t)end;
	if (insn->disp_offset != 0)
		insn->target = address + end + (uintptr_t)(intptr_t)signed32(bytes + insn->disp_offset);
	if (fields.layout & RELATIVE) {
		insn->rel_offset = (uint8_t)at;
		insn->rel_size = (uint8_t)(end - at);
		insn->target = address + end +
			       (uintptr_t)(intptr_t)(end - at == 1 ? (int8_t)bytes[at] : signed32(bytes + at));
	}
	return true;
}

size_t arch_plain_length(const uint8_t bytes[INSN_MAX])
{
	const uint8_t rex = (bytes[0] & 0xF0) == 0x40 ? bytes[0] : 0;
	size_t at = rex != 0;
	const uint8_t opcode = bytes[at++];
	const uint8_t layout = opcode == 0x0F ? secondary[bytes[at++]] : primary[opcode];

	/* What is to be looked at of lea is that its operand is in memory. */
	if ((layout & (KNOWN | LOOK)) != KNOWN && !(opcode == 0x8D && bytes[at] < 0xC0))
		return 0;
	if (layout & HAS_MODRM) {
		const uint8_t modrm = bytes[at++], operand = operands[modrm >> 6][modrm & 7];

		if (operand & SIB)
			at += (bytes[at] & 7) == 5 && modrm < 0x40 ? 5 : 1;
		at += operand & 7;
	}
	return at + immediates[layout & IMMEDIATE][rex >> 2 & 2];
}

/* Any instruction, of less than INSN_MAX bytes that can be read, or with prefixes. */
static __attribute__((noinline)) bool decode_slowly(const uint8_t *bytes, size_t size, uintptr_t address,
						    struct arch_insn *insn)
{
	uint8_t readable[INSN_MAX] = { 0 };
	uint8_t prefix;
	size_t at;

	size = MIN(size, sizeof(readable));
	memcpy(readable, bytes, size);
	if (!(primary[readable[0]] & PREFIX)) {
		if (decode_behind(0, 0, readable, size, address, insn))
			return true;
	} else if (size >= ARCH_ENDBR_SIZE && arch_is_endbr(readable)) {
		return decode_endbr(insn);
	} else {
		at = count_prefixes(readable);
		prefix = at > 1 ? 0x2E : readable[0];
		if (decode_behind(prefix, at, readable, size, address, insn))
			return true;
	}
	return decode_zydis(bytes, size, address, insn);
}

bool arch_decode(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn)
{
	if (size < INSN_MAX || (primary[bytes[0]] & PREFIX))
		return decode_slowly(bytes, size, address, insn);
	return decode_behind(0, 0, bytes, INSN_MAX, address, insn) || decode_zydis(bytes, size, address, insn);
}
