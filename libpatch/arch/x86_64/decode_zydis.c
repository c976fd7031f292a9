/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One instruction: its length, its control flow, where its address-dependent fields are, and whether it can be executed
 * elsewhere. The only file that calls Zydis.
 *
 * Near branches are classified by opcode (AMD APM vol. 3, tables) because their treatment of the
 * operand-size prefix is what matters here and mnemonics do not tell it.
 *
 * Accepted though its copy is not exact: an x87 instruction, after which fnstenv and fxsave store the copy's address
 * and, in far code, its ModRM byte.
 */
#include "arch/x86_64/decode.h"

#include "arch/x86_64/zydis.h"

#include <stdatomic.h>

/* What an encoding's prefixes say. */
struct prefixes {
	uint8_t size;      /* of all legacy prefixes and REX */
	bool operand_size; /* 66 */
	bool rex_w;
};

/*
 * The decoder's settings are the same for every call. Made by the first caller and read by all others once complete;
 * that finds them incomplete (another thread, or a signal handler above the writer) uses its own.
 */
static const ZydisDecoder *decoder_settings(ZydisDecoder *own)
{
	enum { NONE, BUSY, READY };
	static ZydisDecoder shared;
	static _Atomic int state;
	int expected = NONE;

	/* Pairs with the release below: READY implies `shared` is complete. */
	if (atomic_load_explicit(&state, memory_order_acquire) == READY)
		return &shared;
	ZydisDecoderInit(own, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (atomic_compare_exchange_strong_explicit(&state, &expected, BUSY, memory_order_relaxed,
						    memory_order_relaxed)) {
		shared = *own;
		atomic_store_explicit(&state, READY, memory_order_release);
	}
	return own;
}

/* Intel SDM vol. 2, 2.1.1 and 2.2.1: REX counts only directly before the opcode. */
static struct prefixes scan_prefixes(const uint8_t *bytes, size_t size)
{
	struct prefixes prefixes = { 0 };
	uint8_t byte, rex = 0;

	for (; prefixes.size < size; prefixes.size++) {
		byte = bytes[prefixes.size];
		switch (byte) {
		case 0x66:
			prefixes.operand_size = true;
			rex = 0;
			continue;
		case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65:
		case 0x67: case 0xF0: case 0xF2: case 0xF3:
			rex = 0;
			continue;
		}
		if ((byte & 0xF0) != 0x40)
			break;
		rex = byte;
	}
	prefixes.rex_w = rex & 8;
	return prefixes;
}

static uint8_t vector_prefix_size(ZydisInstructionEncoding encoding, uint8_t first)
{
	switch (encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		return first == 0xC5 ? 2 : 3;
	case ZYDIS_INSTRUCTION_ENCODING_XOP:
		return 3;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
	case ZYDIS_INSTRUCTION_ENCODING_MVEX:
		return 4;
	default:
		return 0;
	}
}

static void zydis_refuse(struct arch_insn *insn, const char *why)
{
	insn->flags |= ARCH_F_REFUSED;
	insn->why = why;
}

static void set_kind(struct arch_insn *insn, enum arch_kind kind, unsigned int flags)
{
	insn->kind = kind;
	insn->flags |= flags;
}

/* Opcodes of the one-byte map. */
static void classify_primary(struct arch_insn *insn, const ZydisDecodedInstruction *zydis)
{
	const uint8_t opcode = zydis->opcode;

	if (opcode >= 0x70 && opcode <= 0x7F) {
		set_kind(insn, ARCH_JCC, 0);
		return;
	}
	switch (opcode) {
	case 0xC2: case 0xC3: /* ret */
	case 0xCA: case 0xCB: /* far ret */
	case 0xCF: /* iret */
		set_kind(insn, ARCH_RET, ARCH_F_NOFALL);
		break;
	case 0xC7:
		if (zydis->mnemonic == ZYDIS_MNEMONIC_XBEGIN)
			set_kind(insn, ARCH_XBEGIN, 0);
		break;
	case 0xCC: /* int3 */
		set_kind(insn, ARCH_TRAP, ARCH_F_FILLER);
		break;
	case 0xCD:
		if ((uint8_t)zydis->raw.imm[0].value.u == 0x80)
			set_kind(insn, ARCH_PLAIN, ARCH_F_SYSCALL);
		else
			set_kind(insn, ARCH_TRAP, 0);
		break;
	case 0xE0: case 0xE1: case 0xE2: case 0xE3:
		set_kind(insn, ARCH_LOOP, 0);
		break;
	case 0xE8:
		set_kind(insn, ARCH_CALL, 0);
		break;
	case 0xE9: case 0xEB:
		set_kind(insn, ARCH_JMP, ARCH_F_NOFALL);
		break;
	case 0xF1: /* int1 */
		set_kind(insn, ARCH_TRAP, 0);
		break;
	case 0xF4:
		set_kind(insn, ARCH_TRAP, ARCH_F_NOFALL);
		break;
	case 0xFF:
		switch (zydis->raw.modrm.reg) {
		case 2:
			set_kind(insn, ARCH_CALL_IND, 0);
			break;
		case 3:
			set_kind(insn, ARCH_CALL_IND, 0);
			zydis_refuse(insn, "a far call leaves the address it was executed at on the stack");
			break;
		case 4: case 5:
			set_kind(insn, ARCH_JMP_IND, ARCH_F_NOFALL);
			break;
		}
		break;
	}
}

/* Opcodes of the 0F map. */
static void classify_secondary(struct arch_insn *insn, const ZydisDecodedInstruction *zydis)
{
	const uint8_t opcode = zydis->opcode;

	if (opcode >= 0x80 && opcode <= 0x8F)
		set_kind(insn, ARCH_JCC, 0);
	else if (opcode == 0x05 || opcode == 0x34) /* syscall, sysenter */
		set_kind(insn, ARCH_PLAIN, ARCH_F_SYSCALL);
	else if (opcode == 0x0B || opcode == 0xB9 || opcode == 0xFF) /* ud2, ud1, ud0 */
		set_kind(insn, ARCH_TRAP, ARCH_F_NOFALL);
	else if (zydis->mnemonic == ZYDIS_MNEMONIC_UIRET)
		set_kind(insn, ARCH_RET, ARCH_F_NOFALL);
}

/* Near branches with a 16-bit operand size: Intel SDM vol. 1, 6.2.1 ignores the prefix, AMD APM vol. 3 truncates. */
static void check_operand_size(struct arch_insn *insn, const struct prefixes *prefixes)
{
	static const char why[] = "branch with a 16-bit operand size, which processors disagree about";

	if (!prefixes->operand_size || prefixes->rex_w)
		return;
	if (insn->rel_offset != 0 || insn->kind == ARCH_CALL_IND)
		zydis_refuse(insn, why);
}

bool decode_zydis(const uint8_t *bytes, size_t size, uintptr_t address, struct arch_insn *insn)
{
	ZydisDecoder own;
	ZydisDecoderContext context;
	ZydisDecodedInstruction zydis;
	struct prefixes prefixes;
	bool has_modrm, legacy;

	*insn = (struct arch_insn){ 0 };
	size = MIN(size, (size_t)INSN_MAX);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder_settings(&own), &context, bytes, size, &zydis)))
		return false;

	prefixes = scan_prefixes(bytes, zydis.length);
	legacy = zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	has_modrm = zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM;
	insn->length = zydis.length;
	insn->kind = ARCH_PLAIN;
	insn->opcode_offset = prefixes.size + vector_prefix_size(zydis.encoding, bytes[prefixes.size]);
	if (has_modrm)
		insn->modrm_offset = zydis.raw.modrm.offset;

	if (legacy && zydis.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
		classify_primary(insn, &zydis);
	else if (legacy && zydis.opcode_map == ZYDIS_OPCODE_MAP_0F)
		classify_secondary(insn, &zydis);

	if (zydis.mnemonic == ZYDIS_MNEMONIC_NOP || zydis.mnemonic == ZYDIS_MNEMONIC_ENDBR32)
		insn->flags |= ARCH_F_NOP | ARCH_F_FILLER;
	if (zydis.mnemonic == ZYDIS_MNEMONIC_ENDBR64)
		insn->flags |= ARCH_F_ENDBR;

	if (zydis.raw.imm[0].is_relative) {
		insn->rel_offset = zydis.raw.imm[0].offset;
		insn->rel_size = zydis.raw.imm[0].size / 8;
		insn->target = address + zydis.length + (uintptr_t)zydis.raw.imm[0].value.s;
		if (insn->kind == ARCH_PLAIN)
			zydis_refuse(insn, "unknown kind of branch");
	}

	/* A NOP's operand is not accessed. */
	if (has_modrm && bytes[insn->modrm_offset] >> 6 != 3 && !(insn->flags & ARCH_F_NOP)) {
		if ((bytes[insn->modrm_offset] & 0xC7) == 0x05 && zydis.raw.disp.size == 32) {
			insn->disp_offset = zydis.raw.disp.offset;
			insn->target = address + zydis.length + (uintptr_t)zydis.raw.disp.value;
			if (zydis.address_width != 64)
				zydis_refuse(insn, "operand relative to EIP, the truncated instruction pointer");
		} else if (zydis.raw.sib.offset != 0 && zydis.raw.sib.base == 4 && context.vector_unified.B == 0) {
			insn->flags |= ARCH_F_MEM_RSP;
		}
	}
	check_operand_size(insn, &prefixes);
	return true;
}

