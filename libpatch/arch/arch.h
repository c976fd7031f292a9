/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Contract between generic and architecture code. Everything here is pure: bytes and addresses in, bytes and
 * descriptions out; nothing touches live memory. No Zydis type appears.
 */
#ifndef LIBPATCH_ARCH_ARCH_H
#define LIBPATCH_ARCH_ARCH_H

#include "base/compiler.h"

#include <libpatch/patch.h>

/* ---- decoding --------------------------------------------------------------------------------------------------- */

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

/* endbr64, as compilers write it; other prefixes can be in front of it. */
#define ARCH_ENDBR_SIZE 4
static inline bool arch_is_endbr(const uint8_t bytes[ARCH_ENDBR_SIZE])
{
	return bytes[0] == 0xF3 && bytes[1] == 0x0F && bytes[2] == 0x1E && bytes[3] == 0xFA;
}

/* May the instruction raise a signal of the trap bytes' by itself? False is sure. */
static inline bool arch_may_trap(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; ++i)
		if (bytes[i] == 0xCC || bytes[i] == 0xCD || bytes[i] == 0xF1 || bytes[i] == 0xF4 ||
		    (bytes[i] == 0x0F && i + 1 < length &&
		     (bytes[i + 1] == 0x0B || bytes[i + 1] == 0xB9 || bytes[i + 1] == 0xFF)))
			return true;
	return false;
}

/* The general purpose registers that the instruction refers to, or uses by itself: bit i for the one with number i. */
uint16_t arch_general_registers(const uint8_t *bytes, const struct arch_insn *insn);

/* May the byte be the opcode of a branch with an 8-bit displacement, which is the next byte? */
static inline bool arch_may_be_short_branch(uint8_t byte)
{
	return (byte & 0xF0) == 0x70 || byte == 0xEB || (byte & 0xFC) == 0xE0;
}

/* The same for any of the eight bytes. */
static inline bool arch_may_have_short_branch(uint64_t word)
{
	return bytes_have_zero((word & 0xF0 * BYTES_ONE) ^ 0x70 * BYTES_ONE) || bytes_have_zero(word ^ 0xEB * BYTES_ONE) ||
	       bytes_have_zero((word & 0xFC * BYTES_ONE) ^ 0xE0 * BYTES_ONE);
}

/* Has the calling thread a user shadow stack? RDSSP is a no-op without one (Intel SDM vol. 2; reserved NOP elsewhere). */
static inline bool arch_has_shadow_stack(void)
{
	uint64_t pointer = 0;

	__asm__ volatile("rdsspq %0" : "+r"(pointer));
	return pointer != 0;
}

/* An address in the library that decodes. */
const void *arch_decoder_code(void);

/* ---- emitting --------------------------------------------------------------------------------------------------- */

/*
 * What stands behind one stretch of generated code, for unwinders and for mapping a pc back: from code offset `code`
 * on, the original instruction is `original` bytes behind the region's start and the program's stack pointer is
 * rsp + cfa * 8, or *(rsp) + cfa * 8 when ARCH_ROW_DEREF is set; hooks: see
 * arch/x86-64/frame.h.
 */
struct arch_row {
	uint16_t code;
	uint8_t original;
	uint8_t cfa;
};
#define ARCH_ROW_DEREF 0x80

struct arch_cold;

/* Code under construction. Writing past `capacity` only counts, so that a dry run measures. */
struct arch_code {
	uint8_t *bytes;   /* NULL for a dry run */
	size_t capacity;
	size_t size;
	uintptr_t base;   /* address that bytes[0] will have */
	/*
	 * The code may lie anywhere: nothing in it refers by rel32 or disp32 to what is outside, but by 64 bits. Sizes depend
	 * on `base` modulo 8.
	 */
	bool far;
	bool out_of_range; /* some rel32 or disp32 did not reach */
	struct arch_row *rows;
	size_t row_capacity;
	size_t row_count;
	uint8_t original; /* offset of the instruction being emitted, for rows */
	struct arch_cold *cold; /* of hooks; NULL: there must be none */
};

static inline uintptr_t arch_code_here(const struct arch_code *code)
{
	return code->base + code->size;
}

