/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From any pc of a block to the nearest place where all registers are the program's. Pure: the thread's memory is read
 * through the caller's function, and what is to be written is handed out.
 *
 * Two steps. The first one settles where the thread goes on: at the first byte of a copy or of a hook, or at an address
 * of the program's. The second walks on from there, over hooks that are still to come, to the instruction that the
 * program is at.
 */
#include "arch/canonical.h"
#include "arch/own_stack.h"
#include "arch/put_off.h"
#include "arch/syscall.h"

#include "arch/thread_pointer.h"
#include "arch/trap_bytes.h"
#include "arch/upcalls.h"
#include "arch/x86_64/encode.h"
#include "arch/x86_64/flags.h"
#include "arch/x86_64/hook_call.h"

#include <libpatch/patch.h>

/* More than any thread has before it: hooks, jumps from one to the next. */
#define STEPS_MAX 1024

struct canonical {
	const struct arch_code_map *map;
	uintptr_t thread_pointer;
	arch_read_fn *read;
	void *data;
	struct arch_canonical *out;
	struct arch_registers at; /* so far */
	bool failed;
};

/* ---- registers -------------------------------------------------------------------------------------------------- */

static const uint8_t canonical_gregs[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15
};

const uint8_t arch_dwarf_registers[16] = { RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP, 8, 9, 10, 11, 12, 13, 14, 15 };

void arch_registers_from(const greg_t *frame, struct arch_registers *registers)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(canonical_gregs); ++i)
		registers->general[i] = (uint64_t)frame[canonical_gregs[i]];
	registers->flags = (uint64_t)frame[REG_EFL];
	registers->pc = (uintptr_t)frame[REG_RIP];
}

void arch_registers_to(const struct arch_registers *registers, greg_t *frame)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(canonical_gregs); ++i)
		frame[canonical_gregs[i]] = (greg_t)registers->general[i];
	frame[REG_EFL] = (greg_t)registers->flags;
	frame[REG_RIP] = (greg_t)registers->pc;
}

/* ---- the block -------------------------------------------------------------------------------------------------- */

static uint16_t canonical_end(const struct arch_code_map *map)
{
	const struct arch_stretch *stretch = map->stretches;

	while (stretch->kind != ARCH_STRETCH_END)
		++stretch;
	return stretch->code;
}

static bool canonical_is_inside(const struct arch_code_map *map, uintptr_t address)
{
	return address - map->code < canonical_end(map);
}

static const struct arch_stretch *canonical_stretch(const struct arch_code_map *map, uintptr_t pc)
{
	const struct arch_stretch *stretch = map->stretches;

	while (stretch[1].code <= pc - map->code)
		++stretch;
	return stretch;
}

static const struct arch_row *canonical_row(const struct arch_code_map *map, uintptr_t pc)
{
	const struct arch_row *row = map->rows;

	while (row[1].code <= pc - map->block)
		++row;
	return row;
}

