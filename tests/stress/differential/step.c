/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One instruction: whether it can be run here, and what a state must look like for it to be worth running. */
#include "differential.h"

#include <cpuid.h>

#define M(name) ZYDIS_MNEMONIC_##name
static const struct {
	const char *reason;
	ZydisMnemonic mnemonics[12];
} skips[] = {
	{ "enters the kernel", { M(SYSCALL), M(SYSENTER), M(SYSEXIT), M(SYSRET) } },
	{ "asks the hypervisor", { M(VMCALL), M(VMMCALL) } },
	{ "gives another result each time", { M(RDTSC), M(RDTSCP), M(RDRAND), M(RDSEED), M(RDPMC), M(RDPRU) } },
	{ "tells the processor's number", { M(RDPID), M(LSL) } },
	{ "depends on what the kernel did to the extended state",
	  { M(XGETBV), M(XSAVE), M(XSAVE64), M(XSAVEC), M(XSAVEC64), M(XSAVEOPT), M(XSAVEOPT64),
	    M(XSAVES), M(XSAVES64) } },
	{ "loads extended state from random memory", { M(XRSTOR), M(XRSTOR64), M(XRSTORS), M(XRSTORS64) } },
	{ "changes a segment the test needs",
	  { M(WRFSBASE), M(WRGSBASE), M(LSS), M(LFS), M(LGS), M(SWAPGS) } },
	{ "far transfer", { M(IRET), M(IRETD), M(IRETQ), M(UIRET) } },
	{ "changes the protection of memory", { M(WRPKRU) } },
	{ "waits", { M(MONITOR), M(MWAIT), M(MONITORX), M(MWAITX), M(UMONITOR), M(UMWAIT), M(TPAUSE) } },
	{ "writes where no operand says", { M(CLZERO), M(MOVDIR64B), M(ENQCMD), M(ENQCMDS) } },
	{ "sends interrupts", { M(CLUI), M(STUI), M(SENDUIPI) } },
};

const ZydisDecoder *step_decoder(void)
{
	static ZydisDecoder decoder;
	static bool ready;

	if (!ready)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ready = true;
	return &decoder;
}

/* Without it SGDT tells the address of this processor's table. */
static bool has_umip(void)
{
	unsigned int eax, ebx, ecx = 0, edx;

	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ecx & 4;
}

static const char *skip_reason(const ZydisDecodedInstruction *zydis)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(skips); i++)
		for (j = 0; j < ARRAY_SIZE(skips[i].mnemonics) && skips[i].mnemonics[j] != 0; j++)
			if (skips[i].mnemonics[j] == zydis->mnemonic)
				return skips[i].reason;
	if (zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return "far transfer";
	if (zydis->mnemonic == M(INT) && (uint8_t)zydis->raw.imm[0].value.u == 0x80)
		return "enters the kernel";
	if ((zydis->mnemonic == M(MOV) && zydis->opcode == 0x8E && zydis->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) ||
	    (zydis->mnemonic == M(POP) && zydis->opcode_map == ZYDIS_OPCODE_MAP_0F))
		return "changes a segment the test needs";
	if (zydis->mnemonic == M(SGDT) && !has_umip())
		return "tells the processor's number";
	return NULL;
}

static uint8_t register_number(ZydisRegister reg)
{
	const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (ZydisRegisterGetClass(whole) != ZYDIS_REGCLASS_GPR64)
		return NONE;
	return (uint8_t)ZydisRegisterGetId(whole);
}

