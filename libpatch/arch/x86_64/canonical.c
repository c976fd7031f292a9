/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From any pc of a block to the nearest place where all registers are the program's. Pure: the thread's memory is read
 * through the caller's function, and what is to be written is handed out.
 *
 * Two steps. The first one settles where the thread goes on: at the first byte of a copy or of a hook, or at an address
 * of the program's. The second walks on from there, over hooks that are still to come, to the instruction that the
 * program is at. What hooks consist of is in canonical_hook.c.
 */
#include "arch/x86_64/canonical_parts.h"

#include "arch/syscall.h"
#include "arch/trap_bytes.h"
#include "arch/x86_64/encode.h"
#include "arch/x86_64/hook_frame.h"

/* More than any thread has before it: hooks, jumps from one to the next. */
#define STEPS_MAX 1024

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

/* ---- moving ------------------------------------------------------------------------------------------------------ */

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
