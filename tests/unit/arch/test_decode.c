/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * arch_decode(): every field for every form it treats specially, then properties over random bytes and threads.
 */
#include "bytes.h"

#include "arch/x86_64/decode.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define AT 0x7f0012345678UL

struct decode_case {
	const char *text;
	uint8_t bytes[16];
	size_t size;
	struct arch_insn insn; /* without length; `why`: a part of the reason */
};

#define ENTRY(text, bytes, ...) { text, bytes, { __VA_ARGS__ } }
#define B(...) BYTES(__VA_ARGS__)

static void expect_insn(const struct decode_case *c)
{
	struct arch_insn got;
	const struct arch_insn *want = &c->insn;

	if (!arch_decode(c->bytes, c->size, AT, &got)) {
		cr_expect_fail("%s: not decoded", c->text);
		return;
	}
#define SAME(field)                                                                                                    \
	cr_expect(got.field == want->field, "%s: " #field " is %#lx, not %#lx", c->text, (unsigned long)got.field,     \
		  (unsigned long)want->field)
	cr_expect_eq(got.length, c->size, "%s: length is %u, not %zu", c->text, got.length, c->size);
	SAME(kind);
	SAME(flags);
	SAME(disp_offset);
	SAME(rel_offset);
	SAME(rel_size);
	SAME(opcode_offset);
	SAME(modrm_offset);
	SAME(target);
#undef SAME
	cr_expect_eq(!want->why, !got.why, "%s: reason is %s", c->text, got.why ? got.why : "missing");
	if (want->why && got.why)
		cr_expect(strstr(got.why, want->why), "%s: reason is \"%s\"", c->text, got.why);
}

static void expect_insns(const struct decode_case *cases, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		expect_insn(&cases[i]);
}

Test(decode, direct_branches)
{
	static const struct decode_case cases[] = {
		ENTRY("jmp rel8", B(0xEB, 0xFE), .kind = ARCH_JMP, .flags = ARCH_F_NOFALL, .rel_offset = 1,
		      .rel_size = 1,
		      .target = AT),
		ENTRY("jmp rel32", B(0xE9, 0x78, 0x56, 0x34, 0x12), .kind = ARCH_JMP, .flags = ARCH_F_NOFALL,
		      .rel_offset = 1, .rel_size = 4, .target = AT + 5 + 0x12345678),
		ENTRY("jmp rel32 back", B(0xE9, 0x00, 0x00, 0x00, 0x80), .kind = ARCH_JMP, .flags = ARCH_F_NOFALL,
		      .rel_offset = 1, .rel_size = 4, .target = AT + 5 - 0x80000000UL),
		ENTRY("bnd jmp rel32", B(0xF2, 0xE9, 1, 0, 0, 0), .kind = ARCH_JMP, .flags = ARCH_F_NOFALL,
		      .rel_offset = 2, .rel_size = 4, .opcode_offset = 1, .target = AT + 7),
		ENTRY("jo rel8", B(0x70, 0x7F), .kind = ARCH_JCC, .rel_offset = 1, .rel_size = 1,
		      .target = AT + 2 + 127),
		ENTRY("jg rel8", B(0x7F, 0x80), .kind = ARCH_JCC, .rel_offset = 1, .rel_size = 1,
		      .target = AT + 2 - 128),
		ENTRY("je rel32", B(0x0F, 0x84, 2, 0, 0, 0), .kind = ARCH_JCC, .rel_offset = 2, .rel_size = 4,
		      .target = AT + 8),
		ENTRY("jne,pn rel8", B(0x2E, 0x75, 4), .kind = ARCH_JCC, .rel_offset = 2, .rel_size = 1,
		      .opcode_offset = 1, .target = AT + 7),
		ENTRY("jne,pt rel32", B(0x3E, 0x0F, 0x85, 4, 0, 0, 0), .kind = ARCH_JCC, .rel_offset = 3, .rel_size = 4,
		      .opcode_offset = 1, .target = AT + 11),
		ENTRY("bnd je rel32", B(0xF2, 0x0F, 0x84, 4, 0, 0, 0), .kind = ARCH_JCC, .rel_offset = 3, .rel_size = 4,
		      .opcode_offset = 1, .target = AT + 11),
		ENTRY("loopne", B(0xE0, 0xFE), .kind = ARCH_LOOP, .rel_offset = 1, .rel_size = 1, .target = AT),
		ENTRY("loope", B(0xE1, 0x00), .kind = ARCH_LOOP, .rel_offset = 1, .rel_size = 1, .target = AT + 2),
		ENTRY("loop", B(0xE2, 0x01), .kind = ARCH_LOOP, .rel_offset = 1, .rel_size = 1, .target = AT + 3),
		ENTRY("jrcxz", B(0xE3, 0x01), .kind = ARCH_LOOP, .rel_offset = 1, .rel_size = 1, .target = AT + 3),
		ENTRY("jecxz", B(0x67, 0xE3, 0x01), .kind = ARCH_LOOP, .rel_offset = 2, .rel_size = 1,
		      .opcode_offset = 1, .target = AT + 4),
		ENTRY("call rel32", B(0xE8, 0, 0, 0, 0), .kind = ARCH_CALL, .rel_offset = 1, .rel_size = 4,
		      .target = AT + 5),
		ENTRY("data16 data16 rex.W call (TLS)", B(0x66, 0x66, 0x48, 0xE8, 1, 0, 0, 0), .kind = ARCH_CALL,
		      .rel_offset = 4, .rel_size = 4, .opcode_offset = 3, .target = AT + 9),
		ENTRY("addr32 call (relaxed GOT call)", B(0x67, 0xE8, 1, 0, 0, 0), .kind = ARCH_CALL, .rel_offset = 2,
		      .rel_size = 4, .opcode_offset = 1, .target = AT + 7),
		ENTRY("bnd call", B(0xF2, 0xE8, 1, 0, 0, 0), .kind = ARCH_CALL, .rel_offset = 2, .rel_size = 4,
		      .opcode_offset = 1, .target = AT + 7),
		ENTRY("xbegin", B(0xC7, 0xF8, 0x10, 0, 0, 0), .kind = ARCH_XBEGIN, .rel_offset = 2, .rel_size = 4,
		      .modrm_offset = 1, .target = AT + 0x16),
	};

	expect_insns(cases, ARRAY_SIZE(cases));
}