static uintptr_t canonical_original(const struct arch_code_map *map, uintptr_t pc)
{
	return map->region + canonical_row(map, pc)->original;
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

static uint64_t canonical_word(struct canonical *c, uintptr_t address)
{
	uint64_t word = 0;

	if (!c->read(c->data, address, &word, sizeof(word)))
		c->failed = true;
	return word;
}

static uint32_t canonical_half(struct canonical *c, uintptr_t address)
{
	uint32_t half = 0;

	if (!c->read(c->data, address, &half, sizeof(half)))
		c->failed = true;
	return half;
}

static void canonical_write(struct canonical *c, uintptr_t address, uint64_t value, uint8_t size)
{
	c->out->writes[c->out->write_count++] = (struct arch_write){ address, value, size };
}

static void canonical_take_flags(struct canonical *c, uint64_t flags)
{
	c->at.flags = flags_put_back(c->at.flags, flags);
}

/* The program's stack pointer, by the row. */
static uintptr_t canonical_stack_pointer(struct canonical *c)
{
	const struct arch_row *row = canonical_row(c->map, c->at.pc);
	uintptr_t base = c->at.general[ARCH_RSP];

	if (row->cfa & ARCH_ROW_DEREF)
		base = canonical_word(c, base);
	return base + 8U * (row->cfa & ~ARCH_ROW_DEREF);
}

/* To another place for the same stack pointer of the program. */
static void canonical_go_to(struct canonical *c, uintptr_t offset)
{
	const uintptr_t stack_pointer = canonical_stack_pointer(c);

	c->at.pc = c->map->code + offset;
	c->at.general[ARCH_RSP] = stack_pointer - 8U * canonical_row(c->map, c->at.pc)->cfa;
}

static void canonical_go_back(struct canonical *c, const struct arch_stretch *stretch)
{
	canonical_go_to(c, stretch->code - (uintptr_t)stretch->arg);
}

static void canonical_go_next(struct canonical *c, const struct arch_stretch *stretch)
{
	canonical_go_to(c, stretch[1].code);
}

static void canonical_take_slot(struct canonical *c, const struct arch_stretch *stretch)
{
	const struct arch_row *row = canonical_row(c->map, c->map->code + stretch->code);

	c->at.general[stretch->kind >> ARCH_STRETCH_REGISTER] =
		canonical_word(c, canonical_stack_pointer(c) - 8U * row->cfa);
}

/* Where the jump at the pc leads. */
static uintptr_t canonical_target(struct canonical *c)
{
	const uint8_t *bytes = (const uint8_t *)c->at.pc;
	int32_t displacement;

	if (bytes[0] == 0xEB)
		return c->at.pc + 2 + (uintptr_t)(int8_t)bytes[1];
	if (bytes[0] == 0xFF && bytes[1] == 0x64) /* jmp [rsp - 8] */
		return canonical_word(c, c->at.general[ARCH_RSP] - 8);
	if (bytes[0] == 0xFF && bytes[1] == 0x25) { /* jmp [rip + ...] */
		__builtin_memcpy(&displacement, bytes + 2, sizeof(displacement));
		return canonical_word(c, c->at.pc + 6 + (uintptr_t)displacement);
	}
	if (bytes[0] != ARCH_JMP_REL32)
		c->failed = true;
	__builtin_memcpy(&displacement, bytes + 1, sizeof(displacement));
	return c->at.pc + ARCH_JMP_SIZE + (uintptr_t)displacement;
}

/* The instruction that the copy of a branch leads to, though by generated code. */
static uintptr_t canonical_led(const struct canonical *c, const struct arch_stretch *stretch)
{
	const uint8_t *behind = (const uint8_t *)(c->map->code + stretch->code + ARCH_JMP_SLOT_SIZE);
	uint64_t target;

	__builtin_memcpy(&target, behind, sizeof(target));
	return target;
}

/* ---- counters, system calls ------------------------------------------------------------------------------------- */

/* `place`: the stack pointer where the counter begins. */
static void canonical_count_registers(struct canonical *c, uint8_t kind, uintptr_t place)
{
	const uintptr_t saved = place - ARCH_HOOK_RED_ZONE;
	const uint64_t ax = c->at.general[RAX];

	c->at.general[RCX] = canonical_word(c, saved - 8);
	c->at.general[RAX] = canonical_word(c, saved - 16);
	if (kind == ARCH_COUNT_PUSHED)
		c->at.general[RDX] = canonical_word(c, saved - 24);
	if (kind == ARCH_COUNTED_FLAGS)
		canonical_take_flags(c, canonical_word(c, saved - 24));
	/* al: OF, and from ADD on 127 more. */
	if (kind == ARCH_COUNTED_AX)
		c->at.flags = (c->at.flags & ~(uint64_t)FLAGS_STATUS) | (ax >> 8 & FLAGS_STATUS & 0xff) |
			      ((ax & 0xff) == 1 || (ax & 0xff) == 128 ? FLAG_OF : 0);
}

static void canonical_count(struct canonical *c, const struct arch_stretch *stretch, uint8_t kind)
{
	if (kind == ARCH_COUNT_SAVED || kind == ARCH_COUNT_PUSHED)
		canonical_go_back(c, stretch);
	else
		canonical_go_next(c, stretch);
	canonical_count_registers(c, kind, c->at.general[ARCH_RSP]);
}

/* The last two stretches of the hook are in this order. */
static void canonical_instead(struct canonical *c, const struct arch_stretch *stretch, uint8_t kind)
{
	static const uint8_t registers[] = { RAX, RDI, RSI, RDX, 10, 8, 9 }; /* the first of struct arch_call */
	const uintptr_t frame = canonical_stack_pointer(c) - ARCH_HOOK_RED_ZONE - sizeof(struct arch_call) - 8;

	if (kind == ARCH_INSTEAD_SAVED) {
		canonical_go_back(c, stretch);
	} else {
		if (kind == ARCH_INSTEAD_ASKED) {
			kind = c->at.general[RAX] & 0xff ? ARCH_INSTEAD_MADE : ARCH_INSTEAD_NOT;
			while (stretch->kind != kind)
				++stretch;
		}
		canonical_go_next(c, stretch);
	}
	for (size_t i = 0; i < sizeof(registers); ++i)
		c->at.general[registers[i]] = canonical_word(c, frame + 8 + 8 * i);
	canonical_take_flags(c, canonical_word(c, frame));
}

/* ---- hooks ------------------------------------------------------------------------------------------------------ */

/* Hardware number of general_purpose_registers[i]. */
static const uint8_t canonical_numbers[PATCH_ARCH_GREGS_COUNT] = {
	RAX, RBX, RCX, RDX, RSI, RDI, RBP, 8, 9, 10, 11, 12, 13, 14, 15
};

#define BIT(name) (1U << PATCH_X86_64_##name)
/* What a function may destroy, and a hook keeps. */
#define CALLER_SAVED (BIT(RAX) | BIT(RCX) | BIT(RDX) | BIT(RSI) | BIT(RDI) | BIT(R8) | BIT(R9) | BIT(R10) | BIT(R11))

#define CONTEXT(field) (ARCH_HOOK_FRAME_CONTEXT + offsetof(struct patch_exec_context, field))

struct canonical_hook {
	const struct arch_hook_map *map;
	uintptr_t base;  /* of the frame */
	uintptr_t above; /* the program's stack pointer where the hook begins */
};

/* Of thread-local variables, which other threads have at the same distance. */
static uintptr_t canonical_variable(const struct canonical *c, const void *variable)
{
	return c->thread_pointer + ((uintptr_t)variable - arch_thread_pointer());
}

/* Registers of the mask, as the hook keeps them: those that are written in the context, the others in copies. */
static void canonical_take(struct canonical *c, const struct canonical_hook *hook, unsigned int mask)
{
	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; ++i) {
		const uintptr_t from = hook->map->written & 1U << i ? CONTEXT(general_purpose_registers) :
								      ARCH_HOOK_FRAME_REGISTERS;

		if (mask & 1U << i)
			c->at.general[canonical_numbers[i]] = canonical_word(c, hook->base + from + 8 * i);
	}
}

