/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for a trampoline: a block within reach of what its code refers to, and slots within reach of the code.
 */
#include "code/lead.h"
#include "code/slots.h"
#include "code/staging.h"
#include "code/trampoline_builder.h"

void trampoline_free_block(struct arena_block *block)
{
	if (block->size == 0)
		return;
	staging_drop(block->address);
	arena_free(block);
	block->size = 0;
}

struct arena_reach trampoline_reach(const struct builder *builder)
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

bool trampoline_bring_slots(const struct builder *builder, uintptr_t address, bool far, bool *moved)
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

static patch_status trampoline_settle_within(const struct builder *builder, size_t size, struct arena_reach reach,
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

	return trampoline_settle_within(builder, size, below, TRAMPOLINE_FAR, block, moved) == PATCH_OK ?
		       PATCH_OK :
		       trampoline_settle_within(builder, size, above, TRAMPOLINE_FAR, block, moved);
}

patch_status trampoline_settle(const struct builder *builder, size_t size, enum trampoline_how how,
			       struct arena_block *block, bool *moved)
{
	if (how == TRAMPOLINE_FAR)
		return trampoline_settle_far(builder, size, block, moved);
	return trampoline_settle_within(builder, size, trampoline_reach(builder), how, block, moved);
}
