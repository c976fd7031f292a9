/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwind description of an arena, or of a zone of pads.
 *
 * One FDE describes every pc of an arena, at any time: its rules are DWARF expressions that look the pc up in the
 * tables of code/arena.h. So nothing is registered when a block is made or freed. A pad is one jump, and its frame's
 * caller is the code that it leads to.
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
#include "arch/emit.h"
#include "arch/trap_bytes.h"
#include "arch/unwind.h"
#include "arch/x86_64/unwind_tables.h"
#include "arch/x86_64/unwind_writer.h"

/* The value of a register; its offset, a one-byte SLEB128, is 0. */
static void unwind_put_register(struct arch_code *writer, unsigned int number)
{
	unwind_put_operator(writer, OP_BREG0 + number, 0);
}

/* A branch whose target is where unwind_put_target() is called; returns what to hand to it. */
static size_t unwind_put_branch(struct arch_code *writer, uint8_t operator)
{
	arch_emit_u8(writer, operator);
	unwind_put_u16(writer, 0);
	return writer->size;
}

static void unwind_put_target(struct arch_code *writer, size_t branch)
{
	int16_t distance = (int16_t)(writer->size - branch);

	unwind_patch_at(writer, branch - sizeof(distance), &distance, sizeof(distance));
}

static void unwind_put_branch_back(struct arch_code *writer, uint8_t operator, size_t target)
{
	arch_emit_u8(writer, operator);
	unwind_put_u16(writer, (uint16_t)(target - (writer->size + 2)));
}

/* Below, comments show the stack of the expression behind each line, its top on the right. */

/* Leaves: block, row. */
static void unwind_put_find_row(struct arch_code *writer, const struct arena_tables *tables)
{
	size_t loop, done;

	unwind_put_register(writer, REGISTER_RIP);
	unwind_put_const(writer, tables->code);
	arch_emit_u8(writer, OP_MINUS);
	arch_emit_u8(writer, OP_LIT0 + GRANULE_SHIFT);
	arch_emit_u8(writer, OP_SHR); /* granule */
	arch_emit_u8(writer, OP_DUP);
	arch_emit_u8(writer, OP_LIT0 + 1);
	arch_emit_u8(writer, OP_SHL);
	unwind_put_const(writer, tables->granules);
	arch_emit_u8(writer, OP_PLUS);
	unwind_put_operator(writer, OP_DEREF_SIZE, sizeof(uint16_t)); /* granule, granules back */
	arch_emit_u8(writer, OP_MINUS);
	arch_emit_u8(writer, OP_LIT0 + GRANULE_SHIFT);
	arch_emit_u8(writer, OP_SHL);
	unwind_put_const(writer, tables->code);
	arch_emit_u8(writer, OP_PLUS); /* block */

	arch_emit_u8(writer, OP_DUP);
	unwind_put_register(writer, REGISTER_RIP);
	arch_emit_u8(writer, OP_SWAP);
	arch_emit_u8(writer, OP_MINUS); /* block, offset */
	arch_emit_u8(writer, OP_OVER);
	unwind_put_operator(writer, OP_PLUS_UCONST, BLOCK_ROWS); /* block, offset, row */
	loop = writer->size;
	/* The last row's code is above every offset. */
	arch_emit_u8(writer, OP_DUP);
	unwind_put_operator(writer, OP_PLUS_UCONST, sizeof(struct arch_row) + offsetof(struct arch_row, code));
	unwind_put_operator(writer, OP_DEREF_SIZE, sizeof(uint16_t)); /* block, offset, row, next row's code */
	unwind_put_operator(writer, OP_PICK, 2);
	arch_emit_u8(writer, OP_GT); /* block, offset, row, next row's code > offset */
	done = unwind_put_branch(writer, OP_BRA);
	unwind_put_operator(writer, OP_PLUS_UCONST, sizeof(struct arch_row));
	unwind_put_branch_back(writer, OP_SKIP, loop);
	unwind_put_target(writer, done);
	arch_emit_u8(writer, OP_SWAP);
	arch_emit_u8(writer, OP_DROP); /* block, row */
}