/*
 * A piece that does not fit as a whole is not written, only counted, and nothing after it is. Inline: most pieces are a few
 * bytes, of a known number.
 */
static inline void arch_emit_bytes(struct arch_code *code, const void *bytes, size_t size)
{
	if (code->bytes && code->size <= code->capacity && size <= code->capacity - code->size)
		__builtin_memcpy(code->bytes + code->size, bytes, size);
	code->size += size;
}

static inline void arch_emit_u8(struct arch_code *code, uint8_t value)
{
	arch_emit_bytes(code, &value, sizeof(value));
}

static inline void arch_emit_u32(struct arch_code *code, uint32_t value)
{
	arch_emit_bytes(code, &value, sizeof(value));
}

static inline void arch_emit_u64(struct arch_code *code, uint64_t value)
{
	arch_emit_bytes(code, &value, sizeof(value));
}

/* The 32-bit distance from the end of a 4-byte field, written here, plus `tail` more bytes, to target. */
void arch_emit_rel32(struct arch_code *code, uintptr_t target, size_t tail);
/* jmp rel32, or, in far code, jmp [rip + ...] */
void arch_emit_jmp(struct arch_code *code, uintptr_t target);
/* Make a 4-byte field that ends at `field_end` the distance from there to the current offset. */
void arch_emit_label(struct arch_code *code, size_t field_end);
/* The same for another offset. */
void arch_emit_label_at(struct arch_code *code, size_t field_end, size_t offset);
/* 8 bytes, aligned, for such a field: the program may run with alignment checks (RFLAGS.AC). */
void arch_emit_constant(struct arch_code *code, size_t field_end, uint64_t value);
/* Begin a new row at the current offset; a row that would be empty is overwritten, an equal one is merged. */
void arch_emit_row(struct arch_code *code, uint8_t cfa);

/* ---- relocating ------------------------------------------------------------------------------------------------- */

/* Original address -> generated code, for branches that stay inside the region. */
struct arch_map {
	const uintptr_t *from;
	const uintptr_t *to;
	size_t count;
};

/*
 * Emit a copy of the instruction that does at arch_code_here(code) what the original does at `address`; control goes
 * on behind the copy where the original falls through. A call leaves the original return address on the stack (the
 * control flow of its return is the original program's). Branches to an address in `map` go to its generated code.
 *
 * `insn` must come from arch_decode() of the same bytes at `address` and not be ARCH_F_REFUSED. A displacement that does
 * not reach sets code->out_of_range.
 */
void arch_relocate(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
		   const struct arch_map *map);

/* Why it cannot be copied to far code; NULL: it can. Few cannot, all of them with RIP-relative operands. */
const char *arch_refuses_far(const uint8_t *bytes, const struct arch_insn *insn);

/*
 * For PROBE_AROUND: emit the copy of a jmp, jcc, loop, jmp_ind or ret with a hole on each way out: `exit` is called to emit
 * code on each way, told the address control goes to (0 when only known at run time), with the original flags and
 * registers in place; what it emits must keep them.
 */
typedef void arch_exit_fn(struct arch_code *code, uintptr_t next, void *data);
void arch_relocate_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			  uintptr_t address, const struct arch_map *map, arch_exit_fn *exit, void *data);

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

/* What a hook calls. Immutable while any thread may use it (quiesce.h). */
struct hook_record {
	void (*procedure)(struct patch_exec_context *context, uint8_t post);
	void *user_data;
};

enum arch_action {
	ARCH_CALL_PROCEDURE,
	ARCH_COUNT,
	ARCH_COUNT_ATOMIC,
	ARCH_COUNT_THREAD
};

