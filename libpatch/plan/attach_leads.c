/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Branches to where a patch traps are displaced: each lead is an attachment of the patch's. What fails leaves the
 * traps, and is nobody's error.
 */
#include "plan/attach.h"

#include "base/heap.h"
#include "base/scratch.h"
#include "plan/candidates.h"
#include "plan/leads.h"
#include "plan/scan.h"
#include "trap/registry.h"

static patch_status attach_lead_by_candidates(struct candidates *candidates, struct attachment *lead,
					      const struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	patch_status status = leads_begin(candidates, extent, lead->address, refusal);

	while (status == PATCH_OK) {
		status = leads_next_candidate(candidates, refusal);
		if (status == PATCH_OK && attach_settle_in(candidates, lead, refusal) == PATCH_OK)
			return PATCH_OK;
	}
	return status;
}

REQUIRES(library_lock)
static patch_status attach_lead_at(struct attachment *lead, const struct extent *extent, struct refusal *refusal)
{
	struct region *region = region_at(lead->address);
	struct candidates *candidates;
	patch_status status;

	if (region != NULL && !region_is_unused(region))
		return leads_may_join(region) ? attach_join(region, lead, refusal) : PATCH_ECONF;
	region = region_covering(lead->address);
	if (region != NULL && !region_is_unused(region))
		return PATCH_ECONF;
	candidates = scratch_take(sizeof(*candidates));
	if (candidates == NULL)
		return PATCH_ENOMEM;
	status = attach_lead_by_candidates(candidates, lead, extent, refusal);
	scratch_give(candidates, sizeof(*candidates));
	return status;
}

static bool attach_is_led(const struct patch *patch, uintptr_t branch)
{
	const struct attachment *lead = patch->leads;

	while (lead != NULL && lead->address != branch)
		lead = lead->next_lead;
	return lead != NULL;
}

/* Lead the branch to where traps at its target go. What fails leaves the traps. */
REQUIRES(library_lock)
static void attach_lead(struct patch *patch, uintptr_t branch, const struct extent *extent)
{
	struct attachment *lead = attach_is_led(patch, branch) ? NULL : heap_alloc(sizeof(*lead));
	struct refusal refusal;

	if (lead == NULL)
		return;
	lead->patch = patch;
	lead->when = HOOK_LEAD;
	lead->address = branch;
	if (attach_lead_at(lead, extent, &refusal) != PATCH_OK) {
		heap_free(lead, sizeof(*lead));
		return;
	}
	lead->next_lead = patch->leads;
	patch->leads = lead;
}

/* To an address that more branches lead to, the others go by the text. */
#define LEADS_MOST 32

REQUIRES(library_lock)
static void attach_lead_to(struct patch *patch, struct registry_entry *entry, const struct extent *extent)
{
	const struct scan_function *function = scan_is_target(entry->address) ? scan_get() : NULL;
	size_t next = 0;

	if (function == NULL || !registry_make_lead(entry))
		return;
	for (unsigned int n = 0; n < LEADS_MOST; ++n) {
		/* It may have been taken in. */
		const struct region *region = entry->region;
		const struct scan_branch *branch =
			leads_next(function, entry->address, region->start, region->start + region->length, &next);

		if (branch == NULL)
			return;
		if (arch_is_direct_jump(branch->kind))
			attach_lead(patch, scan_branch_address(function, branch), extent);
	}
}

/* Does a branch that leads there meet a trap byte? */
static bool attach_traps_at(const struct region *region, unsigned int index) REQUIRES(library_lock)
{
	return region->strategy == PATCH_STRATEGY_TRAP ? region_is_hooked(region, region->offsets[index]) : index > 0;
}

REQUIRES(library_lock)
static void attach_lead_to_region(struct patch *patch, const struct region *region, const struct extent *extent)
{
	struct registry_entry *entries[WINDOW_INSNS_MAX];
	unsigned int count = 0;

	for (unsigned int i = 0; i < region->count; ++i)
		if (attach_traps_at(region, i))
			entries[count++] = region->entries[i];
	scan_set(extent->lower, extent->upper);
	for (unsigned int i = 0; i < count; ++i)
		attach_lead_to(patch, entries[i], extent);
}

void attach_leads(struct patch *patch)
{
	for (size_t i = 0; i < patch->count && patch->policy != PATCH_TRAP_POLICY_FORCE; ++i) {
		const struct attachment *attachment = &patch->attachments[i];
		struct refusal refusal;
		struct extent extent;

		if (attachment->branched_to && site_examine(attachment->address, &extent, &refusal) == PATCH_OK &&
		    extent.upper != 0)
			attach_lead_to_region(patch, attachment->region, &extent);
	}
}