/* The hook is left: by a thread that owns the guard, if this hook does. */
static void canonical_clear_guard(struct canonical *c, const struct canonical_hook *hook)
{
	const uintptr_t guard = canonical_variable(c, &libpatch_hook_guard.guard);

	if (canonical_word(c, guard) == hook->base)
		canonical_write(c, guard, 0, sizeof(uint64_t));
}

static void canonical_restore_errno(struct canonical *c, const struct canonical_hook *hook)
{
	const uintptr_t error = c->thread_pointer + (uintptr_t)arch_errno_offset();
	const uint32_t kept = canonical_half(c, hook->base + ARCH_HOOK_FRAME_ERRNO);

	if (canonical_half(c, error) != kept)
		canonical_write(c, error, kept, sizeof(kept));
}

#define PAIR(pairs, top, field) ((pairs) + (top) + offsetof(struct hook_pair, field))

static void canonical_set_top(struct canonical *c, uintptr_t top)
{
	canonical_write(c, canonical_variable(c, &libpatch_hook_guard.top), top, sizeof(top));
}

static uintptr_t canonical_top(struct canonical *c)
{
	return canonical_word(c, canonical_variable(c, &libpatch_hook_guard.top));
}

/* The hook's, by its lea rcx, [rip + slot], or, in far code, its mov rcx, slot. */
static uintptr_t canonical_slot(const struct canonical *c, const struct canonical_hook *hook)
{
	const uint8_t *bytes = (const uint8_t *)(c->map->code + hook->map->place);
	int32_t displacement;
	uint64_t slot;

	if (bytes[1] != 0x8D) {
		__builtin_memcpy(&slot, bytes + 2, sizeof(slot));
		return slot;
	}
	__builtin_memcpy(&displacement, bytes + 3, sizeof(displacement));
	return (uintptr_t)bytes + 7 + (uintptr_t)(intptr_t)displacement;
}

