/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builds trampolines: hooks and displaced copies of a window's instructions, emitted, given a place within reach, and
 * staged; and the jump that will lead there. What is in live text is not looked at, nor written.
 */
#include "code/trampoline.h"

#include "arch/canonical.h"
#include "arch/syscall.h"
#include "base/bug.h"
#include "base/heap.h"
#include "base/scratch.h"
#include "base/thread_safety.h"
#include "code/forms.h"
#include "code/lead.h"
#include "code/pad.h"
#include "code/slots.h"
#include "code/staging.h"

#include <stdatomic.h>
#include <string.h>

/* Rows address code with 16 bits; this many of them leave room for the code. */
#define ROWS_MAX 2048
#define STRETCHES_MAX 4096
#define HOOK_STRETCHES (sizeof(struct arch_hook_map) / sizeof(struct arch_stretch))

/* A stub is a block of its own: one row, and jmp [rip + 2] with eight aligned bytes behind it. */
#define STUB_HEADER 32
#define STUB_SIZE (STUB_HEADER + 16)

/* Scratch memory: it is large. */
struct builder {
	const struct window *window;
	const struct hook *hooks;
	struct built_hook *built; /* the same ones, with their slots */
	size_t count;
	/* The window's instructions, and behind them what has leads. */
	uintptr_t from[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uintptr_t to[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uint16_t entries[WINDOW_INSNS_MAX + WINDOW_LEADS_MAX];
	uint8_t index; /* of the instruction being emitted */
	uint8_t lead_count; /* 0: none of them can be used */
	const struct arch_insn *insns; /* the window's */
	struct arch_insn decoded[WINDOW_INSNS_MAX];
	struct arch_cold cold;
	struct arch_row rows[ROWS_MAX];
	struct arch_stretch stretches[STRETCHES_MAX + ARCH_COLD_MAX * HOOK_STRETCHES]; /* and then hooks: a form */
	uint8_t block[ARENA_ROW_END];
};
_Static_assert(sizeof(struct builder) <= SCRATCH_BUILDER, "scratch.h");

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

static void trampoline_emit_all(struct builder *builder, struct arch_code *code)
{
	const struct window *window = builder->window;
	struct arch_map map = { builder->from, builder->to, (size_t)window->count + builder->lead_count };
	bool falls = true;

	builder->cold.hook_count = 0;
	builder->cold.call_count = 0;
	code->cold = &builder->cold;
	for (unsigned int i = 0; i < window->count; ++i) {
		builder->index = (uint8_t)i;
		builder->entries[i] = (uint16_t)code->size;
		falls = trampoline_emit_insn(builder, code, &map);
	}
	if (falls) {
		code->original = window->length;
		arch_emit_row(code, 0);
		arch_emit_stretch(code, ARCH_COPY, 0);
		arch_emit_jmp(code, window->start + window->length);
	}
	arch_emit_cold(code);
	trampoline_emit_originals(builder, code);
	trampoline_emit_leads(builder, code);
	arch_emit_stretch(code, ARCH_STRETCH_END, 0);
}

/* Where the block must lie for every displacement in it to reach, but for those to slots. */
static struct arena_reach trampoline_reach(const struct builder *builder)
{
	const struct window *window = builder->window;
	struct arena_reach reach = arena_reach_of(window->start);

	for (unsigned int i = 0; i < window->count; ++i) {
		uintptr_t target = builder->insns[i].target;

		if (target != 0 && !arena_reach_intersect(&reach, arena_reach_of(target)))
			break;
	}
	if (window->pad != 0)
		arena_reach_intersect(&reach, arena_reach_of(window->pad));
	for (unsigned int i = 0; i < builder->lead_count; ++i)
		arena_reach_intersect(&reach, arena_reach_of(window->leads[i].lead->slot));
	return reach;
}

/* ---- the jump --------------------------------------------------------------------------------------------------- */

static void trampoline_write_jump(uint8_t bytes[ARCH_JMP_SIZE], uintptr_t from, uintptr_t to)
{
	uint32_t displacement = (uint32_t)(to - (from + ARCH_JMP_SIZE));

	bytes[0] = ARCH_JMP_REL32;
	memcpy(bytes + 1, &displacement, sizeof(displacement));
}

uintptr_t trampoline_front(const struct trampoline *trampoline)
{
	const struct arena_block *stub = trampoline->far ? trampoline_stub(trampoline) : NULL;

	return stub != NULL && stub->size != 0 ? stub->address + STUB_HEADER : trampoline_entry(trampoline, 0);
}

void trampoline_pad_bytes(const struct trampoline *trampoline, uintptr_t pad, uint8_t bytes[ARCH_JMP_SIZE])
{
	trampoline_write_jump(bytes, pad, trampoline_front(trampoline));
}

static bool trampoline_try_top(size_t index, uintptr_t source, uint32_t mask, uint32_t value, struct arena_reach reach,
			       uintptr_t *pad) REQUIRES(library_lock)
{
	uint8_t top = arch_top_trap_bytes[index];

	return pad_alloc(source, mask | 0xff000000U, value | (uint32_t)top << 24, reach, pad) == PATCH_OK;
}

/*
 * A pad for a jump whose bytes on boundaries must be trap bytes, of which only the top one has a choice, and whose
 * bytes behind the window are what they are.
 */
static patch_status trampoline_find_pad(const struct window *window, struct arena_reach reach, uintptr_t *pad)
	REQUIRES(library_lock)
{
	static size_t worked GUARDED_BY(library_lock) = 1;
	uintptr_t source = window->start + ARCH_JMP_SIZE;
	uint32_t mask = 0;
	uint32_t value = 0;
	uint8_t traps[4];
	size_t first;

	window_rel32_traps(window->offsets, window->count, traps);
	for (unsigned int i = 0; i < 4; ++i) {
		bool punned = i + 1 >= window->length;

		if (punned || (traps[i] && i < 3)) {
			mask |= 0xffU << (8 * i);
			value |= (uint32_t)(punned ? window->original[i + 1] : traps[i]) << (8 * i);
		}
	}
	if (!traps[3])
		return pad_alloc(source, mask, value, reach, pad);

	/* int3 if it may be, then what last worked: the neighbours of a site have the same memory around them. */
	first = traps[3] == ARCH_INT3 ? 0 : 1;
	if (trampoline_try_top(first, source, mask, value, reach, pad) ||
	    trampoline_try_top(worked, source, mask, value, reach, pad))
		return PATCH_OK;
	for (size_t i = 1; i < arch_top_trap_byte_count; ++i) {
		if (i != worked && trampoline_try_top(i, source, mask, value, reach, pad)) {
			worked = i;
			return PATCH_OK;
		}
	}
	*pad = 0;
	return PATCH_ENOMEM;
}

/* False: there is no pad that reaches the trampoline. */
static bool trampoline_link_jump(struct trampoline *trampoline, struct window *window) REQUIRES(library_lock)
{
	const uintptr_t front = trampoline_front(trampoline);

	if (window->strategy == PATCH_STRATEGY_TRAP)
		return true;
	if (window->strategy == PATCH_STRATEGY_JUMP) {
		trampoline_write_jump(trampoline->jump, window->start, front);
		return true;
	}
	if (window->pad == 0 && trampoline_find_pad(window, arena_reach_of(front), &window->pad) != PATCH_OK)
		return false;
	trampoline_write_jump(trampoline->jump, window->start, window->pad);
	return true;
}

/* A pad that does not reach the trampoline: on the other side of the site. False: none. */
static bool trampoline_find_pad_beyond(const struct trampoline *trampoline, struct window *window)
	REQUIRES(library_lock)
{
	const struct arena_reach reach = arena_reach_of(trampoline_front(trampoline));
	struct arena_reach beyond = arena_reach_everything();

	if (trampoline_front(trampoline) < window->start)
		beyond.lower = reach.upper;
	else
		beyond.upper = reach.lower;
	return trampoline_find_pad(window, beyond, &window->pad) == PATCH_OK;
}

/* ---- building --------------------------------------------------------------------------------------------------- */

static size_t trampoline_size(const struct trampoline *trampoline)
{
	return sizeof(*trampoline) + trampoline->hook_count * sizeof(struct built_hook) +
	       trampoline->lead_count * sizeof(struct lead *) + (trampoline->far ? sizeof(struct arena_block) : 0) +
	       trampoline->count * sizeof(uint16_t);
}

static void trampoline_free_block(struct arena_block *block) REQUIRES(library_lock)
{
	if (block->size == 0)
		return;
	staging_drop(block->address);
	arena_free(block);
	block->size = 0;
}

static void trampoline_free_code(struct trampoline *trampoline) REQUIRES(library_lock)
{
	trampoline_free_block(&trampoline->block);
	if (trampoline->far)
		trampoline_free_block(trampoline_stub(trampoline));
}

void trampoline_free(struct trampoline *trampoline)
{
	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		struct built_hook *hook = &trampoline->hooks[i];

		BUG_ON_RETURN(hook->place != NULL);
		if (hook->slot != 0)
			hook_slot_free(hook->slot);
		if (hook->action == ARCH_DIVERT && hook->original_slot != 0)
			hook_slot_free(hook->original_slot);
	}
	trampoline_free_code(trampoline);
	for (unsigned int i = 0; i < trampoline->lead_count; ++i)
		lead_drop(trampoline_leads(trampoline)[i]);
	heap_free(trampoline, trampoline_size(trampoline));
}

/* With room for what it takes to be far. False: out of memory. */
static bool trampoline_make_far(struct trampoline **trampoline) REQUIRES(library_lock)
{
	struct trampoline far = **trampoline;
	struct trampoline *grown;

	if (far.far)
		return true;
	far.far = true;
	grown = heap_grow(*trampoline, trampoline_size(*trampoline), trampoline_size(&far));
	if (grown == NULL)
		return false;
	grown->far = true;
	*trampoline = grown;
	return true;
}

/* Header of a block (arena.h), then the code behind it. */
static size_t trampoline_header_size(const struct arch_code *code)
{
	return ALIGN_UP(ARENA_BLOCK_ROWS + code->row_count * sizeof(struct arch_row) + sizeof(uint64_t), ARENA_GRANULE);
}

/* NULL: out of memory. */
static const void *trampoline_form(struct builder *builder, size_t stretch_count) REQUIRES(library_lock)
{
	struct arch_stretch *end = builder->stretches + stretch_count;
	struct arch_hook_map map;

	for (size_t i = 0; i < builder->cold.hook_count; ++i, end += HOOK_STRETCHES) {
		arch_hook_describe(&builder->cold.hooks[i], builder->window->start, &map);
		memcpy(end, &map, sizeof(map));
	}
	return forms_share(builder->stretches, (size_t)((uint8_t *)end - (uint8_t *)builder->stretches));
}

/* False: out of memory. */
static bool trampoline_finish_header(struct builder *builder, const struct arch_code *code, size_t header)
	REQUIRES(library_lock)
{
	uint64_t site = builder->window->start;
	uint64_t form = (uintptr_t)trampoline_form(builder, code->stretch_count);
	uint64_t last = form << ARENA_FORM_SHIFT | ARENA_ROW_END;

	memset(builder->block, 0, header);
	memcpy(builder->block, &site, sizeof(site));
	for (size_t i = 0; i < code->row_count; ++i)
		builder->rows[i].code = (uint16_t)(builder->rows[i].code + header);
	memcpy(builder->block + ARENA_BLOCK_ROWS, builder->rows, code->row_count * sizeof(builder->rows[0]));
	memcpy(builder->block + ARENA_BLOCK_ROWS + code->row_count * sizeof(builder->rows[0]), &last, sizeof(last));
	return form != 0;
}

static void trampoline_prepare(struct builder *builder)
{
	const struct window *window = builder->window;

	builder->insns = window->insns != NULL ? window->insns : builder->decoded;
	for (unsigned int i = 0; i < window->count; ++i) {
		uint8_t offset = window->offsets[i];

		builder->from[i] = window->start + offset;
		if (window->insns == NULL)
			arch_decode(window->original + offset, window->offsets[i + 1] - offset, builder->from[i],
				    &builder->decoded[i]);
	}
	for (unsigned int i = 0; i < window->lead_count; ++i)
		builder->from[window->count + i] = window->leads[i].target;
}

static const char *trampoline_refuses_far(const struct builder *builder)
{
	const struct window *window = builder->window;
	const char *why = NULL;

	for (unsigned int i = 0; i < window->count && why == NULL; ++i) {
		uint8_t offset = window->offsets[i];
		const uint8_t *bytes = window->original + offset;
		const struct arch_insn *insn = &builder->insns[i];

		why = arch_refuses_far(bytes, insn);
		/* It is made by a return. Calls are not displaced at all then (plan.c). */
		if (window->shadow_stack && insn->kind == ARCH_JMP_IND && insn->disp_offset != 0)
			why = "no free memory within 2 GiB, and farther away a jump through a RIP-relative operand "
			      "cannot be displaced while the thread has a user shadow stack";
	}
	return why;
}

/* False: there is no slot that code at the address reaches. `anywhere`: any other will do. */
static bool trampoline_bring_slot(uintptr_t *slot, uintptr_t address, bool anywhere, bool *moved)
	REQUIRES(library_lock)
{
	const struct arena_reach reach = arena_reach_of(address);
	uintptr_t brought;

	if (*slot != 0 && *slot >= reach.lower && *slot <= reach.upper)
		return true;
	brought = hook_slot_alloc(address, reach);
	if (brought == 0 && anywhere && *slot == 0)
		brought = hook_slot_alloc(address, arena_reach_everything());
	if (brought == 0)
		return anywhere && *slot != 0;
	if (*slot != 0)
		hook_slot_free(*slot);
	*slot = brought;
	*moved = true;
	return true;
}

/*
 * Each hook has a slot of its own, and a divert two, which code at the address reaches. Far code reads other slots
 * through a register; a jump has none to spare. False: there is no memory for them.
 */
static bool trampoline_bring_slots(const struct builder *builder, uintptr_t address, bool far, bool *moved)
	REQUIRES(library_lock)
{
	for (size_t i = 0; i < builder->count; ++i) {
		struct built_hook *hook = &builder->built[i];
		const bool divert = hook->action == ARCH_DIVERT;

		if (!trampoline_bring_slot(&hook->slot, address, far && !divert, moved) ||
		    (divert && !trampoline_bring_slot(&hook->original_slot, address, false, moved)))
			return false;
	}
	return true;
}

/* Where code goes, the best first. */
enum trampoline_how {
	TRAMPOLINE_NEAR,  /* within reach, where there is much memory */
	TRAMPOLINE_FAR,   /* out of reach, by 64 bits */
	TRAMPOLINE_ANYHOW /* within reach */
};

/* A block, and slots that its code reaches: in any arena that there is, or can be. */
static patch_status trampoline_settle(const struct builder *builder, size_t size, struct arena_reach reach,
				      enum trampoline_how how, struct arena_block *block, bool *moved)
	REQUIRES(library_lock)
{
	struct arena_tried tried = { .not_small = how != TRAMPOLINE_ANYHOW };
	const bool far = how == TRAMPOLINE_FAR;

	while (reach.lower < reach.upper &&
	       arena_alloc(size, builder->window->start, reach, &tried, block) == PATCH_OK) {
		if (trampoline_bring_slots(builder, block->address, far, moved))
			return PATCH_OK;
		trampoline_free_block(block);
	}
	return PATCH_ENOMEM;
}

/* What is in reach is left to those that need it there. */
static patch_status trampoline_settle_far(const struct builder *builder, size_t size, struct arena_block *block,
					  bool *moved) REQUIRES(library_lock)
{
	const struct arena_reach near = arena_reach_of(builder->window->start);
	const struct arena_reach below = { 0, near.lower }, above = { near.upper, UINTPTR_MAX };

	return trampoline_settle(builder, size, below, TRAMPOLINE_FAR, block, moved) == PATCH_OK ?
		       PATCH_OK :
		       trampoline_settle(builder, size, above, TRAMPOLINE_FAR, block, moved);
}

/* From offsets in the code to addresses; closed. */
static void trampoline_close_diverts(const struct builder *builder, uintptr_t base)
{
	for (size_t i = 0; i < builder->count; ++i) {
		struct built_hook *hook = &builder->built[i];

		if (hook->action != ARCH_DIVERT)
			continue;
		hook->behind += base;
		hook->original += base;
		atomic_store((_Atomic uintptr_t *)hook->slot, hook->behind);
		atomic_store((_Atomic uintptr_t *)hook->original_slot, hook->behind);
	}
}

/* Does an instruction of the window branch to code of the block, which is not emitted yet? */
static bool trampoline_branches_inside(const struct builder *builder)
{
	const struct window *window = builder->window;

	if (builder->lead_count > 0)
		return true;
	for (unsigned int i = 0; i < window->count; ++i)
		if (builder->insns[i].target - window->start < window->length)
			return true;
	return false;
}

/* For code at `base`, behind a header of so many bytes. */
static void trampoline_emit_begin(struct builder *builder, struct arch_code *code, uintptr_t base, size_t header,
				  bool far)
{
	*code = (struct arch_code){
		.bytes = builder->block + header,
		.capacity = sizeof(builder->block) - header,
		.base = base + header,
		.far = far,
		.rows = builder->rows,
		.row_capacity = ROWS_MAX,
		.stretches = builder->stretches,
		.stretch_capacity = STRETCHES_MAX,
	};
}

/* Sizes do not depend on `base`, but modulo ARENA_GRANULE. */
static void trampoline_emit_pass(struct builder *builder, struct arch_code *code, uintptr_t base, size_t header,
				 bool far)
{
	trampoline_emit_begin(builder, code, base, header, far);
	trampoline_emit_all(builder, code);
}

#define NO_MEMORY "no free memory within 2 GiB of the site and of what its instructions refer to"

/*
 * The first pass finds the size and the entries, the second has the addresses; the first will do if it guessed them.
 */
static patch_status trampoline_emit_block(struct builder *builder, struct trampoline *trampoline,
					  enum trampoline_how how, const char **message) REQUIRES(library_lock)
{
	/* Of the last with as many instructions. */
	static size_t headers[WINDOW_INSNS_MAX + 1] GUARDED_BY(library_lock);
	const struct window *window = builder->window;
	const bool far = how == TRAMPOLINE_FAR;
	const struct arena_reach reach = trampoline_reach(builder);
	uintptr_t guess = far || trampoline_branches_inside(builder) ? 0 : arena_next(reach);
	size_t guessed_header = MAX(headers[window->count], (size_t)ARENA_GRANULE);
	struct arch_code code;
	size_t header, code_size, row_count, stretch_count;
	uint16_t *entries;
	bool moved = false;
	patch_status status;