Test(decode, indirect_branches)
{
	static const struct decode_case cases[] = {
		ENTRY("jmp rax", B(0xFF, 0xE0), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL, .modrm_offset = 1),
		ENTRY("notrack jmp r11", B(0x3E, 0x41, 0xFF, 0xE3), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL,
		      .opcode_offset = 2, .modrm_offset = 3),
		ENTRY("bnd jmp [rip+1]", B(0xF2, 0xFF, 0x25, 1, 0, 0, 0), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL,
		      .opcode_offset = 1, .modrm_offset = 2, .disp_offset = 3, .target = AT + 8),
		ENTRY("jmp [rsp]", B(0xFF, 0x24, 0x24), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL | ARCH_F_MEM_RSP,
		      .modrm_offset = 1),
		ENTRY("jmp ax", B(0x66, 0xFF, 0xE0), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL, .opcode_offset = 1,
		      .modrm_offset = 2),
		ENTRY("jmp far [rax]", B(0xFF, 0x28), .kind = ARCH_JMP_IND, .flags = ARCH_F_NOFALL, .modrm_offset = 1),
		ENTRY("call rax", B(0xFF, 0xD0), .kind = ARCH_CALL_IND, .modrm_offset = 1),
		ENTRY("call r12", B(0x41, 0xFF, 0xD4), .kind = ARCH_CALL_IND, .opcode_offset = 1, .modrm_offset = 2),
		ENTRY("call [r12]", B(0x41, 0xFF, 0x14, 0x24), .kind = ARCH_CALL_IND, .opcode_offset = 1,
		      .modrm_offset = 2),
		ENTRY("call [rsp+rcx*8]", B(0xFF, 0x14, 0xCC), .kind = ARCH_CALL_IND, .flags = ARCH_F_MEM_RSP,
		      .modrm_offset = 1),
		ENTRY("call [rsp+0]", B(0xFF, 0x54, 0x24, 0x00), .kind = ARCH_CALL_IND, .flags = ARCH_F_MEM_RSP,
		      .modrm_offset = 1),
		ENTRY("call [rsp-16]", B(0xFF, 0x54, 0x24, 0xF0), .kind = ARCH_CALL_IND, .flags = ARCH_F_MEM_RSP,
		      .modrm_offset = 1),
		ENTRY("call [rsp-8]", B(0xFF, 0x54, 0x24, 0xF8), .kind = ARCH_CALL_IND, .flags = ARCH_F_MEM_RSP,
		      .modrm_offset = 1),
		ENTRY("call rsp", B(0xFF, 0xD4), .kind = ARCH_CALL_IND, .modrm_offset = 1),
		ENTRY("call [rsp+0x7ffffff7]", B(0xFF, 0x94, 0x24, 0xF7, 0xFF, 0xFF, 0x7F), .kind = ARCH_CALL_IND,
		      .flags = ARCH_F_MEM_RSP, .modrm_offset = 1),
		ENTRY("call [rip+2]", B(0xFF, 0x15, 2, 0, 0, 0), .kind = ARCH_CALL_IND, .modrm_offset = 1,
		      .disp_offset = 2, .target = AT + 8),
		ENTRY("data16 rex.W call [rip+2] (TLS)", B(0x66, 0x48, 0xFF, 0x15, 2, 0, 0, 0), .kind = ARCH_CALL_IND,
		      .opcode_offset = 2, .modrm_offset = 3, .disp_offset = 4, .target = AT + 10),
		ENTRY("call fs:[0x10]", B(0x64, 0xFF, 0x14, 0x25, 0x10, 0, 0, 0), .kind = ARCH_CALL_IND,
		      .opcode_offset = 1, .modrm_offset = 2),
		ENTRY("ret", B(0xC3), .kind = ARCH_RET, .flags = ARCH_F_NOFALL),
		ENTRY("repz ret", B(0xF3, 0xC3), .kind = ARCH_RET, .flags = ARCH_F_NOFALL, .opcode_offset = 1),
		ENTRY("bnd ret", B(0xF2, 0xC3), .kind = ARCH_RET, .flags = ARCH_F_NOFALL, .opcode_offset = 1),
		ENTRY("ret 8", B(0xC2, 0x08, 0x00), .kind = ARCH_RET, .flags = ARCH_F_NOFALL),
		ENTRY("far ret", B(0x48, 0xCB), .kind = ARCH_RET, .flags = ARCH_F_NOFALL, .opcode_offset = 1),
		ENTRY("iretq", B(0x48, 0xCF), .kind = ARCH_RET, .flags = ARCH_F_NOFALL, .opcode_offset = 1),
	};

	expect_insns(cases, ARRAY_SIZE(cases));
}

