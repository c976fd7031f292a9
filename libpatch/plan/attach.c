/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Joining a region or making one, for a patch that is made. What fails half-way is undone: a patch that is refused
 * leaves the regions as they were. Writes no text: the next commit does.
 */
#include "plan/attach.h"

#include "base/scratch.h"
#include "base/thread_safety.h"
#include "arch/insn.h"
#include "arch/trap_bytes.h"
#include "plan/candidates.h"
#include "patch/hookset.h"
#include "patch/place.h"
#include "patch/original.h"
#include "plan/plan.h"
#include "sys/mem_read.h"

#include <errno.h>
#include <string.h>

static patch_status attach_refuse_without_memory(const struct attachment *attachment, struct refusal *refusal)
{
	*refusal = (struct refusal){ "out of memory", attachment->address };
	return PATCH_ENOMEM;
}

static patch_status attach_refuse_trap(const struct region *region, struct refusal *refusal)
{
	*refusal = (struct refusal){ "the bytes belong to a patch that must not be resident as a trap", region->start };
	return PATCH_ECONF;
}

/* ---- joining ---------------------------------------------------------------------------------------------------- */

/* False: out of memory. */
static bool attach_join_place(struct attachment *attachment) REQUIRES(library_lock)
{
	return attachment->when == HOOK_LEAD || place_join(region_place(attachment->address), attachment);
}

patch_status attach_join(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	struct hookset set = { 0 };
	struct trampoline *trampoline;
	patch_status status = PATCH_ENOMEM;

	refusal->message = "out of memory";
	refusal->irritant = attachment->address;
	if (attach_join_place(attachment) && hookset_add_region(&set, region) && hookset_add(&set, attachment))
		status = hookset_build(&set, region, NULL, &trampoline, refusal);
	hookset_free(&set);
	if (status != PATCH_OK) {
		place_leave(attachment);
		return status;
	}
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		attachment->branched_to |= a->branched_to;
	region_set_next(region, trampoline);
	region_append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

/* A new region for the candidate, with what the inner regions hold and the attachment. */
REQUIRES(library_lock)
static patch_status attach_establish(const struct candidates *candidates, struct attachment *attachment,
				     struct refusal *refusal) REQUIRES(library_lock)
{
	struct window window = plan_window(&candidates->plan, candidates->original);
	struct region *region = region_create(&window, candidates->extent.no_rmw);
	struct hookset set = { 0 };
	struct trampoline *trampoline = NULL;
	patch_status status = PATCH_ENOMEM;
	bool gathered;

	refusal->message = "out of memory";
	refusal->irritant = candidates->plan.start;
	if (region == NULL)
		return PATCH_ENOMEM;
	gathered = region_make_entries(region) && attach_join_place(attachment) && hookset_add(&set, attachment);
	for (size_t i = 0; i < candidates->inner_count; ++i)
		gathered = gathered && hookset_add_region(&set, candidates->inner[i]);
	if (gathered)
		status = hookset_build(&set, region, candidates->plan.insns, &trampoline, refusal);
	hookset_free(&set);
	if (status != PATCH_OK) {
		place_leave(attachment);
		region_discard(region);
		return status;
	}

	/* Nothing fails from here on. */
	attachment->branched_to = candidates->plan.candidate.level >= PLAN_LED;
	region_own_entries(region);
	for (size_t i = 0; i < candidates->inner_count; ++i)
		region_take_in(region, candidates->inner[i]);
	region_set_next(region, trampoline);
	region_append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

patch_status attach_settle_in(const struct candidates *candidates, struct attachment *attachment,
			      struct refusal *refusal)
{
	struct region *region = candidates->inner_count == 1 ? candidates->inner[0] : NULL;

	/* An unused inner region has the same window: candidates.c has buried the others. */
	if (region == NULL || !region_is_unused(region) ||
	    !region_pad_fits(region, candidates->plan.strategy, candidates->original))
		return attach_establish(candidates, attachment, refusal);
	region_set_strategy(region, candidates->plan.strategy, candidates->original);
	attachment->branched_to = candidates->plan.candidate.level >= PLAN_LED;
	return attach_join(region, attachment, refusal);
}

/* The best candidate that fits the regions around it, and for which there is memory. */
static patch_status attach_try_candidates(struct candidates *candidates, struct attachment *attachment,
					  struct refusal *refusal) REQUIRES(library_lock)
{
	uintptr_t address = attachment->address;

	for (;;) {
		patch_status status = candidates_next(candidates, refusal);

		if (status != PATCH_OK)
			return status;
		attachment->address = candidates->plan.site;
		status = attach_settle_in(candidates, attachment, refusal);
		if (status == PATCH_OK)
			return PATCH_OK;
		attachment->address = address;
		candidates_reject(candidates, status, refusal);
	}
}

/* `from`: see struct plan_request. */
static patch_status attach_establish_at(struct attachment *attachment, int policy, uintptr_t from,
					const struct extent *extent, struct refusal *refusal) REQUIRES(library_lock)
{
	struct candidates *candidates = scratch_take(sizeof(*candidates));
	patch_status status;

	if (candidates == NULL)
		return attach_refuse_without_memory(attachment, refusal);
	status = candidates_begin(candidates, extent, attachment->address, policy, from, NULL, refusal);
	if (status == PATCH_OK) {
		status = attach_try_candidates(candidates, attachment, refusal);
		candidates_end(candidates);
	}
	scratch_give(candidates, sizeof(*candidates));
	return status;
}

/* ---- bytes that a jump reads ------------------------------------------------------------------------------------ */

/*
 * The attachment's instruction is among the bytes that a punned jump reads. The region gives way, and is a trap from
 * now on; or, if it may not be one, takes the instruction in.
 */
static patch_status attach_establish_in_punned(struct region *region, struct attachment *attachment, int policy,
					       const struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	struct trampoline *trampoline = NULL;
	uintptr_t start = region->start;
	uint8_t owned = region->owned;
	patch_status status;
	bool is_new;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORBID)) {
		struct extent front;

		if (policy == PATCH_TRAP_POLICY_FORCE)
			return attach_refuse_trap(region, refusal);
		/* The jump is another function's: a window of that one, which runs on into this one. */
		if (start < extent->lower && site_examine(start, &front, refusal) == PATCH_OK)
			extent = &front;
		return attach_establish_at(attachment, PATCH_TRAP_POLICY_FORBID, start, extent, refusal);
	}
	status = hookset_build_trap(region, &trampoline, refusal);
	if (status != PATCH_OK)
		return status;
	is_new = trampoline != NULL && trampoline != region->next && !trampoline->reachable;
	region->owned = region->length;
	status = attach_establish_at(attachment, policy, 0, extent, refusal);
	if (status != PATCH_OK || region_at(start) != region) {
		/* On success the region was taken in. */
		if (status != PATCH_OK)
			region->owned = owned;
		if (is_new)
			place_free_trampoline(trampoline);
		return status;
	}
	region->strategy = PATCH_STRATEGY_TRAP;
	region->forced = true;
	if (trampoline != NULL)
		region_set_next(region, trampoline);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

REQUIRES(library_lock)
static patch_status attach_join_as(struct region *region, uint8_t strategy, struct attachment *attachment,
				   struct refusal *refusal) REQUIRES(library_lock)
{
	uint8_t before = region->strategy, owned = region->owned;
	patch_status status;

	region_set_strategy(region, strategy, NULL);
	status = attach_join(region, attachment, refusal);
	if (status != PATCH_OK) {
		region->strategy = before;
		region->owned = owned;
	}
	return status;
}

/* From jump to trap, on the hooked instructions of the window. */
static patch_status attach_join_by_trap(struct region *region, struct attachment *attachment, struct refusal *refusal)
	REQUIRES(library_lock)
{
	patch_status status;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORBID))
		return attach_refuse_trap(region, refusal);
	status = attach_join_as(region, PATCH_STRATEGY_TRAP, attachment, refusal);
	if (status == PATCH_OK)
		region->forced = true;
	return status;
}