	if (guess != 0)
		trampoline_bring_slots(builder, guess, far, &moved);
	/* What is nowhere yet is not in range, nor need it be. */
	for (unsigned int i = 0; i < (unsigned int)window->count + builder->lead_count; ++i)
		builder->to[i] = window->start;
	trampoline_emit_pass(builder, &code, guess != 0 ? guess : ALIGN_DOWN(window->start, ARENA_GRANULE),
			     guessed_header, far);
	row_count = code.row_count;
	code_size = code.size;
	stretch_count = code.stretch_count;
	if (row_count > ROWS_MAX || stretch_count > STRETCHES_MAX ||
	    code_size > sizeof(builder->block) - trampoline_header_size(&code)) {
		*message = "too many hooks on one group of instructions";
		return PATCH_ENOMEM;
	}
	header = trampoline_header_size(&code);
	headers[window->count] = header;
	moved = guess == 0;
	status = far ? trampoline_settle_far(builder, header + code_size, &trampoline->block, &moved) :
		       trampoline_settle(builder, header + code_size, reach, how, &trampoline->block, &moved);
	if (status != PATCH_OK) {
		*message = NO_MEMORY;
		return status;
	}
	if (moved || trampoline->block.address != guess || header != guessed_header) {
		for (unsigned int i = 0; i < (unsigned int)window->count + builder->lead_count; ++i)
			builder->to[i] = trampoline->block.address + header + builder->entries[i];
		trampoline_emit_pass(builder, &code, trampoline->block.address, header, far);
	}
	entries = trampoline_entries(trampoline);
	for (unsigned int i = 0; i < window->count; ++i)
		entries[i] = (uint16_t)(builder->entries[i] + header);
	if (code.size != code_size || code.row_count != row_count || code.stretch_count != stretch_count ||
	    code.out_of_range) {
		trampoline_free_block(&trampoline->block);
		*message = code.out_of_range ? "an operand is out of reach of the generated code" :
					       "generated code changed its size between passes";
		return code.out_of_range ? PATCH_ENOMEM : PATCH_BUG;
	}
	if (!trampoline_finish_header(builder, &code, header) ||
	    !staging_add(trampoline->block.address, builder->block, (uint32_t)(header + code_size))) {
		trampoline_free_block(&trampoline->block);
		*message = "out of memory";
		return PATCH_ENOMEM;
	}
	trampoline_close_diverts(builder, trampoline->block.address + header);
	return PATCH_OK;
}

static void trampoline_set_hooks(struct trampoline *trampoline, const struct hook *hooks)
{
	for (size_t i = 0; i < trampoline->hook_count; ++i) {
		const struct hook *hook = &hooks[i];

		trampoline->hooks[i] = (struct built_hook){
			.read = hook->code.read,
			.write = hook->code.write,
			.clobber = hook->code.clobber,
			.program_counter = (int16_t)(hook->code.program_counter - trampoline->start),
			.at = (uint8_t)(hook->address - trampoline->start),
			.when = (uint8_t)hook->when,
			.action = hook->code.action,
			.stamp = hook->code.stamp,
			.own = hook->code.own,
		};
		/* Of a divert, other members are there. */
		if (hook->code.action == ARCH_DIVERT)
			trampoline->hooks[i].original_slot = 0;
	}
}

/* ---- ways to a place -------------------------------------------------------------------------------------------- */

static patch_status trampoline_emit_stub(struct builder *builder, struct trampoline *trampoline,
					 const char **message) REQUIRES(library_lock)
{
	const struct window *window = builder->window;
	struct arena_block *stub = trampoline_stub(trampoline);
	struct arena_tried tried = { 0 };
	struct arch_code code;

	*message = NO_MEMORY;
	if (arena_alloc(STUB_SIZE, window->start, arena_reach_of(window->pad != 0 ? window->pad : window->start),
			&tried, stub) != PATCH_OK)
		return PATCH_ENOMEM;
	trampoline_emit_begin(builder, &code, stub->address, STUB_HEADER, true);
	builder->cold.hook_count = 0;
	arch_emit_row(&code, 0);
	arch_emit_stretch(&code, ARCH_COPY, 0);
	arch_emit_jmp(&code, trampoline_entry(trampoline, 0));
	arch_emit_stretch(&code, ARCH_STRETCH_END, 0);
	BUG_ON_RETURN(STUB_HEADER + code.size != STUB_SIZE, PATCH_BUG);
	if (trampoline_finish_header(builder, &code, STUB_HEADER) &&
	    staging_add(stub->address, builder->block, STUB_SIZE))
		return PATCH_OK;
	*message = "out of memory";
	trampoline_free_block(stub);
	return PATCH_ENOMEM;
}

/* Code anywhere, to which a jump goes by a stub within its reach. */
static patch_status trampoline_emit_far(struct builder *builder, struct trampoline **trampoline,
					const char **message) REQUIRES(library_lock)
{
	const char *why = trampoline_refuses_far(builder);
	patch_status status;

	if (why != NULL) {
		*message = why;
		return PATCH_ENOMEM;
	}
	if (!trampoline_make_far(trampoline)) {
		*message = "out of memory";
		return PATCH_ENOMEM;
	}
	builder->built = (*trampoline)->hooks;
	builder->lead_count = 0;
	status = trampoline_emit_block(builder, *trampoline, TRAMPOLINE_FAR, message);
	if (status == PATCH_OK && builder->window->strategy != PATCH_STRATEGY_TRAP)
		status = trampoline_emit_stub(builder, *trampoline, message);
	if (status != PATCH_OK)
		trampoline_free_code(*trampoline);
	return status;
}

static patch_status trampoline_emit_near(struct builder *builder, struct trampoline *trampoline,
					 enum trampoline_how how, const char **message) REQUIRES(library_lock)
{
	patch_status status;

