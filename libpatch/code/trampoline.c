/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Builds trampolines: objects, and the ways to a place for their code, of which the first is taken that there is memory
 * for. What is in live text is not looked at, nor written.
 */
#include "code/trampoline.h"

#include "base/bug.h"
#include "base/heap.h"
#include "base/scratch.h"
#include "code/lead.h"
#include "code/pad.h"
#include "code/slots.h"
#include "code/trampoline_builder.h"

#include <string.h>

static size_t trampoline_size(const struct trampoline *trampoline)
{
	return sizeof(*trampoline) + trampoline->hook_count * sizeof(struct built_hook) +
	       trampoline->lead_count * sizeof(struct lead *) + (trampoline->far ? sizeof(struct arena_block) : 0) +
	       trampoline->count * sizeof(uint16_t);
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
