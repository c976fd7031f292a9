/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwind description of an arena.
 *
 * One FDE describes every pc of an arena, at any time: its rules are DWARF expressions that look the pc up in the
 * tables of arena.h. So nothing is registered when a block is made or freed.
 *
 * The frame of generated code looks like a signal frame (augmentation 'S'): its caller is the program at the original
 * instruction, with that instruction's pc, which unwinders must not take for a return address. All registers but rsp
 * and rip are the program's; those a procedure may clobber are not followed to where a hook saved them.
 *
 * A frame of generated code is entered by an unwinder in two ways. From a procedure a hook has called: the pc is the
 * return address, in the same row as the call. From a signal: the pc is any. Hence the pc is taken as it is.
 *
 * Sources: DWARF 5, 2.5, 6.4 and 7.7; Linux Standard Base 5.0 core, 10.6 (augmentations); x86-64 psABI 1.0, 3.6.2
 * (register numbers); libgcc's unwind-dw2.c, which evaluates the expressions with the registers of the frame they
 * describe: rip is column 16, rsp the callee's CFA unless the callee has a rule for it.
 */
#include "arch/arch.h"
#include "arch/upcalls.h"

#include <string.h>
#include <unwind.h>

/* The tables of arena.h, which is above this layer; test_unwind.c compares. */
#define GRANULE_SHIFT 4
#define BLOCK_ROWS 8

#define REGISTER_RSP 7
#define REGISTER_RIP 16
#define REGISTER_COUNT 17

enum {
	CFA_NOP = 0x00,
	CFA_SAME_VALUE = 0x08,
	CFA_DEF_CFA_EXPRESSION = 0x0f,
	CFA_VAL_EXPRESSION = 0x16,

	OP_DEREF = 0x06,
	OP_CONST1U = 0x08,
	OP_CONST8U = 0x0e,
	OP_DUP = 0x12,
	OP_DROP = 0x13,
	OP_OVER = 0x14,
	OP_PICK = 0x15,
	OP_SWAP = 0x16,
	OP_AND = 0x1a,
	OP_MINUS = 0x1c,
	OP_PLUS = 0x22,
	OP_PLUS_UCONST = 0x23,
	OP_SHL = 0x24,
	OP_SHR = 0x25,
	OP_BRA = 0x28,
	OP_EQ = 0x29,
	OP_GT = 0x2b,
	OP_SKIP = 0x2f,
	OP_LIT0 = 0x30,
	OP_BREG0 = 0x70,
	OP_DEREF_SIZE = 0x94,

	PE_ABSPTR = 0x00
};

_Unwind_Reason_Code libpatch_hook_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					      struct _Unwind_Exception *exception, struct _Unwind_Context *context)
	__attribute__((visibility("hidden")));

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* Writing past `capacity` only counts. */
struct writer {
	uint8_t *bytes;
	size_t capacity;
	size_t size;
};

static void put(struct writer *writer, const void *bytes, size_t size)
{
	if (writer->size <= writer->capacity && size <= writer->capacity - writer->size)
		memcpy(writer->bytes + writer->size, bytes, size);
	writer->size += size;
}

static void put_u8(struct writer *writer, uint8_t value)
{
	put(writer, &value, sizeof(value));
}

static void put_u16(struct writer *writer, uint16_t value)
{
	put(writer, &value, sizeof(value));
}

static void put_u32(struct writer *writer, uint32_t value)
{
	put(writer, &value, sizeof(value));
}

static void put_u64(struct writer *writer, uint64_t value)
{
	put(writer, &value, sizeof(value));
}

static void patch_at(struct writer *writer, size_t at, const void *bytes, size_t size)
{
	if (at <= writer->capacity && size <= writer->capacity - at)
		memcpy(writer->bytes + at, bytes, size);
}

static void put_operator(struct writer *writer, uint8_t operator, uint8_t operand)
{
	put_u8(writer, operator);
	put_u8(writer, operand);
}

static void put_const(struct writer *writer, uint64_t value)
{
	put_u8(writer, OP_CONST8U);
	put_u64(writer, value);
}

/* The value of a register; its offset, a one-byte SLEB128, is 0. */
static void put_register(struct writer *writer, unsigned int number)
{
	put_operator(writer, OP_BREG0 + number, 0);
}

/* A branch whose target is where put_target() is called; returns what to hand to it. */
static size_t put_branch(struct writer *writer, uint8_t operator)
{
	put_u8(writer, operator);
	put_u16(writer, 0);
	return writer->size;
}

static void put_target(struct writer *writer, size_t branch)
{
	int16_t distance = (int16_t)(writer->size - branch);

	patch_at(writer, branch - sizeof(distance), &distance, sizeof(distance));
}

static void put_branch_back(struct writer *writer, uint8_t operator, size_t target)
{
	put_u8(writer, operator);
	put_u16(writer, (uint16_t)(target - (writer->size + 2)));
}

/* A 4-byte length of what follows, padded to 8 bytes: begin and end. */
static size_t begin_entry(struct writer *writer)
{
	put_u32(writer, 0);
	return writer->size;
}

