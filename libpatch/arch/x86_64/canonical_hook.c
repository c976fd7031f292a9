/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From any place of a hook to where the hook began, as if nothing of it had been executed, or to where it ends, as if
 * all of it had. What a thread has in memory, and what is written there, is by canonical.c's rules.
 */
#include "arch/own_stack.h"
#include "arch/put_off.h"
#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "arch/x86_64/canonical_parts.h"
#include "arch/x86_64/encode.h"
#include "arch/x86_64/hook_call.h"

#include <libpatch/patch.h>

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

bool canonical_in_hook(struct canonical *c, const struct arch_stretch *stretch, uint8_t kind)
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