Test(decode, plain)
{
	static const struct decode_case cases[] = {
		ENTRY("push rbp", B(0x55), .kind = ARCH_PLAIN),
		ENTRY("mov rax, [rip+1]", B(0x48, 0x8B, 0x05, 1, 0, 0, 0), .opcode_offset = 1, .modrm_offset = 2,
		      .disp_offset = 3, .target = AT + 8),
		ENTRY("mov r8, [rip-1]", B(0x4C, 0x8B, 0x05, 0xFF, 0xFF, 0xFF, 0xFF), .opcode_offset = 1,
		      .modrm_offset = 2, .disp_offset = 3, .target = AT + 6),
		ENTRY("rip with REX.B set", B(0x49, 0x8B, 0x05, 1, 0, 0, 0), .opcode_offset = 1, .modrm_offset = 2,
		      .disp_offset = 3, .target = AT + 8),
		ENTRY("mov dword [rip+1], imm32", B(0xC7, 0x05, 1, 0, 0, 0, 5, 6, 7, 8), .modrm_offset = 1,
		      .disp_offset = 2, .target = AT + 11),
		ENTRY("lock cmpxchg [rip+1], ecx", B(0xF0, 0x0F, 0xB1, 0x0D, 1, 0, 0, 0), .opcode_offset = 1,
		      .modrm_offset = 3, .disp_offset = 4, .target = AT + 9),
		ENTRY("mov [r13+0], eax is not rip", B(0x41, 0x89, 0x45, 0x00), .opcode_offset = 1, .modrm_offset = 2),
		ENTRY("mov eax, [disp32]", B(0x8B, 0x04, 0x25, 1, 0, 0, 0), .modrm_offset = 1),
		ENTRY("mov eax, [rsp+8]", B(0x8B, 0x44, 0x24, 8), .flags = ARCH_F_MEM_RSP, .modrm_offset = 1),
		ENTRY("mov eax, [r12+8]", B(0x41, 0x8B, 0x44, 0x24, 8), .opcode_offset = 1, .modrm_offset = 2),
		ENTRY("mov eax, esp", B(0x89, 0xE0), .modrm_offset = 1),
		ENTRY("movabs al, [moffs64]", B(0xA0, 1, 2, 3, 4, 5, 6, 7, 8), .kind = ARCH_PLAIN),
		ENTRY("movabs rax, imm64", B(0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8), .opcode_offset = 1),
		ENTRY("rep movsb", B(0xF3, 0xA4), .opcode_offset = 1),
		ENTRY("66 before a dead REX", B(0x48, 0x66, 0x90), .flags = ARCH_F_NOP | ARCH_F_FILLER,
		      .opcode_offset = 2),
		ENTRY("pshufd xmm0, [rip+1], 5", B(0x66, 0x0F, 0x70, 0x05, 1, 0, 0, 0, 5), .opcode_offset = 1,
		      .modrm_offset = 3, .disp_offset = 4, .target = AT + 10),
		ENTRY("vpaddd ymm0, ymm1, [rip+1]", B(0xC5, 0xF5, 0xFE, 0x05, 1, 0, 0, 0), .opcode_offset = 2,
		      .modrm_offset = 3, .disp_offset = 4, .target = AT + 9),
		ENTRY("vpalignr xmm0, xmm1, [rip+1], 5", B(0xC4, 0xE3, 0x71, 0x0F, 0x05, 1, 0, 0, 0, 5),
		      .opcode_offset = 3, .modrm_offset = 4, .disp_offset = 5, .target = AT + 11),
		ENTRY("vpaddd xmm0, xmm1, [rsp]", B(0xC4, 0xE1, 0x71, 0xFE, 0x04, 0x24), .flags = ARCH_F_MEM_RSP,
		      .opcode_offset = 3, .modrm_offset = 4),
		ENTRY("vpaddd xmm0, xmm1, [r12]", B(0xC4, 0xC1, 0x71, 0xFE, 0x04, 0x24), .opcode_offset = 3,
		      .modrm_offset = 4),
		ENTRY("vpternlogd zmm0, zmm1, [rip+1], 5",
		      B(0x62, 0xF3, 0x75, 0x48, 0x25, 0x05, 1, 0, 0, 0, 5), .opcode_offset = 4,
		      .modrm_offset = 5, .disp_offset = 6, .target = AT + 12),
		ENTRY("vmovdqu64 zmm0, [rsp+64] (disp8*64)", B(0x62, 0xF1, 0xFE, 0x48, 0x6F, 0x44, 0x24, 0x01),
		      .flags = ARCH_F_MEM_RSP, .opcode_offset = 4, .modrm_offset = 5),
		ENTRY("vprotb xmm0, [rip+1], 5 (XOP)", B(0x8F, 0xE8, 0x78, 0xC0, 0x05, 1, 0, 0, 0, 5),
		      .opcode_offset = 3, .modrm_offset = 4, .disp_offset = 5, .target = AT + 11),
		ENTRY("pfadd mm0, [rip+1] (3DNow!)", B(0x0F, 0x0F, 0x05, 1, 0, 0, 0, 0x9E), .modrm_offset = 2,
		      .disp_offset = 3, .target = AT + 9),
		ENTRY("xabort 1", B(0xC6, 0xF8, 0x01), .modrm_offset = 1),
		ENTRY("syscall", B(0x0F, 0x05), .flags = ARCH_F_SYSCALL),
		ENTRY("sysenter", B(0x0F, 0x34), .flags = ARCH_F_SYSCALL),
		ENTRY("int 0x80", B(0xCD, 0x80), .flags = ARCH_F_SYSCALL),
	};

	expect_insns(cases, ARRAY_SIZE(cases));
}