/*
 * From trap to jump. A window of several instructions was planned for a jump, and stays; another one is planned again.
 */
REQUIRES(library_lock)
static patch_status attach_join_by_jump(struct region *region, struct attachment *attachment,
					const struct extent *extent, struct refusal *refusal) REQUIRES(library_lock)
{
	patch_status status;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORCE)) {
		refusal->message = "the bytes belong to a patch that must be resident as a trap";
		refusal->irritant = region->start;
		return PATCH_ECONF;
	}
	if (region->count == 1 || region->length < ARCH_JMP_SIZE)
		return attach_establish_at(attachment, attachment->patch->policy, 0, extent, refusal);
	status = attach_join_as(region, PATCH_STRATEGY_CONSTRAINED_JUMP, attachment, refusal);
	if (status == PATCH_OK)
		region->forced = false;
	return status;
}

/* An instruction that a region has already: the window stays as a rule, but policies may ask for another strategy. */
REQUIRES(library_lock)
static patch_status attach_join_region(struct region *region, struct attachment *attachment,
				       const struct extent *extent, struct refusal *refusal) REQUIRES(library_lock)
{
	int policy = attachment->patch->policy;
	bool trap = region->strategy == PATCH_STRATEGY_TRAP;
	bool forced = region->forced && !region_has_policy(region, PATCH_TRAP_POLICY_FORCE);
	uintptr_t address = attachment->address;

	if (policy == PATCH_TRAP_POLICY_FORCE && !trap)
		return attach_join_by_trap(region, attachment, refusal);
	if (policy == PATCH_TRAP_POLICY_FORBID && trap)
		return attach_join_by_jump(region, attachment, extent, refusal);
	/* The patch that forced it to be a trap is gone. */
	if (policy == PATCH_TRAP_POLICY_ALLOW && trap && forced &&
	    attach_join_by_jump(region, attachment, extent, refusal) == PATCH_OK)
		return PATCH_OK;
	attachment->address = address;
	return attach_join(region, attachment, refusal);
}