/* The program's stack pointer at the original instruction. */
static void unwind_put_stack_pointer(struct arch_code *writer, const struct arena_tables *tables)
{
	size_t plain;

	unwind_put_find_row(writer, tables);
	unwind_put_operator(writer, OP_PLUS_UCONST, offsetof(struct arch_row, cfa));
	unwind_put_operator(writer, OP_DEREF_SIZE, sizeof(uint8_t)); /* cfa */
	unwind_put_register(writer, REGISTER_RSP);                   /* cfa, base */
	arch_emit_u8(writer, OP_OVER);
	unwind_put_operator(writer, OP_CONST1U, ARCH_ROW_DEREF);
	arch_emit_u8(writer, OP_AND);
	arch_emit_u8(writer, OP_LIT0);
	arch_emit_u8(writer, OP_EQ);
	plain = unwind_put_branch(writer, OP_BRA);
	arch_emit_u8(writer, OP_DEREF);
	unwind_put_target(writer, plain); /* cfa, base */
	arch_emit_u8(writer, OP_SWAP);
	unwind_put_operator(writer, OP_CONST1U, ARCH_ROW_DEREF - 1);
	arch_emit_u8(writer, OP_AND);
	arch_emit_u8(writer, OP_LIT0 + 3);
	arch_emit_u8(writer, OP_SHL);
	arch_emit_u8(writer, OP_PLUS);
}

/*
 * libgcc knows the frame that catches an exception by its callee's CFA and by whether it was interrupted
 * (uw_identify_context()). Generated code that a signal interrupted where it uses no stack is equal in both to its
 * caller, the program: an exception that a signal handler throws there and that the program's function catches would
 * end in abort(). So the CFA for libgcc is the program's rsp plus one there, and plus two in a pad; the real rsp has
 * its own rule. libunwind takes the CFA for rsp whatever that rule says.
 */
static void unwind_put_cfa(struct arch_code *writer, const struct arena_tables *tables,
			   enum arch_unwind_reader reader)
{
	unwind_put_stack_pointer(writer, tables);
	if (reader != ARCH_UNWIND_LIBGCC)
		return;
	arch_emit_u8(writer, OP_DUP);
	unwind_put_register(writer, REGISTER_RSP);
	arch_emit_u8(writer, OP_EQ);
	arch_emit_u8(writer, OP_PLUS);
}

static void unwind_put_original_pc(struct arch_code *writer, const struct arena_tables *tables)
{
	unwind_put_find_row(writer, tables);
	unwind_put_operator(writer, OP_PLUS_UCONST, offsetof(struct arch_row, original));
	unwind_put_operator(writer, OP_DEREF_SIZE, sizeof(uint8_t));
	arch_emit_u8(writer, OP_SWAP);
	arch_emit_u8(writer, OP_DEREF); /* original, region */
	arch_emit_u8(writer, OP_PLUS);
}

static void unwind_put_pad_cfa(struct arch_code *writer, enum arch_unwind_reader reader)
{
	unwind_put_operator(writer, OP_BREG0 + REGISTER_RSP, reader == ARCH_UNWIND_LIBGCC ? 2 : 0);
}

/* Where the pad's jump leads. */
static void unwind_put_pad_target(struct arch_code *writer)
{
	static const uint32_t sign = 0x80000000;

	unwind_put_register(writer, REGISTER_RIP);
	unwind_put_operator(writer, OP_BREG0 + REGISTER_RIP, ARCH_JMP_SIZE - sizeof(int32_t));
	unwind_put_operator(writer, OP_DEREF_SIZE, sizeof(int32_t));
	for (int i = 0; i < 2; ++i) { /* its sign, extended */
		arch_emit_u8(writer, OP_CONST4U);
		arch_emit_u32(writer, sign);
		arch_emit_u8(writer, i == 0 ? OP_XOR : OP_MINUS);
	}
	arch_emit_u8(writer, OP_PLUS);
	unwind_put_operator(writer, OP_PLUS_UCONST, ARCH_JMP_SIZE);
}

/*
 * A pad's frame is nobody's to leave: it has no personality routine. Pointers are absolute, as they are when nothing
 * says how they are encoded: libunwind reads four characters of an augmentation.
 */