	builder->lead_count = builder->window->lead_count;
	status = trampoline_emit_block(builder, trampoline, how, message);
	if (status != PATCH_ENOMEM || builder->lead_count == 0)
		return status;
	builder->lead_count = 0;
	return trampoline_emit_block(builder, trampoline, how, message);
}

/* The first way that there is memory for. What can not be far is where it was left room by stubs. */
static patch_status trampoline_emit(struct builder *builder, struct trampoline **trampoline, const char **message)
	REQUIRES(library_lock)
{
	patch_status status = trampoline_emit_near(builder, *trampoline, TRAMPOLINE_NEAR, message);
	const char *last;

	if (status == PATCH_ENOMEM)
		status = trampoline_emit_far(builder, trampoline, message);
	if (status == PATCH_ENOMEM)
		status = trampoline_emit_near(builder, *trampoline, TRAMPOLINE_ANYHOW, &last);
	return status;
}

/*
 * The code and the way there. If no pad reaches the code, it is where it reaches one: code below the site need not
 * reach pads above it, nor the other way round.
 */
static patch_status trampoline_place(struct builder *builder, struct trampoline **trampoline, struct window *window,
				     const char **message) REQUIRES(library_lock)
{
	patch_status status;

	trampoline_prepare(builder);
	status = trampoline_emit(builder, trampoline, message);
	if (status != PATCH_OK || trampoline_link_jump(*trampoline, window))
		return status;
	if (trampoline_find_pad_beyond(*trampoline, window)) {
		trampoline_free_code(*trampoline);
		if (trampoline_emit(builder, trampoline, message) == PATCH_OK &&
		    trampoline_link_jump(*trampoline, window))
			return PATCH_OK;
		pad_free(window->pad);
		window->pad = 0;
	}
	*message = "no free memory at any address that a jump at the site can reach";
	return PATCH_ENOMEM;
}

patch_status trampoline_build(struct window *window, const struct hook *hooks, size_t count, struct trampoline **out,
			      const char **message)
{
	const struct trampoline shape = {
		.start = window->start,
		.hook_count = (uint16_t)count,
		.length = window->length,
		.strategy = window->strategy,
		.count = window->count,
		.lead_count = window->lead_count,
	};
	struct trampoline *trampoline;
	struct builder *builder;
	patch_status status = PATCH_ENOMEM;

	/* No block has room for as many. */
	if (count > ARENA_ROW_END) {
		*message = "too many hooks on one group of instructions";
		return PATCH_ENOMEM;
	}
	*message = "out of memory";
	trampoline = heap_alloc(trampoline_size(&shape));
	if (trampoline == NULL)
		return PATCH_ENOMEM;
	memcpy(trampoline, &shape, sizeof(shape));
	for (unsigned int i = 0; i < window->lead_count; ++i) {
		lead_take(window->leads[i].lead);
		trampoline_leads(trampoline)[i] = window->leads[i].lead;
	}
	trampoline_set_hooks(trampoline, hooks);
	builder = scratch_take(sizeof(*builder));
	if (builder != NULL) {
		builder->window = window;
		builder->hooks = hooks;
		builder->built = trampoline->hooks;
		builder->count = count;
		status = trampoline_place(builder, &trampoline, window, message);
		scratch_give(builder, sizeof(*builder));
	}
	if (status != PATCH_OK) {
		trampoline_free(trampoline);
		return status;
	}
	*out = trampoline;
	return PATCH_OK;
}