static void end_entry(struct writer *writer, size_t begin)
{
	uint32_t length;

	while (writer->size % 8 != 0)
		put_u8(writer, CFA_NOP);
	length = (uint32_t)(writer->size - begin);
	patch_at(writer, begin - sizeof(length), &length, sizeof(length));
}

/* A ULEB128 length of what follows, always in two bytes, up to 16383: begin and end. */
static size_t begin_expression(struct writer *writer)
{
	put_u16(writer, 0);
	return writer->size;
}

static void end_expression(struct writer *writer, size_t begin)
{
	size_t length = writer->size - begin;
	uint8_t bytes[2] = {(uint8_t)(length & 0x7f) | 0x80, (uint8_t)(length >> 7)};

	patch_at(writer, begin - sizeof(bytes), bytes, sizeof(bytes));
}

/* ---- expressions; comments show the stack behind each line, its top on the right --------------------------------- */

struct arena_tables {
	uintptr_t code;
	uintptr_t granules;
};

/* Leaves: block, row. */
static void put_find_row(struct writer *writer, const struct arena_tables *tables)
{
	size_t loop, done;

	put_register(writer, REGISTER_RIP);
	put_const(writer, tables->code);
	put_u8(writer, OP_MINUS);
	put_u8(writer, OP_LIT0 + GRANULE_SHIFT);
	put_u8(writer, OP_SHR); /* granule */
	put_u8(writer, OP_DUP);
	put_u8(writer, OP_LIT0 + 1);
	put_u8(writer, OP_SHL);
	put_const(writer, tables->granules);
	put_u8(writer, OP_PLUS);
	put_operator(writer, OP_DEREF_SIZE, sizeof(uint16_t)); /* granule, granules back */
	put_u8(writer, OP_MINUS);
	put_u8(writer, OP_LIT0 + GRANULE_SHIFT);
	put_u8(writer, OP_SHL);
	put_const(writer, tables->code);
	put_u8(writer, OP_PLUS); /* block */

	put_u8(writer, OP_DUP);
	put_register(writer, REGISTER_RIP);
	put_u8(writer, OP_SWAP);
	put_u8(writer, OP_MINUS); /* block, offset */
	put_u8(writer, OP_OVER);
	put_operator(writer, OP_PLUS_UCONST, BLOCK_ROWS); /* block, offset, row */
	loop = writer->size;
	/* The last row's code is above every offset. */
	put_u8(writer, OP_DUP);
	put_operator(writer, OP_PLUS_UCONST, sizeof(struct arch_row) + offsetof(struct arch_row, code));
	put_operator(writer, OP_DEREF_SIZE, sizeof(uint16_t)); /* block, offset, row, next row's code */
	put_operator(writer, OP_PICK, 2);
	put_u8(writer, OP_GT); /* block, offset, row, next row's code > offset */
	done = put_branch(writer, OP_BRA);
	put_operator(writer, OP_PLUS_UCONST, sizeof(struct arch_row));
	put_branch_back(writer, OP_SKIP, loop);
	put_target(writer, done);
	put_u8(writer, OP_SWAP);
	put_u8(writer, OP_DROP); /* block, row */
}

/* The program's stack pointer at the original instruction. */
static void put_stack_pointer(struct writer *writer, const struct arena_tables *tables)
{
	size_t plain;

	put_find_row(writer, tables);
	put_operator(writer, OP_PLUS_UCONST, offsetof(struct arch_row, cfa));
	put_operator(writer, OP_DEREF_SIZE, sizeof(uint8_t)); /* cfa */
	put_register(writer, REGISTER_RSP);                   /* cfa, base */
	put_u8(writer, OP_OVER);
	put_operator(writer, OP_CONST1U, ARCH_ROW_DEREF);
	put_u8(writer, OP_AND);
	put_u8(writer, OP_LIT0);
	put_u8(writer, OP_EQ);
	plain = put_branch(writer, OP_BRA);
	put_u8(writer, OP_DEREF);
	put_target(writer, plain); /* cfa, base */
	put_u8(writer, OP_SWAP);
	put_operator(writer, OP_CONST1U, ARCH_ROW_DEREF - 1);
	put_u8(writer, OP_AND);
	put_u8(writer, OP_LIT0 + 3);
	put_u8(writer, OP_SHL);
	put_u8(writer, OP_PLUS);
}

/*
 * libgcc knows the frame that catches an exception by its callee's CFA and by whether it was interrupted
 * (uw_identify_context()). Generated code that a signal interrupted where it uses no stack is equal in both to its
 * caller, the program: an exception that a signal handler throws there and that the program's function catches would
 * end in abort(). So the CFA is the program's rsp plus one there; the real rsp has its own rule.
 */
static void put_cfa(struct writer *writer, const struct arena_tables *tables)
{
	put_stack_pointer(writer, tables);
	put_u8(writer, OP_DUP);
	put_register(writer, REGISTER_RSP);
	put_u8(writer, OP_EQ);
	put_u8(writer, OP_PLUS);
}