Test(decode, nops_and_traps)
{
	const unsigned int nop = ARCH_F_NOP | ARCH_F_FILLER;
	const struct decode_case cases[] = {
		ENTRY("endbr64", B(0xF3, 0x0F, 0x1E, 0xFA), .flags = ARCH_F_ENDBR, .opcode_offset = 1,
		      .modrm_offset = 3),
		ENTRY("endbr32", B(0xF3, 0x0F, 0x1E, 0xFB), .flags = nop, .opcode_offset = 1, .modrm_offset = 3),
		ENTRY("rdsspq rax", B(0xF3, 0x48, 0x0F, 0x1E, 0xC8), .opcode_offset = 2, .modrm_offset = 4),
		ENTRY("nop", B(0x90), .flags = nop),
		ENTRY("xchg ax, ax", B(0x66, 0x90), .flags = nop, .opcode_offset = 1),
		ENTRY("pause is more than a nop", B(0xF3, 0x90), .opcode_offset = 1),
		ENTRY("xchg eax, r8d", B(0x41, 0x90), .opcode_offset = 1),
		ENTRY("nop [rax+rax]", B(0x0F, 0x1F, 0x44, 0, 0), .flags = nop, .modrm_offset = 2),
		ENTRY("nop cs:[rax+rax]", B(0x66, 0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0), .flags = nop,
		      .opcode_offset = 3, .modrm_offset = 5),
		ENTRY("nop [rip+1] refers to nothing", B(0x0F, 0x1F, 0x05, 1, 0, 0, 0), .flags = nop,
		      .modrm_offset = 2),
		ENTRY("nop [eip+1] too", B(0x67, 0x0F, 0x1F, 0x05, 1, 0, 0, 0), .flags = nop, .opcode_offset = 1,
		      .modrm_offset = 3),
		ENTRY("int3", B(0xCC), .kind = ARCH_TRAP, .flags = ARCH_F_FILLER),
		ENTRY("int 3", B(0xCD, 0x03), .kind = ARCH_TRAP),
		ENTRY("int1", B(0xF1), .kind = ARCH_TRAP),
		ENTRY("hlt", B(0xF4), .kind = ARCH_TRAP, .flags = ARCH_F_NOFALL),
		ENTRY("ud2", B(0x0F, 0x0B), .kind = ARCH_TRAP, .flags = ARCH_F_NOFALL),
		ENTRY("ud1 eax, [eax+2]", B(0x67, 0x0F, 0xB9, 0x40, 0x02), .kind = ARCH_TRAP, .flags = ARCH_F_NOFALL,
		      .opcode_offset = 1, .modrm_offset = 3),
		ENTRY("ud0 eax, [rip+1]", B(0x0F, 0xFF, 0x05, 1, 0, 0, 0), .kind = ARCH_TRAP, .flags = ARCH_F_NOFALL,
		      .modrm_offset = 2, .disp_offset = 3, .target = AT + 8),
	};

	expect_insns(cases, ARRAY_SIZE(cases));
}