static uint16_t register_bit(ZydisRegister named)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, named);

	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return 0;
	return (uint16_t)(1U << (whole - ZYDIS_REGISTER_RAX));
}

uint16_t arch_general_registers(const uint8_t *bytes, const struct arch_insn *insn)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zydis;
	ZydisDecoder own;
	uint16_t registers = 0;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder_settings(&own), bytes, insn->length, &zydis, operands)))
		return UINT16_MAX;
	for (unsigned int i = 0; i < zydis.operand_count; i++) {
		if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			registers |= register_bit(operands[i].reg.value);
		else if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			registers |= register_bit(operands[i].mem.base) | register_bit(operands[i].mem.index);
	}
	return registers;
}

static bool is_stack_pointer(const ZydisDecodedOperand *operand)
{
	return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value) == ZYDIS_REGISTER_RSP;
}

/* Of an instruction that names the stack pointer as what it writes. */
static bool zydis_names_stack_change(const ZydisDecodedInstruction *zydis, const ZydisDecodedOperand operands[],
				     int64_t *change)
{
	const ZydisDecodedOperand *source = &operands[1];

	if (operands[0].size != 64)
		return false;
	if (zydis->mnemonic == ZYDIS_MNEMONIC_LEA) {
		*change = source->mem.disp.value;
		return source->mem.base == ZYDIS_REGISTER_RSP && source->mem.index == ZYDIS_REGISTER_NONE;
	}
	if (source->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	*change = zydis->mnemonic == ZYDIS_MNEMONIC_ADD ? source->imm.value.s : -source->imm.value.s;
	return zydis->mnemonic == ZYDIS_MNEMONIC_ADD || zydis->mnemonic == ZYDIS_MNEMONIC_SUB;
}

/* Of one that does not: what it puts on the stack, or takes off it. */
static bool zydis_implies_stack_change(const ZydisDecodedInstruction *zydis, const ZydisDecodedOperand operands[],
				       int64_t *change)
{
	switch (zydis->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH: case ZYDIS_MNEMONIC_PUSHFQ:
		*change = -(int64_t)(zydis->operand_width / 8);
		return true;
	case ZYDIS_MNEMONIC_CALL:
		*change = -8;
		return true;
	case ZYDIS_MNEMONIC_POP: case ZYDIS_MNEMONIC_POPFQ:
		*change = zydis->operand_width / 8;
		return true;
	case ZYDIS_MNEMONIC_RET:
		*change = 8 + (operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int64_t)operands[0].imm.value.u : 0);
		return zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
	default:
		return false;
	}
}

bool arch_stack_change(const uint8_t *bytes, const struct arch_insn *insn, int32_t *change)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zydis;
	ZydisDecoder own;
	unsigned int i = 0;
	int64_t added = 0;
	bool known;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder_settings(&own), bytes, insn->length, &zydis, operands)))
		return false;
	while (i < zydis.operand_count &&
	       !(is_stack_pointer(&operands[i]) && operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		++i;
	if (i == zydis.operand_count)
		known = true;
	else if (operands[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		known = zydis_implies_stack_change(&zydis, operands, &added);
	else
		known = i == 0 && zydis_names_stack_change(&zydis, operands, &added);
	*change = (int32_t)added;
	return known;
}

const void *arch_decoder_code(void)
{
	return (const void *)(uintptr_t)&ZydisDecoderInit;
}
