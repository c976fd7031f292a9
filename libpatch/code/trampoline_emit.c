/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The code of a trampoline: for each instruction of the window its hooks and its displaced copy, then what is seldom
 * executed.
 */
#include "arch/canonical.h"
#include "arch/syscall.h"
#include "code/lead.h"
#include "code/trampoline_builder.h"

static bool trampoline_is_hook_at(const struct builder *builder, const struct hook *hook, enum hook_when when)
{
	return hook->address == builder->from[builder->index] && hook_includes(hook->when, when);
}

/*
 * Behind an endbr64 the located address is the function's, still. Of code without unwind entries only the alignment
 * speaks. A wrong guess costs time only.
 */
static bool trampoline_is_at_entry(const struct builder *builder, const struct hook *hook)
{
	uintptr_t located = hook->code.program_counter;

	if (builder->insns[builder->index].kind == ARCH_RET || hook_includes(hook->when, HOOK_EXIT))
		return true;
	if (!hook_includes(hook->when, HOOK_BEFORE))
		return false;
	return hook->upper == 0 ? located % 16 == 0 : hook->address == hook->lower || located == hook->lower;
}

/*
 * A function begins here, so that the calling convention says what the registers hold. What a compiler splits off has
 * an unwind entry of its own, but begins neither on a multiple of 16 nor, like a function, with an endbr64: control may
 * come there from the middle of the other part.
 */
static bool trampoline_is_function(const struct builder *builder, const struct hook *hook)
{
	uintptr_t located = hook->code.program_counter;

	return hook_includes(hook->when, HOOK_BEFORE) && hook->upper != 0 && located == hook->lower &&
	       (located % 16 == 0 || located != builder->from[builder->index]);
}

static bool trampoline_follows_divert(const struct builder *builder, size_t index)
{
	const struct hook *hook = &builder->hooks[index];

	return index > 0 && hook[-1].code.action == ARCH_DIVERT && hook[-1].address == hook->address;
}

static void trampoline_emit_before_one(struct builder *builder, struct arch_code *code, size_t index)
{
	const struct hook *wanted = &builder->hooks[index];
	struct arch_hook hook = wanted->code;

	/* One jump for all that divert there. */
	if (hook.action == ARCH_DIVERT && trampoline_follows_divert(builder, index)) {
		builder->built[index].behind = builder->built[index - 1].behind;
		return;
	}
	hook.slot = builder->built[index].slot;
	hook.post = hook_is_post(wanted->when);
	hook.at_entry = trampoline_is_at_entry(builder, wanted);
	hook.x87_empty = trampoline_is_function(builder, wanted);
	hook.pair = hook_includes(wanted->when, HOOK_AROUND) ? ARCH_PAIR_FIRST : ARCH_PAIR_NONE;
	hook.shadow = hook_includes(wanted->when, HOOK_EXIT)    ? ARCH_SHADOW_EXIT :
		      hook_includes(wanted->when, HOOK_ENTRY) ? ARCH_SHADOW_ENTRY :
								ARCH_SHADOW_NONE;
	arch_emit_hook(code, &hook);
	if (hook.action == ARCH_DIVERT)
		builder->built[index].behind = code->size;
}

/* Whoever jumps or returns from a function without looking at anything is about to leave it. */
static bool trampoline_leaves(const struct arch_insn *insn)
{
	return insn->kind == ARCH_RET || insn->kind == ARCH_JMP;
}

static void trampoline_emit_before(struct builder *builder, struct arch_code *code)
{
	static const uint8_t order[] = { HOOK_RETURNED, HOOK_BEFORE, HOOK_EXIT };

	for (size_t n = 0; n < ARRAY_SIZE(order); ++n)
		for (size_t i = 0; i < builder->count; ++i)
			if (trampoline_is_hook_at(builder, &builder->hooks[i], (enum hook_when)order[n]) &&
			    (order[n] != HOOK_EXIT || trampoline_leaves(&builder->insns[builder->index])))
				trampoline_emit_before_one(builder, code, i);
}

/* At a call the stack is aligned, so that behind it, as behind a return, it is 8 off. */
static bool trampoline_is_after_entry(const struct arch_insn *insn)
{
	return insn->kind == ARCH_RET || insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND;
}