static void put_original_pc(struct writer *writer, const struct arena_tables *tables)
{
	put_find_row(writer, tables);
	put_operator(writer, OP_PLUS_UCONST, offsetof(struct arch_row, original));
	put_operator(writer, OP_DEREF_SIZE, sizeof(uint8_t));
	put_u8(writer, OP_SWAP);
	put_u8(writer, OP_DEREF); /* original, region */
	put_u8(writer, OP_PLUS);
}

size_t arch_unwind_describe(uint8_t *out, size_t capacity, uintptr_t code, size_t size, uintptr_t granule_table)
{
	static const char augmentation[] = "zPLRS";
	const struct arena_tables tables = {.code = code, .granules = granule_table};
	struct writer writer = {.bytes = out, .capacity = capacity};
	size_t cie, fde, expression;

	cie = begin_entry(&writer);
	put_u32(&writer, 0); /* CIE id */
	put_u8(&writer, 1);  /* version */
	put(&writer, augmentation, sizeof(augmentation));
	put_u8(&writer, 1);                        /* code alignment factor */
	put_u8(&writer, 0x78);                     /* data alignment factor, -8 */
	put_u8(&writer, REGISTER_RIP);             /* return address column */
	put_u8(&writer, 1 + sizeof(uint64_t) + 2); /* size of the augmentation data */
	put_u8(&writer, PE_ABSPTR);                /* P */
	put_u64(&writer, (uintptr_t)libpatch_hook_personality);
	put_u8(&writer, PE_ABSPTR); /* L */
	put_u8(&writer, PE_ABSPTR); /* R */
	end_entry(&writer, cie);

	fde = begin_entry(&writer);
	put_u32(&writer, (uint32_t)(writer.size - (cie - sizeof(uint32_t)))); /* back to the CIE */
	put_u64(&writer, code);
	put_u64(&writer, size);
	put_u8(&writer, sizeof(uint64_t)); /* size of the augmentation data */
	put_u64(&writer, granule_table);   /* L: what the personality routine looks a pc up in */
	for (unsigned int number = 0; number < REGISTER_COUNT; number++) {
		if (number != REGISTER_RSP && number != REGISTER_RIP)
			put_operator(&writer, CFA_SAME_VALUE, number);
	}
	put_u8(&writer, CFA_DEF_CFA_EXPRESSION);
	expression = begin_expression(&writer);
	put_cfa(&writer, &tables);
	end_expression(&writer, expression);
	put_operator(&writer, CFA_VAL_EXPRESSION, REGISTER_RSP);
	expression = begin_expression(&writer);
	put_stack_pointer(&writer, &tables);
	end_expression(&writer, expression);
	put_operator(&writer, CFA_VAL_EXPRESSION, REGISTER_RIP);
	expression = begin_expression(&writer);
	put_original_pc(&writer, &tables);
	end_expression(&writer, expression);
	end_entry(&writer, fde);

	put_u32(&writer, 0);
	return writer.size;
}

/* ---- leaving a hook by unwinding -------------------------------------------------------------------------------- */

/* What put_stack_pointer() computes. */
static uintptr_t program_stack_pointer(const struct arena_tables *tables, uintptr_t pc, uintptr_t rsp)
{
	const uint16_t *granules = (const uint16_t *)tables->granules;
	size_t granule = (pc - tables->code) >> GRANULE_SHIFT;
	uintptr_t block = tables->code + ((granule - granules[granule]) << GRANULE_SHIFT);
	const struct arch_row *row = (const struct arch_row *)(block + BLOCK_ROWS);
	uint8_t cfa;

	while (row[1].code <= pc - block)
		row++;
	cfa = row->cfa;
	if ((cfa & ARCH_ROW_DEREF) != 0)
		rsp = *(const uintptr_t *)rsp;
	return rsp + (cfa & (ARCH_ROW_DEREF - 1)) * sizeof(uintptr_t);
}

/*
 * Called for each frame of generated code that an exception, a forced unwind, thread cancellation or pthread_exit
 * removes. When it is the frame of the running hook, that hook is over, and none runs.
 *
 * Only a guard inside this very frame is followed. Another one belongs to a hook on another stack that may still run
 * (a signal handler on its own stack threw), or to one that longjmp left, whose memory may be in use again.
 */
_Unwind_Reason_Code libpatch_hook_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					      struct _Unwind_Exception *exception, struct _Unwind_Context *context)
{
	uintptr_t guard = libpatch_hook_guard.guard;
	uintptr_t rsp = _Unwind_GetCFA(context); /* the callee's CFA */
	struct arena_tables tables;

	(void)version;
	(void)class;
	(void)exception;
	/* No hook is 0, which is below every frame; GUARD_INSIDE and GUARD_UNKNOWN are above every frame. */
	if ((actions & _UA_CLEANUP_PHASE) == 0 || guard < rsp)
		return _URC_CONTINUE_UNWIND;
	tables.code = _Unwind_GetRegionStart(context);
	tables.granules = (uintptr_t)_Unwind_GetLanguageSpecificData(context);
	if (guard < program_stack_pointer(&tables, _Unwind_GetIP(context), rsp))
		libpatch_hook_guard.guard = 0;
	return _URC_CONTINUE_UNWIND;
}
