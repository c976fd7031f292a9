/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions that are planned again because control is led to one of their boundaries time and again. The program did not
 * ask for this: what fails leaves the patch as it was, and must not become the caller's error.
 */
#include "commit/replan.h"

#include "arch/trap_bytes.h"
#include "plan/candidates.h"
#include "patch/unmapped.h"
#include "base/heap.h"
#include "base/scratch.h"
#include "base/thread_safety.h"
#include "patch/hookset.h"
#include "patch/place.h"
#include "patch/region.h"
#include "trap/registry.h"
#include "trap/owned_signals.h"
#include "plan/site.h"

#include <libpatch/patch.h>

struct replan {
	struct replan *next;
	struct region *old;
	struct region *new; /* owns no entries yet */
	struct trampoline *trampoline;
	uint8_t strategy; /* of the old one, and what it owned */
	uint8_t owned;
	bool forced;
};

static struct replan *replans;

/* The address of all patches on the region; 0 when they are at different ones, one is released, or one leads. */
static uintptr_t replan_hooked_address(const struct region *region)
{
	const struct attachment *first = region->attachments;

	for (const struct attachment *a = first; a != NULL; a = a->next)
		if (a->address != first->address || patch_is_released(a->patch) || a->when == HOOK_LEAD)
			return 0;
	return first != NULL ? first->address : 0;
}

static bool replan_is_worth_it(const struct registry_entry *entry)
{
	const struct region *region = entry->region;

	return region != NULL && region->installed && !region->queued && region->strategy != PATCH_STRATEGY_TRAP &&
	       entry != region->entries[0] && replan_hooked_address(region) != 0;
}

/* Make the new region and its trampoline. False: neither was made. */
static bool replan_build(struct replan *replan, const struct candidates *candidates, struct refusal *refusal)
	REQUIRES(library_lock)
{
	struct window window = plan_window(&candidates->plan, candidates->original);
	struct region *region = region_create(&window, replan->old->no_rmw);
	struct hookset set = { 0 };
	bool built;

	if (region == NULL)
		return false;
	built = region_make_entries(region) && hookset_add_region(&set, replan->old) &&
		hookset_build(&set, region, candidates->plan.insns, &replan->trampoline, refusal) == PATCH_OK;
	hookset_free(&set);
	if (!built)
		region_discard(region);
	replan->new = region;
	return built;
}

/* Has a region that another replan has made bytes of the candidate, or does it read them (I11)? */
static bool replan_is_taken(const struct plan *plan)
{
	uintptr_t end = plan->start + MAX(plan->length, ARCH_JMP_SIZE);

	for (const struct replan *other = replans; other != NULL; other = other->next) {
		const struct region *region = other->new;

		if (plan->start < region->start + region->owned && region->start < end)
			return true;
	}
	return false;
}

/* The best candidate whose boundaries are not known to be led to, the reported one included. */
static bool replan_try_candidates(struct replan *replan, struct candidates *candidates) REQUIRES(library_lock)
{
	const struct patch *patch = replan->old->attachments->patch;
	struct refusal refusal;
	struct extent extent;

	if (site_examine(patch->located, &extent, &refusal) != PATCH_OK ||
	    candidates_begin(candidates, &extent, replan_hooked_address(replan->old), patch->policy, 0, replan->old,
			     &refusal) != PATCH_OK)
		return false;
	candidates_lead(candidates, NULL);
	while (candidates_next(candidates, &refusal) == PATCH_OK &&
	       candidates->plan.candidate.level < PLAN_LED) {
		/* An unused region with the same window: buried, it is what region_create() finds. */
		if (candidates->inner_count == 1 && region_is_unused(candidates->inner[0]))
			region_bury(candidates->inner[--candidates->inner_count]);
		if (candidates->inner_count == 0 && !replan_is_taken(&candidates->plan) &&
		    replan_build(replan, candidates, &refusal))
			return true;
	}
	return false;
}

static bool replan_find_place(struct replan *replan) REQUIRES(library_lock)
{
	struct candidates *candidates = scratch_take(sizeof(*candidates));
	bool found = candidates != NULL && replan_try_candidates(replan, candidates);

	scratch_give(candidates, sizeof(*candidates));
	return found;
}

/*
 * The new region's trampoline is not going to be used. A reachable one is the window's, from an earlier life, and stays
 * (I7).
 */
static void replan_free_built(struct replan *replan) REQUIRES(library_lock)
{
	if (!replan->trampoline->reachable)
		place_free_trampoline(replan->trampoline);
}

REQUIRES(library_lock)
static bool replan_begin_at(struct registry_entry *entry)
{
	struct replan *replan = heap_alloc(sizeof(*replan));
	struct trampoline *trap;
	struct refusal refusal;

	if (replan == NULL)
		return false;
	replan->old = entry->region;
	registry_set_hot(entry);
	if (!replan_find_place(replan)) {
		heap_free(replan, sizeof(*replan));
		return false;
	}
	if (hookset_build_trap(replan->old, &trap, &refusal) != PATCH_OK) {
		replan_free_built(replan);
		region_discard(replan->new);
		heap_free(replan, sizeof(*replan));
		return false;
	}
	replan->strategy = replan->old->strategy;
	replan->owned = replan->old->owned;
	replan->forced = replan->old->forced;
	replan->old->strategy = PATCH_STRATEGY_TRAP;
	replan->old->owned = replan->old->length;
	replan->old->forced = true;
	region_set_next(replan->old, trap);
	region_queue(replan->old);
	replan->next = replans;
	replans = replan;
	return true;
}

bool replan_is_due(void)
{
	return registry_any_reported();
}

bool replan_begin(void)
{
	struct registry_entry *entry;
	bool any = false;

	while ((entry = registry_take_reported()) != NULL)
		if (replan_is_worth_it(entry) && replan_begin_at(entry))
			any = true;
	return any;
}

void replan_go_on(void)
{
	while (replans != NULL) {
		struct replan *replan = replans;
		struct region *new = replan->new;

		replans = replan->next;
		if (replan->old->gone) {
			replan_free_built(replan);
			unmapped_abandon(new);
		} else if (replan->old->queued) {
			/* The commit failed for it. It becomes what it was: not every patch may be a trap. */
			replan->old->strategy = replan->strategy;
			replan->old->owned = replan->owned;
			replan->old->forced = replan->forced;
			region_set_next(replan->old, replan->old->current);
			replan_free_built(replan);
			region_discard(new);
		} else {
			region_own_entries(new);
			region_take_in(new, replan->old);
			region_set_next(new, replan->trampoline);
			region_queue(new);
		}
		heap_free(replan, sizeof(*replan));
	}
}
