/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The code of a hook: saves what the masks and the System V ABI demand, calls the procedure, puts everything back. Frame
 * layout in frame.h. Nothing of the program's is touched outside the frame; flags are kept from the first instruction to
 * the last.
 */
#include "../arch.h"

#include "frame.h"

enum hardware_register { RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7, R8 = 8 };

/* Hardware number of general_purpose_registers[i]. */
static const uint8_t hardware[PATCH_ARCH_GREGS_COUNT] = { RAX, RBX, RCX, RDX, RSI, RDI, RBP, 8, 9, 10, 11, 12, 13, 14, 15 };

#define MASK(name) ((uint64_t)1 << PATCH_X86_64_##name)
/* What a function may destroy (System V AMD64 psABI, 3.2.1). */
#define CALLER_SAVED                                                                                                   \
	(MASK(RAX) | MASK(RCX) | MASK(RDX) | MASK(RSI) | MASK(RDI) | MASK(R8) | MASK(R9) | MASK(R10) | MASK(R11))

#define PRIVATE(i) (ARCH_HOOK_FRAME_REGISTERS + 8 * (i))
#define CONTEXT(field) (ARCH_HOOK_FRAME_CONTEXT + (int32_t)offsetof(struct patch_exec_context, field))
#define OFFERED(i) (CONTEXT(general_purpose_registers) + 8 * (int32_t)(i))

_Static_assert(ARCH_HOOK_FRAME_CONTEXT + sizeof(struct patch_exec_context) == ARCH_HOOK_FRAME_SIZE, "frame layout");
_Static_assert(PRIVATE(PATCH_ARCH_GREGS_COUNT) == ARCH_HOOK_FRAME_CONTEXT, "frame layout");
_Static_assert(offsetof(struct patch_exec_context, user_data) == 0x88, "interface");
_Static_assert(offsetof(struct patch_exec_context, extended_states) == 0x90, "interface");

static void emit(struct arch_code *code, const char *bytes, size_t size)
{
	arch_emit_bytes(code, bytes, size);
}
#define EMIT(literal) emit(code, literal, sizeof(literal) - 1)

/* opcode reg, [rsp + offset], 64 bits wide */
static void emit_rsp_slot(struct arch_code *code, uint8_t opcode, uint8_t reg, int32_t offset)
{
	arch_emit_u8(code, reg >= R8 ? 0x4C : 0x48);
	arch_emit_u8(code, opcode);
	if (offset >= -128 && offset < 128) {
		arch_emit_u8(code, 0x44 | (reg & 7) << 3);
		arch_emit_u8(code, 0x24);
		arch_emit_u8(code, (uint8_t)offset);
	} else {
		arch_emit_u8(code, 0x84 | (reg & 7) << 3);
		arch_emit_u8(code, 0x24);
		arch_emit_u32(code, (uint32_t)offset);
	}
}

static void emit_store(struct arch_code *code, int32_t offset, uint8_t reg)
{
	emit_rsp_slot(code, 0x89, reg, offset);
}

static void emit_load(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_rsp_slot(code, 0x8B, reg, offset);
}

