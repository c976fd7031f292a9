/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code under construction: pieces of machine code, the rows that describe it, and copies of the program's instructions
 * that do elsewhere what the originals do in place. Pure: the bytes go to a buffer of the caller's, for the address
 * that the caller names.
 */
#ifndef LIBPATCH_ARCH_EMIT_H
#define LIBPATCH_ARCH_EMIT_H

#include "arch/insn.h"
#include "base/compiler.h"

/*
 * What stands behind one stretch of generated code, for unwinders and for mapping a pc back: from code offset `code`
 * on, the original instruction is `original` bytes behind the region's start and the program's stack pointer is rsp +
 * cfa * 8, or *(rsp) + cfa * 8 when ARCH_ROW_DEREF is set. In hooks, that is the frame of arch/x86_64/hook_frame.h.
 */
struct arch_row {
	uint16_t code;
	uint8_t original;
	uint8_t cfa;
};
#define ARCH_ROW_DEREF 0x80

/* What holds of a thread from code offset `code` on, when it is interrupted: arch/canonical.h. */
struct arch_stretch {
	uint16_t code;
	uint8_t kind; /* enum arch_stretch_kind, and a register's number in the upper three bits */
	uint8_t arg;
};
#define ARCH_STRETCH_KIND 0x1f
#define ARCH_STRETCH_REGISTER 5 /* bits to shift it by */

struct arch_cold;

/* Code under construction. Writing past `capacity` only counts, so that a dry run measures. */
struct arch_code {
	uint8_t *bytes;
	size_t capacity;  /* 0 for a dry run */
	size_t size;
	uintptr_t base;   /* address that bytes[0] will have */
	/*
	 * The code may lie anywhere: nothing in it refers by rel32 or disp32 to what is outside, but by 64 bits. Sizes
	 * depend on `base` modulo 8.
	 */
	bool far;
	bool out_of_range; /* some rel32 or disp32 did not reach */
	struct arch_row *rows;
	size_t row_capacity;
	size_t row_count;
	struct arch_stretch *stretches; /* as rows */
	size_t stretch_capacity;
	size_t stretch_count;
	uint8_t original; /* offset of the instruction being emitted, for rows */
	/* Words on the stack that are not the program's where a piece begins whose rows do not count them. */
	uint8_t pushed;
	struct arch_cold *cold; /* of hooks; NULL: there must be none */
};

static inline uintptr_t arch_code_here(const struct arch_code *code)
{
	return code->base + code->size;
}

/*
 * A piece that does not fit as a whole is not written, only counted, and nothing after it is. Inline, as is what else
 * is emitted hundreds of times for each trampoline: most pieces are a few bytes, of a known number.
 */