static void unwind_put_cie(struct arch_code *writer, bool pads)
{
	static const char of_pads[] = "zS", of_code[] = "zPLS";

	arch_emit_u32(writer, 0); /* CIE id */
	arch_emit_u8(writer, 1);  /* version */
	if (pads)
		arch_emit_bytes(writer, of_pads, sizeof(of_pads));
	else
		arch_emit_bytes(writer, of_code, sizeof(of_code));
	arch_emit_u8(writer, 1);            /* code alignment factor */
	arch_emit_u8(writer, 0x78);         /* data alignment factor, -8 */
	arch_emit_u8(writer, REGISTER_RIP); /* return address column */
	if (pads) {
		arch_emit_u8(writer, 0); /* size of the augmentation data */
		return;
	}
	arch_emit_u8(writer, 1 + sizeof(uint64_t) + 1);
	arch_emit_u8(writer, PE_ABSPTR); /* P */
	arch_emit_u64(writer, (uintptr_t)libpatch_hook_personality);
	arch_emit_u8(writer, PE_ABSPTR); /* L */
}

/*
 * libunwind's unw_backtrace() takes every frame that looks like a signal's for the kernel's, and for good (its
 * UNW_X86_64_FRAME_SIGRETURN), if it can step over that frame while it knows three registers alone. A look at a fourth
 * one makes it go the slow way, which reads the rules.
 */
static void unwind_put_look_at_rbx(struct arch_code *writer)
{
	unwind_put_register(writer, REGISTER_RBX);
	arch_emit_u8(writer, OP_DROP);
}

static void unwind_put_rules(struct arch_code *writer, const struct arena_tables *tables,
			     enum arch_unwind_reader reader)
{
	bool pads = tables->granules == 0;
	size_t expression;

	for (unsigned int number = 0; number < REGISTER_COUNT; number++) {
		if (number != REGISTER_RSP && number != REGISTER_RIP)
			unwind_put_operator(writer, CFA_SAME_VALUE, number);
	}
	arch_emit_u8(writer, CFA_DEF_CFA_EXPRESSION);
	expression = unwind_begin_expression(writer);
	if (reader != ARCH_UNWIND_LIBGCC)
		unwind_put_look_at_rbx(writer);
	if (pads)
		unwind_put_pad_cfa(writer, reader);
	else
		unwind_put_cfa(writer, tables, reader);
	unwind_end_expression(writer, expression);
	unwind_put_operator(writer, CFA_VAL_EXPRESSION, REGISTER_RSP);
	expression = unwind_begin_expression(writer);
	if (pads)
		unwind_put_register(writer, REGISTER_RSP);
	else
		unwind_put_stack_pointer(writer, tables);
	unwind_end_expression(writer, expression);
	unwind_put_operator(writer, CFA_VAL_EXPRESSION, REGISTER_RIP);
	expression = unwind_begin_expression(writer);
	if (pads)
		unwind_put_pad_target(writer);
	else
		unwind_put_original_pc(writer, tables);
	unwind_end_expression(writer, expression);
}

struct arch_unwind_size arch_unwind_describe(uint8_t *out, size_t capacity, const struct arch_unwind_code *code,
					     enum arch_unwind_reader reader)
{
	const struct arena_tables tables = {.code = code->lower, .granules = code->granules};
	struct arch_code writer = {.bytes = out, .capacity = capacity};
	struct arch_unwind_size size;
	bool pads = code->granules == 0;
	size_t cie, fde;

	cie = unwind_begin_entry(&writer);
	unwind_put_cie(&writer, pads);
	unwind_end_entry(&writer, cie);

	size.fde = writer.size;
	fde = unwind_begin_entry(&writer);
	arch_emit_u32(&writer, (uint32_t)(writer.size - (cie - sizeof(uint32_t)))); /* back to the CIE */
	arch_emit_u64(&writer, code->lower);
	arch_emit_u64(&writer, code->upper - code->lower);
	if (pads) {
		arch_emit_u8(&writer, 0); /* size of the augmentation data */
	} else {
		arch_emit_u8(&writer, sizeof(uint64_t));
		arch_emit_u64(&writer, code->granules); /* L: what the personality routine looks a pc up in */
	}
	unwind_put_rules(&writer, &tables, reader);
	unwind_end_entry(&writer, fde);

	arch_emit_u32(&writer, 0);
	size.all = writer.size;
	return size;
}