/* As the hook would, but that pairs which are gone stay until the next one is noted. */
static void canonical_note_pair(struct canonical *c, const struct canonical_hook *hook, uintptr_t stack_pointer)
{
	const uintptr_t pairs = canonical_variable(c, &libpatch_hook_guard);
	const uintptr_t block = canonical_word(c, canonical_variable(c, &libpatch_thread_block));
	size_t number = hook_pair_number(block - pairs, canonical_top(c));
	uintptr_t top;

	if (number == hook_pair_room((const struct thread_block *)block)) {
		number = 0;
		canonical_write(c, canonical_variable(c, &libpatch_hook_guard.gone_past), 1, sizeof(uintptr_t));
	}
	top = hook_pair_top(block - pairs, number + 1);
	canonical_write(c, PAIR(pairs, top, record), canonical_word(c, hook->base + ARCH_HOOK_FRAME_RECORD),
			sizeof(uint64_t));
	canonical_write(c, PAIR(pairs, top, stack_pointer), stack_pointer, sizeof(uint64_t));
	canonical_write(c, PAIR(pairs, top, execution), canonical_slot(c, hook) + stack_pointer, sizeof(uint64_t));
	canonical_set_top(c, top);
}

static void canonical_drop_pair(struct canonical *c)
{
	const uintptr_t pairs = canonical_variable(c, &libpatch_hook_guard);
	const uintptr_t top = canonical_top(c);

	canonical_write(c, PAIR(pairs, top, execution), 0, sizeof(uint64_t));
	canonical_write(c, PAIR(pairs, top, record), 0, sizeof(uint64_t));
	canonical_set_top(c, top - sizeof(struct hook_pair));
}

/* Is the pair noted last this hook's? */
static bool canonical_has_noted(struct canonical *c, const struct canonical_hook *hook, uintptr_t stack_pointer)
{
	const uintptr_t pairs = canonical_variable(c, &libpatch_hook_guard);

	return canonical_word(c, PAIR(pairs, canonical_top(c), execution)) == canonical_slot(c, hook) + stack_pointer;
}

/* The address that the context had before the call. */
static uintptr_t canonical_reported(struct canonical *c, const struct canonical_hook *hook)
{
	if (hook->map->leads)
		return canonical_word(c, hook->base + ARCH_HOOK_FRAME_REPORTED);
	return c->map->region + (uintptr_t)(intptr_t)hook->map->program_counter;
}

/* With another stack only, the thread goes where it would have gone. */
static uintptr_t canonical_goes_on_at(struct canonical *c, const struct canonical_hook *hook)
{
	if (hook->map->held == ARCH_HELD_ON_TOP)
		return canonical_word(c, hook->above);
	if (hook->map->held == ARCH_HELD_BELOW)
		return canonical_word(c, hook->above - 8);
	return c->map->code + hook->map->ends;
}