/* Is the hook on this way out of the instruction, of which `next` is 0 where only the program knows? */
static bool trampoline_is_on_way(const struct builder *builder, const struct hook *hook, const struct arch_exit *exit)
{
	const struct arch_insn *insn = &builder->insns[builder->index];
	const uintptr_t behind = builder->from[builder->index] + insn->length;

	if (hook_includes(hook->when, HOOK_FALL))
		return exit->next == behind;
	if (hook_includes(hook->when, HOOK_EXIT))
		return !trampoline_leaves(insn) && exit->next != behind;
	return hook_includes(hook->when, HOOK_AROUND);
}

static bool trampoline_knows_change(const struct builder *builder, int32_t *change)
{
	const struct arch_insn *insn = &builder->insns[builder->index];
	const uint8_t *bytes = builder->window->original + builder->window->offsets[builder->index];

	return !(insn->flags & ARCH_F_SYSCALL) && arch_stack_change(bytes, insn, change);
}

static void trampoline_emit_after_one(const struct builder *builder, struct arch_code *code,
				      const struct arch_exit *exit, size_t index)
{
	const struct hook *wanted = &builder->hooks[index];
	const struct arch_insn *insn = &builder->insns[builder->index];
	struct arch_hook hook = wanted->code;

	hook.slot = builder->built[index].slot;
	hook.exit = exit;
	hook.lower = wanted->lower;
	hook.upper = wanted->upper;
	hook.post = 1;
	if (hook_includes(wanted->when, HOOK_AROUND)) {
		hook.pair = trampoline_knows_change(builder, &hook.change) ? ARCH_PAIR_SECOND :
									     ARCH_PAIR_SECOND_ANYWHERE;
		if (wanted->upper != 0 ? exit->next >= wanted->lower && exit->next < wanted->upper : exit->next != 0)
			hook.program_counter = exit->next;
		hook.at_entry = trampoline_is_after_entry(insn);
	} else {
		hook.shadow = ARCH_SHADOW_EXIT;
		hook.at_entry = true;
		/* A function that goes to its first byte by a pointer calls itself. */
		hook.lower += wanted->upper != 0;
	}
	arch_emit_hook(code, &hook);
}

/* Hooks of the instruction on one way out of it: second calls, and behind them exits. */
static void trampoline_emit_after(struct arch_code *code, const struct arch_exit *exit, void *data)
{
	const struct builder *builder = data;

	for (int exits = 0; exits < 2; ++exits)
		for (size_t i = builder->count; i-- > 0;) {
			const struct hook *hook = &builder->hooks[i];

			if (hook->address == builder->from[builder->index] &&
			    hook_includes(hook->when, HOOK_AROUND) != (exits != 0) &&
			    trampoline_is_on_way(builder, hook, exit))
				trampoline_emit_after_one(builder, code, exit, i);
		}
}

/* Is there to be anything on ways out of the instruction? */
static bool trampoline_any_after(const struct builder *builder)
{
	const bool leaves = trampoline_leaves(&builder->insns[builder->index]);

	for (size_t i = 0; i < builder->count; ++i)
		if (trampoline_is_hook_at(builder, &builder->hooks[i], HOOK_AROUND) ||
		    trampoline_is_hook_at(builder, &builder->hooks[i], HOOK_FALL) ||
		    (!leaves && trampoline_is_hook_at(builder, &builder->hooks[i], HOOK_EXIT)))
			return true;
	return false;
}

/* Registers that the hooks on the ways out may change. */
static uint16_t trampoline_written_after(const struct builder *builder)
{
	uint16_t written = 0;

	for (size_t i = 0; i < builder->count; ++i)
		if (builder->hooks[i].address == builder->from[builder->index] &&
		    (builder->hooks[i].when & (HOOK_AROUND | HOOK_EXIT | HOOK_FALL)) > HOOK_BEFORE)
			written |= arch_hook_writes(&builder->hooks[i].code);
	return written;
}

static const struct hook *trampoline_find_hook(const struct builder *builder, enum hook_when when)
{
	for (size_t i = 0; i < builder->count; ++i)
		if (trampoline_is_hook_at(builder, &builder->hooks[i], when))
			return &builder->hooks[i];
	return NULL;
}

