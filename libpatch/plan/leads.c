/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leads as the planner sees them. A lead is only worth it where nothing traps instead; it must not take part in
 * anything else's being a trap, or changing whole. Nothing here builds code.
 */
#include "plan/leads.h"

#include "arch/insn.h"
#include "base/scratch.h"
#include "base/thread_safety.h"
#include "trap/registry.h"

/* To an address that more branches lead to, not all are led. */
#define LEADS_MAX 8

const struct scan_branch *leads_next(const struct scan_function *function, uintptr_t address, uintptr_t lower,
				     uintptr_t upper, size_t *index)
{
	while (*index < function->count) {
		const struct scan_branch *branch = &function->branches[(*index)++];
		uintptr_t at = scan_branch_address(function, branch);

		if (branch->kind != ARCH_RET && branch->kind != ARCH_JMP_IND &&
		    scan_branch_target(function, branch) == address && (at < lower || at >= upper))
			return branch;
	}
	return NULL;
}

bool leads_may_join(const struct region *region)
{
	return region->strategy != PATCH_STRATEGY_TRAP && !region_is_plain(region);
}

/* A return to a boundary would trap. */
static bool leads_returns_to(const struct plan *plan)
{
	for (unsigned int i = 0; i + 1 < plan->count; ++i)
		if (plan->insns[i].kind == ARCH_CALL || plan->insns[i].kind == ARCH_CALL_IND)
			return true;
	return false;
}

/* Control may be led to any instruction by a jump table, to those behind a branch most of all. */
static bool leads_has_tables(const struct scan_function *function)
{
	for (size_t i = 0; i < function->count; ++i)
		if (function->branches[i].kind == ARCH_JMP_IND)
			return true;
	return false;
}

/* Is nothing but padding behind the branch? */
static bool leads_ends_with_branch(const struct plan *plan)
{
	unsigned int last = plan->count - 1U;

	while (last > 0 && (plan->insns[last].flags & ARCH_F_FILLER))
		--last;
	return plan->start + plan->offsets[last] <= plan->site;
}

static bool leads_will_do(const struct candidates *candidates) REQUIRES(library_lock)
{
	const struct scan_function *function = scan_get();

	if (function == NULL || (!leads_ends_with_branch(&candidates->plan) && leads_has_tables(function)))
		return false;
	for (size_t i = 0; i < candidates->inner_count; ++i)
		if (!leads_may_join(candidates->inner[i]))
			return false;
	return !leads_returns_to(&candidates->plan);
}

/* Do known branches lead there from the window only? */
static bool leads_is_inside(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data)
	NO_THREAD_SAFETY_ANALYSIS
{
	const struct scan_function *function = scan_get();
	size_t index = 0;

	(void)data;
	return function != NULL && !registry_is_hot(address) &&
	       leads_next(function, address, lower, upper, &index) == NULL;
}

patch_status leads_begin(struct candidates *candidates, const struct extent *extent, uintptr_t address,
			 struct refusal *refusal)
{
	patch_status status =
		candidates_begin(candidates, extent, address, PATCH_TRAP_POLICY_ALLOW, 0, NULL, refusal);

	if (status == PATCH_OK)
		candidates_lead(candidates, leads_is_inside);
	return status;
}

patch_status leads_next_candidate(struct candidates *candidates, struct refusal *refusal)
{
	do {
		patch_status status = candidates_next(candidates, refusal);

		if (status != PATCH_OK)
			return status;
		if (candidates->plan.candidate.level > PLAN_LED)
			return PATCH_ENOJUMP;
	} while (!leads_will_do(candidates));
	return PATCH_OK;
}

/* Is there a window for the branch that leaves [lower, upper) alone? */
static bool leads_fits(const struct candidates *candidates, uintptr_t branch, uintptr_t lower, uintptr_t upper)
	REQUIRES(library_lock)
{
	const struct region *region = region_at(branch);
	struct candidates *own;
	struct refusal refusal;
	bool found = false;

	if (region != NULL && !region_is_unused(region))
		return leads_may_join(region);
	own = scratch_take(sizeof(*own));
	if (own == NULL)
		return false;
	if (leads_begin(own, &candidates->extent, branch, &refusal) == PATCH_OK) {
		while (!found && leads_next_candidate(own, &refusal) == PATCH_OK)
			found = own->plan.start >= upper ||
				own->plan.start + MAX(own->plan.length, ARCH_JMP_SIZE) <= lower;
	}
	scratch_give(own, sizeof(*own));
	return found;
}

bool leads_can_lead(const struct candidates *candidates, uintptr_t address, uintptr_t lower, uintptr_t upper)
{
	const struct scan_function *function = scan_get();
	const struct scan_branch *branch;
	size_t index = 0, count = 0;

	/* Control may come there otherwise. */
	if (function == NULL || registry_is_hot(address))
		return false;
	while ((branch = leads_next(function, address, lower, upper, &index)) != NULL)
		if (++count > LEADS_MAX || !arch_is_direct_jump(branch->kind) ||
		    !leads_fits(candidates, scan_branch_address(function, branch), lower, upper))
			return false;
	return true;
}