/* The procedure was called. It may have changed where the thread goes on, and with what stack. */
static void canonical_end_call(struct canonical *c, const struct canonical_hook *hook, bool owes)
{
	const uintptr_t end = c->map->code + hook->map->ends;
	const uintptr_t pc = canonical_word(c, hook->base + CONTEXT(program_counter));
	const uintptr_t stack_pointer = canonical_word(c, hook->base + CONTEXT(stack_pointer));
	const bool leaves = pc != canonical_reported(c, hook) && pc != end;

	canonical_take(c, hook, CALLER_SAVED | hook->map->written);
	canonical_restore_errno(c, hook);
	if (hook->map->pair == ARCH_PAIR_FIRST && leaves && !owes && canonical_has_noted(c, hook, stack_pointer))
		canonical_drop_pair(c);
	else if (hook->map->pair == ARCH_PAIR_FIRST && !leaves && owes)
		canonical_note_pair(c, hook, stack_pointer);
	else if (hook->map->pair >= ARCH_PAIR_SECOND && owes)
		canonical_drop_pair(c);
	c->at.pc = end;
	c->at.general[ARCH_RSP] = hook->above;
	if (leaves || stack_pointer != hook->above + (uintptr_t)(intptr_t)hook->map->above) {
		c->at.pc = leaves ? pc : canonical_goes_on_at(c, hook);
		c->at.general[ARCH_RSP] = stack_pointer;
	}
}

static uintptr_t canonical_base(struct canonical *c, const struct arch_hook_map *hook)
{
	if (hook->own)
		return c->at.general[ARCH_RSP];
	return canonical_stack_pointer(c) - 8U * hook->pushed - ARCH_HOOK_FRAME_TOTAL;
}

static struct canonical_hook canonical_hook(struct canonical *c, const struct arch_hook_map *map)
{
	struct canonical_hook hook = { .map = map };

	hook.base = canonical_base(c, map);
	hook.above = canonical_stack_pointer(c) - 8U * map->pushed;
	return hook;
}

/* The word that flags are in is the program's again, or is not yet kept. */
static uint8_t canonical_pop_flags(struct canonical *c, uint8_t what)
{
	static const uint8_t kinds[] = {
		[ARCH_PUSHED_OWN] = ARCH_HOOK_OWN,
		[ARCH_PUSHED_SAVED] = ARCH_HOOK_SAVED,
		[ARCH_PUSHED_LEAVES] = ARCH_HOOK_LEAVES,
	};

	c->at.general[ARCH_RSP] += 8;
	return kinds[what];
}

/* A hook that has no frame yet. */
static void canonical_own(struct canonical *c, uint8_t what)
{
	const uintptr_t own = canonical_variable(c, &libpatch_hook_guard.own);

	if (what == ARCH_OWN_RCX)
		canonical_write(c, own, c->at.general[RCX], sizeof(uint64_t));
	else if (what == ARCH_OWN_NONE)
		canonical_write(c, own, (uintptr_t)&libpatch_own_none, sizeof(uint64_t));
	c->at.general[RCX] = canonical_word(c, canonical_variable(c, &libpatch_hook_guard.kept));
}

bool arch_put_off_is_call(const struct arch_code_map *map, uintptr_t pc, uintptr_t base, unsigned int way)
{
	struct canonical c = { .map = map, .at.pc = pc, .at.general[ARCH_RSP] = base - 8U * way };
	const struct arch_stretch *stretch = canonical_is_inside(map, pc) ? canonical_stretch(map, pc) : NULL;

	return stretch != NULL && (stretch->kind & ARCH_STRETCH_KIND) > ARCH_HOOK_BEGINS &&
	       canonical_base(&c, &map->hooks[stretch->arg]) == base && (way == 0 || !map->hooks[stretch->arg].own);
}