Test(decode, refused)
{
	const unsigned int no = ARCH_F_REFUSED;
	const struct decode_case cases[] = {
		ENTRY("mov eax, [eip+1]", B(0x67, 0x8B, 0x05, 1, 0, 0, 0), .flags = no, .opcode_offset = 1,
		      .modrm_offset = 2, .disp_offset = 3, .target = AT + 8, .why = "EIP"),
		ENTRY("jmp [eip+1]", B(0x67, 0xFF, 0x25, 1, 0, 0, 0), .kind = ARCH_JMP_IND, .flags = no | ARCH_F_NOFALL,
		      .opcode_offset = 1, .modrm_offset = 2, .disp_offset = 3, .target = AT + 8, .why = "EIP"),
		ENTRY("data16 jmp rel8", B(0x66, 0xEB, 1), .kind = ARCH_JMP, .flags = no | ARCH_F_NOFALL,
		      .rel_offset = 2,
		      .rel_size = 1, .opcode_offset = 1, .target = AT + 4, .why = "16-bit"),
		ENTRY("data16 call rel32", B(0x66, 0xE8, 1, 0, 0, 0), .kind = ARCH_CALL, .flags = no, .rel_offset = 2,
		      .rel_size = 4, .opcode_offset = 1, .target = AT + 7, .why = "16-bit"),
		ENTRY("data16 call, REX before the prefix", B(0x48, 0x66, 0xE8, 1, 0, 0, 0), .kind = ARCH_CALL,
		      .flags = no, .rel_offset = 3, .rel_size = 4, .opcode_offset = 2, .target = AT + 8,
		      .why = "16-bit"),
		ENTRY("data16 je rel32", B(0x66, 0x0F, 0x84, 1, 0, 0, 0), .kind = ARCH_JCC, .flags = no,
		      .rel_offset = 3,
		      .rel_size = 4, .opcode_offset = 1, .target = AT + 8, .why = "16-bit"),
		ENTRY("data16 je rel8", B(0x66, 0x74, 1), .kind = ARCH_JCC, .flags = no, .rel_offset = 2, .rel_size = 1,
		      .opcode_offset = 1, .target = AT + 4, .why = "16-bit"),
		ENTRY("data16 loop", B(0x66, 0xE2, 1), .kind = ARCH_LOOP, .flags = no, .rel_offset = 2, .rel_size = 1,
		      .opcode_offset = 1, .target = AT + 4, .why = "16-bit"),
		ENTRY("call ax", B(0x66, 0xFF, 0xD0), .kind = ARCH_CALL_IND, .flags = no, .opcode_offset = 1,
		      .modrm_offset = 2, .why = "16-bit"),
		ENTRY("call far [rax]", B(0xFF, 0x18), .kind = ARCH_CALL_IND, .flags = no, .modrm_offset = 1,
		      .why = "far call"),
		ENTRY("call far [rsp]", B(0xFF, 0x1C, 0x24), .kind = ARCH_CALL_IND, .flags = no | ARCH_F_MEM_RSP,
		      .modrm_offset = 1, .why = "far call"),
		ENTRY("xbegin rel16", B(0x66, 0xC7, 0xF8, 0x10, 0), .kind = ARCH_XBEGIN, .flags = no, .rel_offset = 3,
		      .rel_size = 2, .opcode_offset = 1, .modrm_offset = 2, .target = AT + 0x15, .why = "16-bit"),
	};

	expect_insns(cases, ARRAY_SIZE(cases));
}

Test(decode, not_instructions)
{
	static const uint8_t invalid[] = { 0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37,
					   0x3F, 0x60, 0x61, 0x82, 0x9A, 0xCE, 0xD4, 0xD6, 0xEA };
	uint8_t bytes[16] = { 0 };
	struct arch_insn insn;
	size_t i;

	for (i = 0; i < sizeof(invalid); i++) {
		bytes[0] = invalid[i];
		cr_expect_not(arch_decode(bytes, sizeof(bytes), AT, &insn), "%#x", invalid[i]);
	}
	/* Sixteen bytes long, and cut short at every length. */
	memset(bytes, 0x66, sizeof(bytes));
	bytes[15] = 0x90;
	cr_expect_not(arch_decode(bytes, sizeof(bytes), AT, &insn));
	memcpy(bytes, (uint8_t[]){ 0x67, 0x64, 0x48, 0xC7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8 }, 14);
	for (i = 0; i < 14; i++)
		cr_expect_not(arch_decode(bytes, i, AT, &insn), "%zu", i);
	cr_expect(arch_decode(bytes, 14, AT, &insn) && insn.length == 14);
}