/* What cannot be read counts as the original, unless nothing is mapped. */
static bool attach_original_is_there(const struct region *region)
{
	uint8_t bytes[WINDOW_LENGTH_MAX];
	int error;

	if (mem_read(region->start, bytes, region->length, &error) != region->length)
		return error != EFAULT;
	return memcmp(bytes, region->original, region->length) == 0;
}

static patch_status attach_refuse_inside(const struct region *region, uintptr_t site, struct refusal *refusal)
	REQUIRES(library_lock)
{
	uint8_t bytes[WINDOW_LENGTH_MAX];
	int error;

	refusal->irritant = site;
	if (mem_read(region->start, bytes, region->length, &error) == region->length &&
	    region_has_other_code(region, bytes)) {
		refusal->message = "other code has come to where patches are: unmake those, and commit, first";
		return PATCH_ECHANGED;
	}
	refusal->message = "the address is inside an instruction that is patched";
	return PATCH_EBOUNDARY;
}

patch_status attach_patch(struct patch *patch, unsigned int index, enum hook_when when, uintptr_t address,
			  const struct extent *extent, struct refusal *refusal)
{
	struct attachment *attachment = &patch->attachments[index];
	uint8_t bytes[ARCH_ENDBR_SIZE];
	uintptr_t site = address; /* behind an endbr64 */
	struct region *region;
	patch_status status;
	int error;

	LOCK_ASSERT_HELD();
	region = region_at(address);
	if (region == NULL && mem_read(address, bytes, ARCH_ENDBR_SIZE, &error) == ARCH_ENDBR_SIZE &&
	    arch_is_endbr(bytes)) {
		site = address + ARCH_ENDBR_SIZE;
		region = region_at(site);
	}
	attachment->patch = patch;
	attachment->when = (uint8_t)when;
	attachment->address = site;
	if (region != NULL && !region_is_unused(region))
		return attach_join_region(region, attachment, extent, refusal);
	/* The program may have loaded other code here since the region was left. */
	if (region != NULL && !attach_original_is_there(region))
		region_bury(region);
	attachment->address = address;
	region = region_covering(site);
	if (region != NULL && region_is_unused(region))
		region = NULL;
	if (region != NULL && site - region->start < region->length)
		return attach_refuse_inside(region, site, refusal);

	status = region != NULL ? attach_establish_in_punned(region, attachment, patch->policy, extent, refusal) :
				  attach_establish_at(attachment, patch->policy, 0, extent, refusal);
	if (status == PATCH_OK)
		attachment->region->forced = patch->policy == PATCH_TRAP_POLICY_FORCE;
	return status;
}

/* ---- given windows ---------------------------------------------------------------------------------------------- */

/* The candidate whose window is [start, end), if that is whole instructions, and not patched. */
static patch_status attach_fill_window(struct candidates *candidates, uintptr_t address, uintptr_t start, uintptr_t end,
				       const struct extent *extent) REQUIRES(library_lock)
{
	struct plan *plan = &candidates->plan;

	*plan = (struct plan){ .site = address, .start = start, .strategy = PATCH_STRATEGY_JUMP };
	candidates->extent = *extent;
	candidates->inner_count = 0;
	candidates->original = candidates->view;
	if (end - start > WINDOW_LENGTH_MAX ||
	    original_read(start, candidates->view, WINDOW_LENGTH_MAX) < end - start)
		return PATCH_EFAULT;
	while (start + plan->length < end) {
		struct arch_insn *insn = &plan->insns[plan->count];

		if (region_at(start + plan->length) != NULL || plan->count == WINDOW_INSNS_MAX ||
		    !arch_decode(candidates->view + plan->length, end - start - plan->length, start + plan->length,
				 insn) ||
		    (insn->flags & ARCH_F_REFUSED))
			return PATCH_ECONF;
		plan->length += insn->length;
		plan->offsets[++plan->count] = plan->length;
	}
	return PATCH_OK;
}

patch_status attach_in_window(struct patch *patch, uintptr_t address, uintptr_t start, uintptr_t end,
			      const struct extent *extent, struct refusal *refusal)
{
	struct attachment *attachment = &patch->attachments[0];
	struct candidates *candidates = scratch_take(sizeof(*candidates));
	patch_status status;

	attachment->patch = patch;
	attachment->when = HOOK_SYSCALL;
	attachment->address = address;
	if (candidates == NULL)
		return attach_refuse_without_memory(attachment, refusal);
	*refusal = (struct refusal){ "the window is not what it was", start };
	status = attach_fill_window(candidates, address, start, end, extent);
	if (status == PATCH_OK)
		status = attach_settle_in(candidates, attachment, refusal);
	scratch_give(candidates, sizeof(*candidates));
	return status;
}