/* To where the hook began, or false: to where it ends. */
static bool canonical_in_hook(struct canonical *c, const struct arch_stretch *stretch, uint8_t kind)
{
	const uint8_t what = stretch->kind >> ARCH_STRETCH_REGISTER;
	const bool pushed = kind == ARCH_HOOK_PUSHED;
	struct canonical_hook hook;
	const uintptr_t word = c->at.general[RDX] + c->at.general[RAX] + offsetof(struct shadow_leaf, words);
	bool again = true;

	if (pushed)
		kind = canonical_pop_flags(c, what);
	hook = canonical_hook(c, &c->map->hooks[stretch->arg]);
	if (kind == ARCH_HOOK_ASKED)
		kind = c->at.general[RAX] == 0 ? ARCH_HOOK_RCX : ARCH_HOOK_PASSED;
	if (kind == ARCH_HOOK_WORD)
		canonical_write(c, word, c->at.general[8], sizeof(uint64_t));
	if (kind == ARCH_HOOK_OWN) {
		canonical_own(c, pushed ? ARCH_OWN_IS : what);
	} else if (kind != ARCH_HOOK_BEGINS) {
		canonical_take_flags(c, canonical_word(c, hook.base + (hook.map->own ? ARCH_OWN_FRAME_FLAGS :
										       ARCH_HOOK_FRAME_FLAGS)));
		canonical_clear_guard(c, &hook);
	}
	c->at.pc = c->map->code + hook.map->begins;
	c->at.general[ARCH_RSP] = hook.above;
	switch (kind) {
	case ARCH_HOOK_SAVED:
	case ARCH_HOOK_WORD:
		canonical_take(c, &hook, CALLER_SAVED);
		break;
	case ARCH_HOOK_RDI:
		canonical_take(c, &hook, BIT(RAX) | BIT(RCX) | BIT(RDI));
		break;
	case ARCH_HOOK_RCX:
		canonical_take(c, &hook, BIT(RAX) | BIT(RCX));
		break;
	case ARCH_HOOK_RAX:
		canonical_take(c, &hook, BIT(RAX));
		break;
	case ARCH_HOOK_PASSED:
		canonical_take(c, &hook, BIT(RAX) | BIT(RCX));
		c->at.pc = c->map->code + hook.map->ends;
		again = false;
		break;
	case ARCH_HOOK_LEAVES:
		canonical_take(c, &hook, BIT(RAX));
		c->at.pc = c->map->code + hook.map->ends;
		again = false;
		break;
	case ARCH_HOOK_OWES:
	case ARCH_HOOK_CALLED:
		canonical_end_call(c, &hook, kind == ARCH_HOOK_OWES);
		again = false;
		break;
	default: /* ARCH_HOOK_BEGINS, ARCH_HOOK_FLAGS, ARCH_HOOK_OWN */
		break;
	}
	return again;
}

/* ---- both steps ------------------------------------------------------------------------------------------------- */

static void canonical_leave_kept(struct canonical *c, uint8_t kind)
{
	const uintptr_t stack_pointer = canonical_stack_pointer(c);

	c->at.pc = canonical_word(c, stack_pointer - ARCH_HOOK_RED_ZONE - 8);
	c->at.general[ARCH_RSP] = kind == ARCH_CALL_KEPT ? stack_pointer - 8 : stack_pointer;
}

/* One move towards a place; true: this is one. */
static bool canonical_settle_one(struct canonical *c)
{
	const struct arch_stretch *stretch = canonical_stretch(c->map, c->at.pc);
	const uint8_t kind = stretch->kind & ARCH_STRETCH_KIND;

	switch ((enum arch_stretch_kind)kind) {
	case ARCH_COPY:
		canonical_go_back(c, stretch);
		return true;
	case ARCH_BORROWED:
		canonical_take_slot(c, stretch);
		canonical_go_back(c, stretch);
		return true;
	case ARCH_GIVEN_BACK:
		canonical_take_slot(c, stretch);
		canonical_go_next(c, stretch);
		return false;
	case ARCH_SYSCALL_MADE:
		c->at.general[RCX] = canonical_original(c->map, c->at.pc);
		canonical_go_next(c, stretch);
		return false;
	case ARCH_LEAVES:
		c->at.pc = canonical_target(c);
		return false;
	case ARCH_LED:
		c->at.pc = canonical_led(c, stretch);
		return false;
	case ARCH_JMP_KEPT:
	case ARCH_CALL_KEPT:
		canonical_leave_kept(c, kind);
		return false;
	case ARCH_COUNT_SAVED:
	case ARCH_COUNT_PUSHED:
		canonical_count(c, stretch, kind);
		return true;
	case ARCH_COUNTED:
	case ARCH_COUNTED_AX:
	case ARCH_COUNTED_FLAGS:
		canonical_count(c, stretch, kind);
		return false;
	case ARCH_INSTEAD_SAVED:
		canonical_instead(c, stretch, kind);
		return true;
	case ARCH_INSTEAD_ASKED:
	case ARCH_INSTEAD_NOT:
	case ARCH_INSTEAD_MADE:
		canonical_instead(c, stretch, kind);
		return false;
	case ARCH_STRETCH_END:
		c->failed = true;
		return true;
	default:
		return canonical_in_hook(c, stretch, kind);
	}
}