static void trampoline_emit_copy(struct builder *builder, struct arch_code *code, const uint8_t *bytes,
				 uintptr_t address, const struct arch_map *map)
{
	const struct hook *instead = trampoline_find_hook(builder, HOOK_SYSCALL);
	const struct arch_insn *insn = &builder->insns[builder->index];

	if (instead != NULL)
		arch_emit_syscall_hook(code, instead->instead, bytes, insn, address, map);
	else
		arch_relocate(code, bytes, insn, address, map);
}

/* Returns whether control can leave the instruction at its end. */
static bool trampoline_emit_insn(struct builder *builder, struct arch_code *code, const struct arch_map *map)
{
	const struct window *window = builder->window;
	uint8_t offset = window->offsets[builder->index];
	const uint8_t *bytes = window->original + offset;
	uintptr_t address = window->start + offset;
	const struct arch_insn *insn = &builder->insns[builder->index];

	code->original = offset;
	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	trampoline_emit_before(builder, code);
	if (!trampoline_any_after(builder)) {
		trampoline_emit_copy(builder, code, bytes, address, map);
	} else if (insn->kind == ARCH_PLAIN) {
		const struct arch_exit behind = { .next = address + insn->length };

		trampoline_emit_copy(builder, code, bytes, address, map);
		/* Behind the instruction: the program is at the next one. */
		code->original = offset + insn->length;
		trampoline_emit_after(code, &behind, builder);
	} else {
		arch_relocate_around(code, bytes, insn, address, map, trampoline_written_after(builder),
				     trampoline_emit_after, builder);
	}
	return !(insn->flags & ARCH_F_NOFALL);
}

/* Behind everything else: few are used, and then they are called, not fallen into. */
static void trampoline_emit_originals(struct builder *builder, struct arch_code *code)
{
	for (size_t i = 0; i < builder->count; ++i) {
		struct built_hook *hook = &builder->built[i];

		if (hook->action != ARCH_DIVERT)
			continue;
		code->original = hook->at;
		arch_emit_row(code, 0);
		arch_emit_stretch(code, ARCH_COPY, 0);
		hook->original = code->size;
		arch_emit_jmp_slot(code, hook->original_slot);
	}
}

/* The first instruction of the window that branches there. */
static uint8_t trampoline_find_branch(const struct builder *builder, uintptr_t target)
{
	uint8_t i = 0;

	while (builder->insns[i].target != target)
		++i;
	return i;
}

/* Branches that are taken go on from here, and the program is at their target. Rows can not say that: the branch. */
static void trampoline_emit_leads(struct builder *builder, struct arch_code *code)
{
	const struct window *window = builder->window;

	for (unsigned int i = 0; i < builder->lead_count; ++i) {
		const struct window_lead *lead = &window->leads[i];

		code->original = window->offsets[trampoline_find_branch(builder, lead->target)];
		arch_emit_row(code, 0);
		arch_emit_stretch(code, ARCH_LED, 0);
		builder->entries[window->count + i] = (uint16_t)code->size;
		arch_emit_jmp_slot(code, lead->lead->slot);
		arch_emit_u64(code, lead->target);
	}
}

void trampoline_emit_all(struct builder *builder, struct arch_code *code)
{
	const struct window *window = builder->window;
	struct arch_map map = { builder->from, builder->to, (size_t)window->count + builder->lead_count };
	bool falls = true;

	builder->cold.hook_count = 0;
	builder->cold.call_count = 0;
	builder->cold.keeping = NULL;
	code->cold = &builder->cold;
	for (unsigned int i = 0; i < window->count; ++i) {
		builder->index = (uint8_t)i;
		builder->entries[i] = (uint16_t)code->size;
		falls = trampoline_emit_insn(builder, code, &map);
	}
	if (falls) {
		code->original = window->length;
		arch_emit_row(code, 0);
		arch_emit_stretch(code, ARCH_LEAVES, 0);
		arch_emit_jmp(code, window->start + window->length);
	}
	arch_emit_cold(code);
	trampoline_emit_originals(builder, code);
	trampoline_emit_leads(builder, code);
	arch_emit_stretch(code, ARCH_STRETCH_END, 0);
}