static inline void arch_emit_bytes(struct arch_code *code, const void *bytes, size_t size)
{
	const size_t end = code->size + size;

	/* What is counted is not as much as that. */
	if (end < size)
		__builtin_unreachable();
	if (end <= code->capacity)
		__builtin_memcpy(code->bytes + code->size, bytes, size);
	code->size = end;
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
static inline void arch_emit_rel32(struct arch_code *code, uintptr_t target, size_t tail)
{
	const int64_t distance = (int64_t)(target - (arch_code_here(code) + 4 + tail));

	if (distance != (int32_t)distance)
		code->out_of_range = true;
	arch_emit_u32(code, (uint32_t)distance);
}
/* jmp rel32, or, in far code, jmp [rip + ...] */
void arch_emit_jmp(struct arch_code *code, uintptr_t target);
/* jmp [slot]: where the 8 bytes at `slot` say, which must be near, also in far code */
void arch_emit_jmp_slot(struct arch_code *code, uintptr_t slot);
#define ARCH_JMP_SLOT_SIZE 6
/* Make a 4-byte field that ends at `field_end` the distance from there to the offset. */
static inline void arch_emit_label_at(struct arch_code *code, size_t field_end, size_t offset)
{
	const uint32_t distance = (uint32_t)(offset - field_end);

	if (field_end <= code->capacity)
		__builtin_memcpy(code->bytes + field_end - sizeof(distance), &distance, sizeof(distance));
}
/* The same, to the current offset. */
static inline void arch_emit_label(struct arch_code *code, size_t field_end)
{
	arch_emit_label_at(code, field_end, code->size);
}
/*
 * Write 8 bytes and make the field their distance. They are aligned, because the program may run with alignment checks
 * (RFLAGS.AC).
 */
void arch_emit_constant(struct arch_code *code, size_t field_end, uint64_t value);
/*
 * Begin a new row at the current offset, `cfa` words and code->pushed; a row that would be empty is overwritten, an
 * equal one is merged.
 */
static inline void arch_emit_row(struct arch_code *code, uint8_t cfa)
{
	const struct arch_row row = { (uint16_t)code->size, code->original, (uint8_t)(cfa + code->pushed) };
	size_t count = code->row_count;

	/* A row cannot point that far; the generator's caller gives up on the site as for any distance too long. */
	if (code->size > UINT16_MAX)
		code->out_of_range = true;
	if (count > 0 && count <= code->row_capacity) {
		const struct arch_row *last = &code->rows[count - 1];

		if (last->code == row.code) {
			--count;
			--last;
		}
		if (count > 0 && last->original == row.original && last->cfa == row.cfa) {
			code->row_count = count;
			return;
		}
	}
	if (count < code->row_capacity)
		code->rows[count] = row;
	code->row_count = count + 1;
}

/* Begin a new stretch at the current offset; one that would be empty is overwritten. */
static inline void arch_emit_stretch(struct arch_code *code, uint8_t kind, uint8_t arg)
{
	size_t count = code->stretch_count;

	if (count > 0 && count <= code->stretch_capacity && code->stretches[count - 1].code == code->size)
		--count;
	if (count < code->stretch_capacity)
		code->stretches[count] = (struct arch_stretch){ (uint16_t)code->size, kind, arg };
	code->stretch_count = count + 1;
}

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
 * `insn` must come from arch_decode() of the same bytes at `address` and not be ARCH_F_REFUSED. A displacement that
 * does not reach sets code->out_of_range.
 */
void arch_relocate(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn, uintptr_t address,
		   const struct arch_map *map);

/* Why it cannot be copied to far code; NULL: it can. Few cannot, all of them with RIP-relative operands. */
const char *arch_refuses_far(const uint8_t *bytes, const struct arch_insn *insn);

/* A way out of an instruction: its operands are read and, for a call, its return address is pushed. */
struct arch_exit {
	/* Where the program goes on in this function: for a call, its return address; 0: not known until then. */
	uintptr_t next;
	uint8_t held;  /* of an indirect one, what holds where it leads: the number of a register, or one of these: */
	int32_t above; /* bytes from the stack pointer to what the instruction makes of the program's */
};
#define ARCH_HELD_ON_TOP 0xFF /* the word at the stack pointer */
#define ARCH_HELD_BELOW 0xFE  /* the word below it, by a call */

/*
 * For PROBE_AROUND: emit the copy of a branch, call or return with a hole on each way out: `exit` is called to emit
 * code on each way, with the flags and registers of the program in place; what it emits must keep them. It may change
 * the registers of `written`, bit i for register number i; where that is the target of a jump it goes by its value of
 * before. arch_refuses_around() must not refuse it.
 */
typedef void arch_exit_fn(struct arch_code *code, const struct arch_exit *exit, void *data);
void arch_relocate_around(struct arch_code *code, const uint8_t *bytes, const struct arch_insn *insn,
			  uintptr_t address, const struct arch_map *map, uint16_t written, arch_exit_fn *exit,
			  void *data);

/* Why there cannot be a hole on each way out of the instruction; NULL: there can. */
const char *arch_refuses_around(const uint8_t *bytes, const struct arch_insn *insn, uint16_t written,
				bool shadow_stack);

#endif