/* What must hold whatever the bytes are; every opcode of every map is met many times. */
Test(decode, properties)
{
	uint64_t seed = 0x9E3779B97F4A7C15;
	uint8_t bytes[16];
	struct arch_insn insn;
	int32_t field;
	unsigned int i, k;

	for (i = 0; i < 1000000; i++) {
		for (k = 0; k < 2; k++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			memcpy(bytes + 8 * k, &seed, 8);
		}
		/* Leave 5 of 8 as they are; give the others a map prefix. */
		static const uint8_t maps[] = { 0x0F, 0xC4, 0x62 };
		if (i % 8 < sizeof(maps))
			bytes[0] = maps[i % 8];
		if (!arch_decode(bytes, sizeof(bytes), AT, &insn))
			continue;
		cr_assert(insn.length >= 1 && insn.length <= 15);
		cr_assert_lt(insn.opcode_offset, insn.length);
		cr_assert_lt(insn.modrm_offset, insn.length);
		cr_assert_eq(!!(insn.flags & ARCH_F_REFUSED), insn.why != NULL);
		if (insn.disp_offset != 0) {
			cr_assert_eq(insn.disp_offset, insn.modrm_offset + 1);
			cr_assert_leq(insn.disp_offset + 4, insn.length);
			memcpy(&field, bytes + insn.disp_offset, 4);
			cr_assert_eq(insn.target, AT + insn.length + (uintptr_t)(intptr_t)field);
		}
		if (insn.rel_offset != 0) {
			cr_assert_eq(insn.rel_offset + insn.rel_size, insn.length);
			cr_assert(insn.rel_size == 1 || insn.rel_size == 4 || insn.flags & ARCH_F_REFUSED);
		}
		switch (insn.kind) {
		case ARCH_JMP:
		case ARCH_JCC:
		case ARCH_LOOP:
		case ARCH_CALL:
		case ARCH_XBEGIN:
			cr_assert(insn.rel_offset != 0);
			break;
		default:
			/* Zydis knows branches of the Xeon Phi coprocessors, jkzd and jknzd. */
			cr_assert(insn.rel_offset == 0 || insn.flags & ARCH_F_REFUSED);
		}
	}
}

static size_t known;

/* Of an instruction that is cut off nothing may be said. It takes long to be told so by Zydis: of some. */
static void expect_whole(const uint8_t bytes[INSN_MAX], uint8_t length)
{
	struct arch_insn insn;

	for (size_t size = known % 16 == 0 ? 0 : length; size < length; size++)
		cr_assert_not(arch_decode(bytes, size, AT, &insn), "%02x %02x %02x, %zu of %u bytes", bytes[0],
			      bytes[1], bytes[2], size, length);
}

/* A plain instruction is not decoded where only its length matters. */
static void expect_length(const uint8_t bytes[INSN_MAX], const struct arch_insn *insn)
{
	const size_t length = arch_plain_length(bytes);

	cr_assert(length == 0 || (length == insn->length && insn->kind == ARCH_PLAIN &&
				  (insn->flags & ~(unsigned int)ARCH_F_MEM_RSP) == 0),
		  "%02x %02x %02x %02x: length %zu, %u; kind %u, flags %#x", bytes[0], bytes[1], bytes[2], bytes[3],
		  length, insn->length, insn->kind, insn->flags);
}

/* What the table says must be what Zydis says. */
static void expect_alike(const uint8_t bytes[INSN_MAX])
{
	struct arch_insn common, any;

	if (!arch_decode(bytes, INSN_MAX, AT, &common)) {
		cr_assert_eq(arch_plain_length(bytes), 0);
		return;
	}
	known++;
	cr_assert(decode_zydis(bytes, INSN_MAX, AT, &any), "%02x %02x %02x is none", bytes[0], bytes[1], bytes[2]);
	cr_assert(memcmp(&common, &any, sizeof(any)) == 0,
		  "%02x %02x %02x %02x: length %u, %u; kind %u, %u; flags %#x, %#x", bytes[0], bytes[1], bytes[2],
		  bytes[3], common.length, any.length, common.kind, any.kind, common.flags, any.flags);
	expect_whole(bytes, any.length);
	expect_length(bytes, &any);
}

/* Every opcode of three maps and ModRM, with every SIB where there is one, or with some. */
static void expect_all_alike(const uint8_t *front, size_t size, unsigned int sib_step)
{
	const uint8_t escape = 0x0F;

	for (unsigned int i = 0; i < 3 * 256 * 256; i++) {
		const unsigned int modrm = i >> 8 & 0xFF, map = i >> 16;
		const bool has_sib = (modrm & 7) == 4 && modrm >> 6 != 3;
		uint8_t bytes[INSN_MAX + 12] = { 0 };
		size_t at = size;

		memcpy(bytes, front, size);
		if (map == 2)
			bytes[at++] = 0xF3;
		if (map >= 1)
			bytes[at++] = escape;
		bytes[at++] = (uint8_t)i;
		bytes[at++] = (uint8_t)modrm;
		for (unsigned int sib = 0; sib < (has_sib ? 256 : 1); sib += sib_step) {
			for (size_t k = at; k < INSN_MAX; k++)
				bytes[k] = (uint8_t)(0x81 + 29 * k);
			if (has_sib)
				bytes[at] = (uint8_t)sib;
			expect_alike(bytes);
		}
	}
}