static void emit_lea(struct arch_code *code, uint8_t reg, int32_t offset)
{
	emit_rsp_slot(code, 0x8D, reg, offset);
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

/*
 * Out of the hook's way, when the guard is not 0. rax: the guard. Returns 0 in rax when the hook may run, see
 * threads_may_run(). Keeps every other register but flags.
 */
void libpatch_may_run(void) __attribute__((visibility("hidden")));
__asm__(".text\n"
	".globl libpatch_may_run\n"
	".hidden libpatch_may_run\n"
	".type libpatch_may_run, @function\n"
	"libpatch_may_run:\n"
	"	.cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset %rbp, -16\n"
	"	mov %rsp, %rbp\n"
	"	.cfi_def_cfa_register %rbp\n"
	"	push %rcx\n"
	"	push %rdx\n"
	"	push %rsi\n"
	"	push %rdi\n"
	"	push %r8\n"
	"	push %r9\n"
	"	push %r10\n"
	"	push %r11\n"
	"	cld\n"
	"	mov %rax, %rdi\n"
	"	lea 16(%rbp), %rsi\n" /* the frame's base */
	"	and $-16, %rsp\n"
	"	call threads_may_run\n"
	"	lea -64(%rbp), %rsp\n"
	"	xor $1, %al\n"
	"	movzbl %al, %eax\n"
	"	pop %r11\n"
	"	pop %r10\n"
	"	pop %r9\n"
	"	pop %r8\n"
	"	pop %rdi\n"
	"	pop %rsi\n"
	"	pop %rdx\n"
	"	pop %rcx\n"
	"	pop %rbp\n"
	"	.cfi_def_cfa %rsp, 8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size libpatch_may_run, . - libpatch_may_run\n");

/* Static thread-local storage has the same offset from %fs in every thread (ELF TLS, variant II). */
static int32_t tls_offset(const void *variable)
{
	uintptr_t base;

	__asm__("mov %%fs:0, %0" : "=r"(base));
	return (int32_t)((uintptr_t)variable - base);
}

/* Where errno is. */
static int32_t errno_offset;

/* Early: __errno_location() must not be called under the library lock, when it may be patched (I9). */
__attribute__((constructor(101))) static void locate_errno(void)
{
	errno_offset = tls_offset(&errno);
}

/* Make the rel32 that ends at `from` lead to the current offset. */
static void land(struct arch_code *code, size_t from)
{
	uint32_t distance = (uint32_t)(code->size - from);

	if (code->bytes != NULL && from <= code->capacity)
		__builtin_memcpy(code->bytes + from - 4, &distance, sizeof(distance));
}

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

/* mov rax, [operand of an FF /4], with the program's registers but rsp, which is the frame's base. */
static void emit_load_operand(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn)
{
	uint8_t rex = 0x48;
	uint8_t modrm = bytes[insn->modrm_offset] & 0xC7;
	size_t at = insn->modrm_offset + 1U;

	for (unsigned int i = 0; i < insn->opcode_offset; ++i) {
		/* Of the prefixes, FS, GS, address size and the extensions of base and index matter here. */
		if (bytes[i] == 0x64 || bytes[i] == 0x65 || bytes[i] == 0x67)
			arch_emit_u8(code, bytes[i]);
		else if ((bytes[i] & 0xF0) == 0x40)
			rex |= bytes[i] & 3;
	}
	if (code->far && insn->disp_offset != 0) {
		EMIT("\x48\xA1"); /* mov rax, [moffs64] */
		arch_emit_u64(code, insn->target);
		return;
	}
	arch_emit_u8(code, rex);
	arch_emit_u8(code, 0x8B);
	if (insn->flags & ARCH_F_MEM_RSP) {
		int32_t disp = ARCH_HOOK_FRAME_TOTAL;

		arch_emit_u8(code, (modrm & 0x3F) | 0x80);
		arch_emit_u8(code, bytes[at++]);
		if (modrm >> 6 == 1) {
			disp += (int8_t)bytes[at];
		} else if (modrm >> 6 == 2) {
			int32_t own;

			__builtin_memcpy(&own, bytes + at, sizeof(own));
			disp += own;
		}
		arch_emit_u32(code, (uint32_t)disp);
		return;
	}
	arch_emit_u8(code, modrm);
	if (insn->disp_offset != 0)
		arch_emit_rel32(code, insn->target, 0);
	else
		arch_emit_bytes(code, bytes + at, insn->length - at);
}

/* rax: where an indirect jump or a return leads, if that is in the function, else program_counter. */
static void emit_where_to(struct arch_code *code, const struct arch_hook *hook)
{
	size_t inside;

	if (hook->leaves->kind == ARCH_RET) {
		emit_load(code, RAX, ARCH_HOOK_FRAME_TOTAL);
	} else {
		emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
		emit_load_operand(code, hook->leaves_bytes, hook->leaves);
	}
	EMIT("\x48\xB9");         /* mov rcx, lower */
	arch_emit_u64(code, hook->lower);
	EMIT("\x48\x89\xC2"      /* mov rdx, rax */
	     "\x48\x29\xCA"      /* sub rdx, rcx */
	     "\x48\x81\xFA");    /* cmp rdx, upper - lower */
	arch_emit_u32(code, (uint32_t)(hook->upper - hook->lower));
	EMIT("\x0F\x82");         /* jb inside */
	arch_emit_u32(code, 0);
	inside = code->size;
	EMIT("\x48\xB8");         /* mov rax, program_counter */
	arch_emit_u64(code, hook->program_counter);
	land(code, inside);
}

/* What a return takes off the stack: ret, ret imm16. */
static int32_t popped_by(const struct arch_hook *hook)
{
	const uint8_t *operand;

	if (hook->leaves == NULL || hook->leaves->kind != ARCH_RET)
		return 0;
	operand = hook->leaves_bytes + hook->leaves->opcode_offset;
	return operand[0] == 0xC2 ? 8 + (operand[1] | operand[2] << 8) : 8;
}

/* Leaves the record's address in rcx. */
static void emit_context(struct arch_code *code, const struct arch_hook *hook)
{
	if (hook->leaves != NULL && hook->upper != 0 && hook->upper - hook->lower <= INT32_MAX)
		emit_where_to(code, hook);
	else
		emit_set_rax(code, hook->program_counter);
	emit_store(code, CONTEXT(program_counter), RAX);
	emit_lea(code, RAX, ARCH_HOOK_FRAME_TOTAL + popped_by(hook));
	emit_store(code, CONTEXT(stack_pointer), RAX);
	emit_load(code, RCX, ARCH_HOOK_FRAME_RECORD);
	EMIT("\x48\x8B\x41\x08"); /* mov rax, [rcx + user_data] */
	emit_store(code, CONTEXT(user_data), RAX);
	EMIT("\x48\x8B\x04\x24"); /* mov rax, [rsp] */
	emit_store(code, CONTEXT(status_register), RAX);
}

/* The procedure's stack: aligned, with a way back to the frame. rdi, rsi, and rcx, the record, are set. */
static void emit_call(struct arch_code *code)
{
	/* The base's address goes into the 128 bytes below rsp, where signal frames do not go, then rsp to it. */
	EMIT("\x48\x8D\x44\x24\xF0"  /* lea rax, [rsp - 16] */
	     "\x48\x83\xE0\xC0"      /* and rax, -64 */
	     "\x48\x89\x20"          /* mov [rax], rsp */
	     "\x48\x89\xC4");        /* mov rsp, rax */
	arch_emit_row(code, ARCH_ROW_CFA_CALL);
	EMIT("\xFF\x11"              /* call [rcx + procedure] */
	     "\x48\x8B\x24\x24");    /* mov rsp, [rsp] */
	arch_emit_row(code, ARCH_ROW_CFA_FRAME);
}

static void emit_call_extended(struct arch_code *code)
{
	uint32_t mask = (uint32_t)arch_xsave_mask();

	EMIT("\x48\x8D\x44\x24\xF0"  /* lea rax, [rsp - 16] */
	     "\x48\x83\xE0\xC0"      /* and rax, -64 */
	     "\x48\x89\x20"          /* mov [rax], rsp */
	     "\x48\x89\xC4");        /* mov rsp, rax */
	arch_emit_row(code, ARCH_ROW_CFA_CALL);
	EMIT("\x48\x81\xEC");        /* sub rsp, ARCH_HOOK_IMAGE_SIZE */
	arch_emit_u32(code, ARCH_HOOK_IMAGE_SIZE);
	arch_emit_row(code, ARCH_ROW_CFA_CALL_EXTENDED);
	EMIT("\x48\x89\xA7");        /* mov [rdi + extended_states], rsp */
	arch_emit_u32(code, offsetof(struct patch_exec_context, extended_states));
	/* XSAVE writes the first word of the header, XRSTOR faults unless the rest is 0 (Intel SDM vol. 1, 13.4.2). */
	EMIT("\x31\xC0");            /* xor eax, eax */
	for (int i = 1; i < 8; ++i) {
		EMIT("\x48\x89\x84\x24"); /* mov [rsp + 512 + 8 i], rax */
		arch_emit_u32(code, 512 + 8 * i);
	}
	/* Where a signal frame says what it holds (struct _fpx_sw_bytes, magic1): this is none. */
	EMIT("\x89\x84\x24\xD0\x01\x00\x00" /* mov [rsp + 464], eax */
	     "\x31\xD2\xB8");        /* xor edx, edx; mov eax, mask */
	arch_emit_u32(code, mask);
	EMIT("\x48\x0F\xAE\x24\x24"); /* xsave64 [rsp] */
	/*
	 * XSAVE writes every component asked for, also those in their initial state (13.7), but does not mark those: mark
	 * all, so that what the procedure writes to them is restored.
	 */
	EMIT("\x48\x89\x84\x24");    /* mov [rsp + 512], rax */
	arch_emit_u32(code, 512);
	EMIT("\xFF\x11"              /* call [rcx + procedure] */
	     "\x31\xD2\xB8");        /* xor edx, edx; mov eax, mask */
	arch_emit_u32(code, mask);
	EMIT("\x48\x0F\xAE\x2C\x24"  /* xrstor64 [rsp] */
	     "\x48\x8B\xA4\x24");    /* mov rsp, [rsp + ARCH_HOOK_IMAGE_SIZE] */
	arch_emit_u32(code, ARCH_HOOK_IMAGE_SIZE);
	arch_emit_row(code, ARCH_ROW_CFA_FRAME);
}

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook)
{
	const uint64_t general = PATCH_REGS_GP_ONLY;
	const int32_t guard = tls_offset(&libpatch_hook_guard.guard);
	const int32_t error = errno_offset != 0 ? errno_offset : tls_offset(&errno);
	uint64_t destroyed = CALLER_SAVED | (hook->clobber & general);
	uint64_t offered = (hook->read | hook->write) & general;
	uint64_t written = hook->write & general;
	bool extended = (hook->clobber & ~general) != 0;
	size_t done, guarded, closed, constant, fresh, passed_over;

	arch_emit_row(code, 0);
	emit_lea(code, RSP, -(ARCH_HOOK_FRAME_TOTAL - 8));
	arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
	EMIT("\x9C"); /* pushfq */
	arch_emit_row(code, ARCH_ROW_CFA_FRAME);
	emit_store(code, PRIVATE(PATCH_X86_64_RAX), RAX);
	if (offered & MASK(RAX))
		emit_store(code, OFFERED(PATCH_X86_64_RAX), RAX);

	/*
	 * The order of the next four is what quiescence rests on (threads.h): no record in the frame, the guard, the slot
	 * read, the record in the frame.
	 */
	EMIT_FS("\x64\x48\x8B\x04\x25", guard); /* mov rax, fs:[guard] */
	EMIT("\x48\x85\xC0"                     /* test rax, rax */
	     "\x0F\x85");                       /* jne guarded */
	arch_emit_u32(code, 0);
	guarded = code->size;
	fresh = code->size;
	emit_store(code, ARCH_HOOK_FRAME_RECORD, RAX);
	EMIT_FS("\x64\x48\x89\x24\x25", guard); /* mov fs:[guard], rsp */
	if (code->far) {
		EMIT("\x48\xA1");               /* mov rax, [slot] */
		arch_emit_u64(code, hook->slot);
	} else {
		EMIT("\x48\x8B\x05");           /* mov rax, [rip + slot] */
		arch_emit_rel32(code, hook->slot, 0);
	}
	EMIT("\x48\x85\xC0"                     /* test rax, rax */
	     "\x0F\x84");                       /* je closed */
	arch_emit_u32(code, 0);
	closed = code->size;
	emit_store(code, ARCH_HOOK_FRAME_RECORD, RAX);
	EMIT_FS("\x64\x8B\x04\x25", error);     /* mov eax, fs:[errno] */
	EMIT("\x89\x44\x24\x10"                 /* mov [rsp + ARCH_HOOK_FRAME_ERRNO], eax */
	     "\xFC");                           /* cld */

	for (unsigned int i = 1; i < PATCH_ARCH_GREGS_COUNT; ++i) {
		if (destroyed & ~written & (uint64_t)1 << i)
			emit_store(code, PRIVATE(i), hardware[i]);
		if (offered & (uint64_t)1 << i)
			emit_store(code, OFFERED(i), hardware[i]);
	}
	emit_context(code, hook);
	emit_lea(code, RDI, ARCH_HOOK_FRAME_CONTEXT);
	EMIT("\xBE"); /* mov esi, post */
	arch_emit_u32(code, hook->post);
	if (extended) {
		emit_call_extended(code);
	} else {
		EMIT("\x31\xC0"); /* xor eax, eax */
		emit_store(code, CONTEXT(extended_states), RAX);
		emit_call(code);
	}

	EMIT("\x8B\x44\x24\x10");               /* mov eax, [rsp + ARCH_HOOK_FRAME_ERRNO] */
	EMIT_FS("\x64\x89\x04\x25", error);     /* mov fs:[errno], eax */
	EMIT("\x31\xC0");                       /* xor eax, eax */
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
	passed_over = code->size;
	emit_load(code, RAX, PRIVATE(PATCH_X86_64_RAX));
	EMIT("\x9D"); /* popfq */
	arch_emit_row(code, ARCH_ROW_CFA_FRAME - 1);
	emit_lea(code, RSP, ARCH_HOOK_FRAME_TOTAL - 8);
	arch_emit_row(code, 0);
	EMIT("\xE9"); /* jmp done */
	arch_emit_u32(code, 0);
	done = code->size;

	/* Out of the way. */
	land(code, closed);
	arch_emit_row(code, ARCH_ROW_CFA_FRAME);
	EMIT_FS("\x64\x48\x89\x04\x25", guard); /* mov fs:[guard], rax */
	EMIT("\xE9");                             /* jmp passed_over */
	emit_back(code, passed_over);
	land(code, guarded);
	EMIT("\xFF\x15");                        /* call [rip + libpatch_may_run] */
	arch_emit_u32(code, 0);
	constant = code->size;
	EMIT("\x48\x85\xC0"                     /* test rax, rax */
	     "\x0F\x84");                       /* je fresh */
	emit_back(code, fresh);
	EMIT("\xE9");                             /* jmp passed_over */
	emit_back(code, passed_over);
	arch_emit_constant(code, constant, (uintptr_t)libpatch_may_run);
	land(code, done);
	arch_emit_row(code, 0);
}