/* One call of a probe procedure, or what is done instead. */
struct arch_hook {
	uint64_t read;
	uint64_t write;
	uint64_t clobber;
	uintptr_t program_counter; /* what the context reports */
	/*
	 * Address of the hook's slot, 8 bytes, aligned, near the code unless that is far. It holds the address of a struct
	 * hook_record, or 0: the hook is passed over.
	 */
	uintptr_t slot;
	uint8_t post;
	/*
	 * Not PROCEDURE: nothing is called, a counter is increased. The slot holds its address, or, for THREAD, its distance from
	 * the thread pointer. `stamp`: the word behind it receives the time stamp counter.
	 */
	uint8_t action; /* enum arch_action */
	bool stamp;
	/* Is the stack pointer most likely what it is at a function's entry, and at its return: 8 off a multiple of 16? */
	bool at_entry;
	/*
	 * For an indirect jump or a return about to be executed: its bytes and decoding. The context then reports where it
	 * leads, if that is in [lower, upper), else program_counter; and the stack pointer that it leaves. NULL: none.
	 */
	const uint8_t *leaves_bytes;
	const struct arch_insn *leaves;
	uintptr_t lower;
	uintptr_t upper;
};

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook);

/* What hooks seldom execute, for arch_emit_cold(). Offsets in the code; fields by their ends, 0: none. */
struct arch_cold_hook {
	uint32_t guarded;
	uint32_t fresh;
	uint32_t closed;
	uint32_t backwards;
	uint32_t forwards;
	uint32_t unaligned;
	uint32_t called;
	uint32_t direction;
	uint32_t passed_over;
	uint32_t done;
	uint8_t original;
	bool at_entry;
};

struct arch_cold_call {
	uintptr_t function;
	uint32_t field;
};

/* More hooks than have room in a block. Begins with the counts 0. */
#define ARCH_COLD_MAX 256
struct arch_cold {
	size_t hook_count;
	size_t call_count;
	struct arch_cold_hook hooks[ARCH_COLD_MAX];
	struct arch_cold_call calls[3 * ARCH_COLD_MAX];
};

/* Behind the last instruction. */
void arch_emit_cold(struct arch_code *code);

/* ---- system calls ----------------------------------------------------------------------------------------------- */

/* Registers of a system call; result in rax. */
struct arch_call {
	long rax;
	long rdi;
	long rsi;
	long rdx;
	long r10;
	long r8;
	long r9;
};

/* True: the call was made, and call->rax is its result. Runs with the program's extended state, and leaves it alone. */
typedef bool arch_syscall_hook_fn(struct arch_call *call);

/* A system call's copy behind a call of the function, which may make it instead. */
void arch_emit_syscall_hook(struct arch_code *code, arch_syscall_hook_fn *function, const uint8_t *bytes,
		       const struct arch_insn *insn, uintptr_t address, const struct arch_map *map);

/* ---- trap bytes ------------------------------------------------------------------------------------------------- */

#define ARCH_INT3 0xCC
#define ARCH_JMP_REL32 0xE9
#define ARCH_JMP_SIZE 5

/* How a trap byte reports: by SIGTRAP with rip behind it, or by SIGILL with rip on it. 0: no trap byte. */
enum arch_trap_class { ARCH_TRAP_NONE, ARCH_TRAP_SIGTRAP, ARCH_TRAP_SIGILL };
enum arch_trap_class arch_trap_class(uint8_t byte);

/*
 * Trap bytes that may be the top byte of a rel32, in order of preference: int3 first, then the SIGILL class, that faults
 * on every processor whatever follows (AMD APM vol. 3, table A-1: invalid in 64-bit mode).
 */
extern const uint8_t arch_top_trap_bytes[];
extern const size_t arch_top_trap_byte_count;

/* ---- extended state --------------------------------------------------------------------------------------------- */

/* Read the processor's XSAVE layout once. */
void arch_xsave_init(void);
/* Components saved for procedures that ask for extended state; 0 when XSAVE is not usable, or the image too large. */
uint64_t arch_xsave_mask(void);
/* Are LAHF and SAHF there? Early processors lack them in 64-bit mode. */
bool arch_has_sahf(void);
/* Bytes of a standard-format image of those components. */
size_t arch_xsave_size(void);

/* ---- unwinding -------------------------------------------------------------------------------------------------- */

/*
 * Unwind description of one arena (.eh_frame: a CIE and an FDE over [code, code + size), terminated), see arena.h for the
 * tables it walks. Returns its size; writes at most `capacity` bytes.
 */
size_t arch_unwind_describe(uint8_t *out, size_t capacity, uintptr_t code, size_t size, uintptr_t granule_table);

#endif