/* With every REX, and with those that matter behind prefixes. */
Test(decode, common_ones_as_any, .timeout = 3600)
{
	static const struct {
		uint8_t bytes[12];
		size_t size;
	} prefixes[] = { { B(0x66) }, { B(0x2E) }, { B(0x64) }, { B(0x65) }, { B(0x67) },
			 { B(0xF2) }, { B(0xF3) }, { B(0xF0) }, { B(0x66, 0x2E) }, { B(0x66, 0x66) },
			 { B(0x2E, 0x66) }, { B(0x66, 0xF3) }, { B(0xF3, 0x66) }, { B(0x66, 0x64) },
			 { B(0x66, 0x66, 0x66, 0x2E) }, { B(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2E) },
			 { B(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2E) },
			 { B(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2E) } };
	static const uint8_t rexes[] = { 0, 0x40, 0x41, 0x44, 0x48, 0x4F };

	for (unsigned int rex = 0x3F; rex <= 0x4F; rex++) {
		const uint8_t front = (uint8_t)rex;

		/* As if there were no REX. */
		expect_all_alike(&front, rex >= 0x40, 1);
	}
	cr_expect_gt(known, 1000000);
	known = 0;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		for (size_t r = 0; r < ARRAY_SIZE(rexes); r++) {
			uint8_t front[9];

			memcpy(front, prefixes[i].bytes, prefixes[i].size);
			front[prefixes[i].size] = rexes[r];
			expect_all_alike(front, prefixes[i].size + (r > 0), 17);
		}
	cr_expect_gt(known, 100000);
}

/* Named or implied, in parts or whole. */
Test(decode, general_registers)
{
	enum { RAX = 1, RCX = 2, RDX = 4, RBX = 8, RSP = 16, RSI = 64, R9 = 1 << 9, R12 = 1 << 12 };
	static const struct {
		const char *text;
		uint8_t bytes[16];
		size_t size;
		uint16_t registers;
	} cases[] = {
		{ "nop", B(0x90), 0 },
		{ "mov ah, [rip]", B(0x8A, 0x25, 0, 0, 0, 0), RAX },
		{ "mov spl, [rip]", B(0x40, 0x8A, 0x25, 0, 0, 0, 0), RSP },
		{ "mov r12, [rip]", B(0x4C, 0x8B, 0x25, 0, 0, 0, 0), R12 },
		{ "mov cx, [rsp+r9]", B(0x66, 0x42, 0x8B, 0x0C, 0x0C), RCX | RSP | R9 },
		{ "push [rip]", B(0xFF, 0x35, 0, 0, 0, 0), RSP },
		{ "cmpxchg16b [rip]", B(0x48, 0x0F, 0xC7, 0x0D, 0, 0, 0, 0), RAX | RCX | RDX | RBX },
		{ "mul qword [rip]", B(0x48, 0xF7, 0x25, 0, 0, 0, 0), RAX | RDX },
		{ "shl dword [rip], cl", B(0xD3, 0x25, 0, 0, 0, 0), RCX },
		{ "xsave [rip]", B(0x0F, 0xAE, 0x25, 0, 0, 0, 0), RAX | RDX },
		{ "addps xmm4, [rip]", B(0x0F, 0x58, 0x25, 0, 0, 0, 0), 0 },
		{ "pcmpestri xmm4, [rip], 0", B(0x66, 0x0F, 0x3A, 0x61, 0x25, 0, 0, 0, 0, 0), RAX | RCX | RDX },
		{ "mulx rsi, rax, [rip]", B(0xC4, 0xE2, 0xFB, 0xF6, 0x35, 0, 0, 0, 0), RAX | RDX | RSI },
	};
	struct arch_insn insn;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_assert(arch_decode(cases[i].bytes, cases[i].size, AT, &insn), "%s", cases[i].text);
		cr_expect_eq(arch_general_registers(cases[i].bytes, &insn), cases[i].registers, "%s: %#x",
			     cases[i].text, arch_general_registers(cases[i].bytes, &insn));
	}
}