static bool canonical_goes_on(struct canonical *c, size_t *steps)
{
	if (c->failed || !canonical_is_inside(c->map, c->at.pc))
		return false;
	if (++*steps > STEPS_MAX)
		c->failed = true;
	return !c->failed;
}

static void canonical_settle(struct canonical *c)
{
	size_t steps = 0;

	while (canonical_goes_on(c, &steps) && !canonical_settle_one(c))
		;
}

/* Where nothing is left but a jump, the thread goes on where that leads: there is nothing to be remembered then. */
static void canonical_leave(struct canonical *c)
{
	size_t steps = 0;

	while (canonical_goes_on(c, &steps)) {
		if ((canonical_stretch(c->map, c->at.pc)->kind & ARCH_STRETCH_KIND) != ARCH_LEAVES)
			return;
		c->at.pc = canonical_target(c);
	}
}

/* From a place to the instruction that the program is at, and to the program's stack pointer. */
static void canonical_show(struct canonical *c)
{
	size_t steps = 0;

	while (canonical_goes_on(c, &steps)) {
		const struct arch_stretch *stretch = canonical_stretch(c->map, c->at.pc);
		const uint8_t kind = stretch->kind & ARCH_STRETCH_KIND;

		if (kind == ARCH_HOOK_BEGINS && c->map->hooks[stretch->arg].on_way) {
			c->at.pc = c->map->code + c->map->hooks[stretch->arg].ends;
		} else if (kind == ARCH_LEAVES) {
			c->at.pc = canonical_target(c);
		} else if (kind == ARCH_LED) {
			c->at.pc = canonical_led(c, stretch);
		} else if (kind == ARCH_JMP_KEPT) {
			canonical_leave_kept(c, kind);
		} else {
			c->at.general[ARCH_RSP] = canonical_stack_pointer(c);
			c->at.pc = canonical_original(c->map, c->at.pc);
			return;
		}
	}
}

bool arch_canonical_has_begun(const struct arch_code_map *map, uintptr_t pc)
{
	const uintptr_t place = pc - map->code;
	const struct arch_stretch *stretch;

	for (stretch = map->stretches; stretch->kind != ARCH_STRETCH_END && stretch->code <= place; ++stretch) {
		const uint8_t kind = stretch->kind & ARCH_STRETCH_KIND;
		const bool counts = kind == ARCH_COUNT_SAVED;

		if (kind != ARCH_HOOK_BEGINS && !counts)
			continue;
		if (!counts && map->hooks[stretch->arg].on_way) {
			if (stretch->code == place)
				return true;
		} else if (stretch->code < place &&
			   canonical_original(map, map->code + stretch->code) == canonical_original(map, pc)) {
			return true;
		}
	}
	return false;
}

bool arch_canonical(const struct arch_code_map *map, const struct arch_registers *interrupted, uintptr_t thread_pointer,
		    arch_read_fn *read, void *data, struct arch_canonical *out)
{
	struct canonical c = {
		.map = map,
		.thread_pointer = thread_pointer,
		.read = read,
		.data = data,
		.out = out,
		.at = *interrupted,
	};

	out->write_count = 0;
	canonical_settle(&c);
	canonical_leave(&c);
	out->pc = c.at.pc;
	out->below = c.at.general[ARCH_RSP];
	canonical_show(&c);
	out->shown = c.at;
	out->below = c.at.general[ARCH_RSP] - out->below;
	return !c.failed;
}