static void take_operand(struct step *step, const ZydisDecodedInstruction *zydis, const ZydisDecodedOperand *operand)
{
	struct operand *own = &step->operands[step->operand_count];

	if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return;
	if (operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		step->flags |= P_VSIB;
	if (operand->mem.segment == ZYDIS_REGISTER_FS)
		step->flags |= P_FS | P_LOW;
	if (operand->mem.segment == ZYDIS_REGISTER_GS)
		step->flags |= P_GS | P_LOW;
	if (step->operand_count == ARRAY_SIZE(step->operands))
		return;
	own->base = register_number(operand->mem.base);
	own->index = register_number(operand->mem.index);
	own->scale = operand->mem.scale;
	own->segment = operand->mem.segment == ZYDIS_REGISTER_FS || operand->mem.segment == ZYDIS_REGISTER_GS;
	own->disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
	if ((own->base == NONE && operand->mem.base != ZYDIS_REGISTER_RIP) || zydis->address_width != 64)
		step->flags |= P_LOW;
	/* the stack pointer as such stays where it is */
	if (operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN || own->base != RSP)
		step->operand_count++;
}

static bool is_vector(const struct decoded *decoded)
{
	const ZydisDecodedInstruction *zydis = &decoded->insn;
	size_t i;

	for (i = 0; i < zydis->operand_count; i++) {
		if (decoded->operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(decoded->operands[i].reg.value)) {
		case ZYDIS_REGCLASS_GPR8: case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
		case ZYDIS_REGCLASS_FLAGS: case ZYDIS_REGCLASS_IP: case ZYDIS_REGCLASS_SEGMENT:
			break;
		default:
			return true;
		}
	}
	return zydis->attributes & (ZYDIS_ATTRIB_FPU_STATE_CR | ZYDIS_ATTRIB_FPU_STATE_CW | ZYDIS_ATTRIB_XMM_STATE_CR |
				    ZYDIS_ATTRIB_XMM_STATE_CW) ||
	       zydis->meta.isa_ext == ZYDIS_ISA_EXT_X87 || zydis->mnemonic == M(VZEROALL) ||
	       zydis->mnemonic == M(VZEROUPPER);
}

static void set_flags(struct step *step, const struct decoded *decoded)
{
	const ZydisDecodedInstruction *zydis = &decoded->insn;

	if (is_vector(decoded))
		step->flags |= P_VECTOR;
	if (zydis->attributes & ZYDIS_ATTRIB_HAS_LOCK || zydis->mnemonic == M(XCHG))
		step->flags |= P_ALIGNED;
	if (zydis->meta.category == ZYDIS_CATEGORY_STRINGOP)
		step->flags |= P_STRING;
	if (zydis->mnemonic == M(DIV) || zydis->mnemonic == M(IDIV))
		step->flags |= P_DIVIDE;
	/* the hypervisor or the kernel emulates it */
	if (zydis->mnemonic == M(CPUID) || zydis->mnemonic == M(SGDT) || zydis->mnemonic == M(SIDT) ||
	    zydis->mnemonic == M(SLDT) || zydis->mnemonic == M(SMSW) || zydis->mnemonic == M(STR))
		step->flags |= P_SLOW;
	if (zydis->mnemonic == M(LEAVE) || zydis->mnemonic == M(ENTER))
		step->flags |= P_FRAME;
	if (zydis->mnemonic == M(LDMXCSR) || zydis->mnemonic == M(VLDMXCSR) || zydis->mnemonic == M(FXRSTOR) ||
	    zydis->mnemonic == M(FXRSTOR64))
		step->flags |= P_MXCSR;
	/* a frame for which there is memory */
	if (zydis->mnemonic == M(ENTER))
		step->bytes[step->insn.opcode_offset + 2] = 0;
	if (zydis->meta.category == ZYDIS_CATEGORY_BITBYTE && step->operand_count > 0 && zydis->operand_count > 1 &&
	    decoded->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		step->flags |= P_BIT;
		step->bit = register_number(decoded->operands[1].reg.value);
	}
	if (step->insn.kind == ARCH_JMP_IND || step->insn.kind == ARCH_CALL_IND || step->insn.kind == ARCH_RET)
		step->flags |= P_POINTERS;
}

const char *step_make(struct step *step, const uint8_t *bytes, size_t size, struct decoded *decoded)
{
	const char *reason;
	size_t i;

	memset(step, 0, sizeof(*step));
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(step_decoder(), bytes, size, &decoded->insn, decoded->operands)))
		return "no instruction";
	memcpy(step->bytes, bytes, decoded->insn.length);
	reason = skip_reason(&decoded->insn);
	if (reason)
		return reason;
	if (!arch_decode(bytes, size, STEP_ADDRESS, &step->insn))
		return "arch_decode() says it is invalid";
	if (step->insn.flags & ARCH_F_REFUSED)
		return step->insn.why;
	step->bit = NONE;
	for (i = 0; i < decoded->insn.operand_count; i++)
		if (decoded->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			take_operand(step, &decoded->insn, &decoded->operands[i]);
	set_flags(step, decoded);
	return NULL;
}

void step_describe(const struct step *step, uintptr_t address, char *text, size_t size)
{
	struct decoded decoded;
	ZydisFormatter formatter;

	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(step_decoder(), step->bytes, step->insn.length, &decoded.insn,
						 decoded.operands)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &decoded.insn, decoded.operands,
							  decoded.insn.operand_count_visible, text, size, address,
							  NULL)))
		snprintf(text, size, "?");
}