/* What the bytes say of the stack pointer, and where they do not. */
Test(decode, stack_change)
{
	enum { UNKNOWN = 1 << 30 };
	static const struct {
		const char *text;
		uint8_t bytes[16];
		size_t size;
		int32_t change;
	} cases[] = {
		{ "mov rax, rsp", B(0x48, 0x89, 0xE0), 0 },
		{ "mov [rsp], rax", B(0x48, 0x89, 0x04, 0x24), 0 },
		{ "test rsp, rsp", B(0x48, 0x85, 0xE4), 0 },
		{ "jmp rax", B(0xFF, 0xE0), 0 },
		{ "push rsp", B(0x54), -8 },
		{ "push word 1", B(0x66, 0x6A, 1), -2 },
		{ "push qword [rsp]", B(0xFF, 0x34, 0x24), -8 },
		{ "push fs", B(0x0F, 0xA0), -8 },
		{ "pushfq", B(0x9C), -8 },
		{ "pop r12", B(0x41, 0x5C), 8 },
		{ "pop ax", B(0x66, 0x58), 2 },
		{ "pop qword [rsp]", B(0x8F, 0x04, 0x24), 8 },
		{ "pop rsp", B(0x5C), UNKNOWN },
		{ "popfq", B(0x9D), 8 },
		{ "call $", B(0xE8, 0, 0, 0, 0), -8 },
		{ "call [rsp+8]", B(0xFF, 0x54, 0x24, 8), -8 },
		{ "ret", B(0xC3), 8 },
		{ "ret 0x8010", B(0xC2, 0x10, 0x80), 8 + 0x8010 },
		{ "retf", B(0xCB), UNKNOWN },
		{ "iretq", B(0x48, 0xCF), UNKNOWN },
		{ "sub rsp, 8", B(0x48, 0x83, 0xEC, 8), -8 },
		{ "sub rsp, -128", B(0x48, 0x83, 0xEC, 0x80), 128 },
		{ "sub rsp, 0x12345", B(0x48, 0x81, 0xEC, 0x45, 0x23, 1, 0), -0x12345 },
		{ "add rsp, 0x7f", B(0x48, 0x83, 0xC4, 0x7F), 0x7F },
		{ "add esp, 8", B(0x83, 0xC4, 8), UNKNOWN },
		{ "adc rsp, 8", B(0x48, 0x83, 0xD4, 8), UNKNOWN },
		{ "add rsp, rax", B(0x48, 0x01, 0xC4), UNKNOWN },
		{ "add rsp, [rax]", B(0x48, 0x03, 0x20), UNKNOWN },
		{ "and rsp, -32", B(0x48, 0x83, 0xE4, 0xE0), UNKNOWN },
		{ "lea rsp, [rsp-128]", B(0x48, 0x8D, 0x64, 0x24, 0x80), -128 },
		{ "lea rsp, [rbp-40]", B(0x48, 0x8D, 0x65, 0xD8), UNKNOWN },
		{ "lea rsp, [rsp+rax+8]", B(0x48, 0x8D, 0x64, 0x04, 8), UNKNOWN },
		{ "lea rsp, [esp-128]", B(0x67, 0x48, 0x8D, 0x64, 0x24, 0x80), UNKNOWN },
		{ "mov rsp, rbp", B(0x48, 0x89, 0xEC), UNKNOWN },
		{ "mov spl, 1", B(0x40, 0xB4, 1), UNKNOWN },
		{ "leave", B(0xC9), UNKNOWN },
		{ "enter 0, 0", B(0xC8, 0, 0, 0), UNKNOWN },
		{ "xchg rsp, rax", B(0x48, 0x94), UNKNOWN },
		{ "xchg [rsp], rsp", B(0x48, 0x87, 0x24, 0x24), UNKNOWN },
		{ "cmove rsp, rax", B(0x48, 0x0F, 0x44, 0xE0), UNKNOWN },
	};
	struct arch_insn insn;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		int32_t change;

		cr_assert(arch_decode(cases[i].bytes, cases[i].size, AT, &insn), "%s", cases[i].text);
		if (!arch_stack_change(cases[i].bytes, &insn, &change))
			change = UNKNOWN;
		cr_expect_eq(change, cases[i].change, "%s: %d", cases[i].text, change);
	}
}

static void *decode_concurrently(void *ready)
{
	static const uint8_t nop[] = { 0x66, 0x90 };
	struct arch_insn insn;
	uintptr_t ok = 0;
	int i;

	pthread_barrier_wait(ready);
	for (i = 0; i < 1000; i++)
		ok += decode_zydis(nop, sizeof(nop), AT, &insn) && insn.length == sizeof(nop);
	return (void *)ok;
}

/* The settings are made by whoever comes first; Criterion runs each test in a fresh process. */
Test(decode, first_use_by_many_threads)
{
	enum { THREADS = 8 };
	pthread_t threads[THREADS];
	pthread_barrier_t ready;
	void *ok;
	int i;

	pthread_barrier_init(&ready, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, decode_concurrently, &ready), 0);
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &ok);
		cr_expect_eq((uintptr_t)ok, 1000);
	}
}
