/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "attach.h"

#include "hookset.h"
#include "plan.h"
#include "scan.h"
#include "site.h"
#include "text.h"

#include <string.h>

/* ---- joining ---------------------------------------------------------------------------------------------------- */

/* One more on an existing region, its window as it is. */
static patch_status join(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	struct hookset set = { 0 };
	struct trampoline *trampoline;
	patch_status status = PATCH_ENOMEM;

	refusal->message = "out of memory";
	refusal->irritant = attachment->address;
	if (hookset_add_region(&set, region) && hookset_add(&set, attachment))
		status = hookset_build(&set, region, &trampoline, refusal);
	hookset_free(&set);
	if (status != PATCH_OK)
		return status;
	region_set_next(region, trampoline);
	region_append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

/* Regions that begin inside the window, ascending. */
#define INNER_MAX PLAN_INSNS_MAX

static size_t find_inner(const struct plan *plan, struct region **inner)
{
	size_t count = 0;

	for (uintptr_t at = plan->start; at < plan->start + plan->length; ++at) {
		struct region *region = region_at(at);

		if (region != NULL && (count == 0 || inner[count - 1] != region))
			inner[count++] = region;
	}
	return count;
}

/* A new region for the plan, with what the inner regions hold and the attachment. */
static patch_status establish(const struct plan *plan, const uint8_t *original, struct attachment *attachment,
			      struct region **inner, size_t inner_count, struct refusal *refusal)
{
	struct region *region = region_create(plan, attachment->patch->exact, original);
	struct hookset set = { 0 };
	struct trampoline *trampoline = NULL;
	patch_status status = PATCH_ENOMEM;
	bool gathered;

	refusal->message = "out of memory";
	refusal->irritant = plan->start;
	if (region == NULL)
		return PATCH_ENOMEM;
	gathered = region_make_entries(region) && hookset_add(&set, attachment);
	for (size_t i = 0; i < inner_count; ++i)
		gathered = gathered && hookset_add_region(&set, inner[i]);
	if (gathered)
		status = hookset_build(&set, region, &trampoline, refusal);
	hookset_free(&set);
	if (status != PATCH_OK) {
		region_discard(region);
		return status;
	}

	/* Nothing fails from here on. */
	region_own_entries(region);
	region_take_in(region, inner, inner_count);
	for (size_t i = 0; i < inner_count; ++i)
		region_bury(inner[i]);
	region_set_next(region, trampoline);
	region_append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

/* ---- planning against what is there ----------------------------------------------------------------------------- */

static bool is_target(uintptr_t address, const void *data)
{
	(void)data;
	return scan_is_target(address);
}

static bool is_start(uintptr_t address, const void *data)
{
	(void)data;
	return scan_is_start(address);
}

/* Bytes a plan may look at: the longest window on either side, one instruction more, and an endbr64. */
#define VIEW_BEFORE PLAN_LENGTH_MAX

struct view {
	size_t before; /* bytes in front of the site */
	size_t size;   /* bytes read, those included */
	uint8_t bytes[VIEW_BEFORE + PLAN_LENGTH_MAX + INSN_MAX + 4];
};

#define CONFLICT "the bytes belong to a patch that must be resident as a trap"

/* Not on the stack, which may be a small sigaltstack. The library lock is held. */
static struct view view;
static struct plan plan;
static struct region *inner[INNER_MAX * 2];
static size_t inner_count;

/* Bytes behind the window that its jump would consist of: does a patch change them, or read them for itself? */
static bool is_free_to_read(uintptr_t lower, uintptr_t upper)
{
	for (uintptr_t at = lower; at < upper; ++at) {
		const struct region *region = region_covering(at);

		if (region != NULL && !region_is_unused(region))
			return false;
	}
	return true;
}

static bool is_same_window(const struct region *region)
{
	return region->start == plan.start && region->length == plan.length && region->count == plan.count &&
	       memcmp(region->offsets, plan.offsets, plan.count + 1U) == 0;
}

/* Nobody is on these: their windows need not be kept, unless it is the very same. */
static void dissolve_unused(void)
{
	uintptr_t end = plan.start + MAX(plan.length, ARCH_JMP_SIZE);

	for (uintptr_t at = plan.start; at < end; ++at) {
		struct region *region = region_covering(at);

		if (region != NULL && region_is_unused(region) && !is_same_window(region))
			region_bury(region);
	}
}

/* Do the window's instructions begin where those of the regions that it takes in do? */
static bool agrees(void)
{
	for (size_t i = 0; i < inner_count; ++i) {
		for (unsigned int k = 0; k < inner[i]->count; ++k) {
			uintptr_t offset = inner[i]->start + inner[i]->offsets[k] - plan.start;
			unsigned int j = 0;

			while (j < plan.count && plan.offsets[j] != offset)
				++j;
			if (j == plan.count)
				return false;
		}
	}
	return true;
}

static patch_status misfit(struct refusal *refusal, patch_status status, const char *message, uintptr_t where)
{
	refusal->message = message;
	refusal->irritant = where;
	return status;
}

/* Make the candidate cut no region that is there: planned again, longer, until it takes in whole ones. */
static patch_status fit(struct plan_request *request, struct refusal *refusal)
{
	for (;;) {
		const struct region *first;
		patch_status status;
		uintptr_t end;

		dissolve_unused();
		first = region_covering(plan.start);
		if (first != NULL && first->start < plan.start) {
			/* A window that was moved back into a region begins where that one does. */
			if (plan.start == plan.site || plan.strategy == PATCH_STRATEGY_PUNNED_JUMP)
				return misfit(refusal, PATCH_ECONF, "the bytes are part of another patch's jump", first->start);
			request->from = first->start;
		} else {
			inner_count = find_inner(&plan, inner);
			end = plan.start + plan.length;
			if (plan.strategy == PATCH_STRATEGY_PUNNED_JUMP && !is_free_to_read(end, plan.start + ARCH_JMP_SIZE))
				return misfit(refusal, PATCH_ECONF, "the bytes of a jump belong to another patch", end);
			if (inner_count == 0)
				return PATCH_OK;
			end = inner[inner_count - 1]->start + inner[inner_count - 1]->length;
			if (plan.strategy == PATCH_STRATEGY_TRAP) {
				if (inner_count == 1 && inner[0]->start == plan.start && end == plan.start + plan.length)
					return PATCH_OK;
				return misfit(refusal, PATCH_EBOUNDARY,
					      "the instruction overlaps patched ones that start at other addresses",
					      inner[0]->start);
			}
			for (size_t i = 0; i < inner_count; ++i)
				if (region_has_policy(inner[i], PATCH_TRAP_POLICY_FORCE))
					return misfit(refusal, PATCH_ECONF, CONFLICT, inner[i]->start);
			if (end <= plan.start + plan.length)
				return agrees() ? PATCH_OK :
						  misfit(refusal, PATCH_EBOUNDARY,
							 "patched instructions around it start at other addresses",
							 plan.start);
			request->reach = end;
		}
		request->candidate = plan.candidate;
		status = plan_site(request, &plan);
		if (status != PATCH_OK || plan.strategy == PATCH_STRATEGY_TRAP)
			return misfit(refusal, PATCH_ENOJUMP, plan.message, plan.irritant);
	}
}

/* The region for the plan: the one that was there before, or a new one. */
static patch_status settle_in(const uint8_t *original, struct attachment *attachment, struct refusal *refusal)
{
	if (inner_count == 1 && region_is_unused(inner[0]) && is_same_window(inner[0])) {
		region_set_strategy(inner[0], plan.strategy, original);
		return join(inner[0], attachment, refusal);
	}
	return establish(&plan, original, attachment, inner, inner_count, refusal);
}

static patch_status read_view(const struct attachment *attachment, struct refusal *refusal)
{
	const struct patch *patch = attachment->patch;
	uintptr_t address = attachment->address;

	view.before = patch->upper != 0 && address > patch->lower ? MIN(address - patch->lower, (size_t)VIEW_BEFORE) : 0;
	view.size = region_original(address - view.before, view.bytes, sizeof(view.bytes));
	if (view.size > view.before)
		return PATCH_OK;
	return misfit(refusal, PATCH_EFAULT, "the address is not mapped", address);
}

/* The best candidate that fits what is there, and for which there is memory. `from`: see struct plan_request. */
static patch_status establish_at(struct attachment *attachment, int policy, uintptr_t from, struct refusal *refusal)
{
	const struct patch *patch = attachment->patch;
	uintptr_t address = attachment->address;
	struct plan_request request = {
		.site = address,
		.upper = patch->upper,
		.limit = patch->limit,
		.punnable = patch->exact ? 0 : patch->mapped,
		.from = from,
		.policy = policy,
		.no_calls = site_has_shadow_stack(),
	};
	patch_status first_status = PATCH_OK;
	patch_status status = read_view(attachment, refusal);

	if (status != PATCH_OK)
		return status;
	request.bytes = view.bytes + view.before;
	request.size = view.size - view.before;
	request.before = view.before;
	if (patch->upper != 0 && scan_function(patch->lower, patch->upper, region_original_at)) {
		request.is_target = is_target;
		request.is_start = is_start;
	}
	for (;;) {
		struct refusal why;

		status = plan_site(&request, &plan);
		why = (struct refusal){ plan.message, plan.irritant };
		if (status == PATCH_ENOJUMP && request.beyond == 0) {
			/* The last resort: a window that runs into the next function. */
			request.beyond = site_next_function_end(patch);
			request.candidate = plan_last_resort();
			if (first_status == PATCH_OK)
				*refusal = why;
			first_status = first_status != PATCH_OK ? first_status : status;
			if (request.beyond != 0 && request.policy == PATCH_TRAP_POLICY_FORBID)
				continue;
		}
		if (status != PATCH_OK) {
			if (first_status != PATCH_OK)
				return first_status;
			*refusal = why;
			return status;
		}
		status = fit(&request, &why);
		if (status == PATCH_OK) {
			attachment->address = plan.site;
			status = settle_in(request.bytes + (intptr_t)(plan.start - address), attachment, &why);
		}
		if (status == PATCH_OK)
			return status;
		if (first_status == PATCH_OK)
			*refusal = why;
		first_status = first_status != PATCH_OK ? first_status : status;
		if (plan.strategy == PATCH_STRATEGY_TRAP)
			return first_status;
		/* It does not fit, or there is no memory for it: the next one. */
		attachment->address = address;
		request.candidate = plan.candidate + 1U;
		request.reach = 0;
		request.from = from;
	}
}

/* ---- bytes that a jump reads ------------------------------------------------------------------------------------ */

/* A region's trampoline for when it is a trap. */
static patch_status build_trap(struct region *region, struct trampoline **out, struct refusal *refusal)
{
	struct hookset set = { 0 };
	uint8_t strategy = region->strategy;
	patch_status status = PATCH_ENOMEM;

	*refusal = (struct refusal){ "out of memory", region->start };
	region->strategy = PATCH_STRATEGY_TRAP;
	if (hookset_add_region(&set, region))
		status = set.count == 0 ? PATCH_OK : hookset_build(&set, region, out, refusal);
	hookset_free(&set);
	region->strategy = strategy;
	return status;
}

/*
 * The attachment's instruction is among the bytes that a punned jump reads. The region gives way, and is a trap from now on;
 * or, if it may not be one, takes the instruction in.
 */
static patch_status establish_in_punned(struct region *region, struct attachment *attachment, int policy,
					struct refusal *refusal)
{
	struct trampoline *trampoline = NULL;
	uintptr_t start = region->start;
	uint8_t owned = region->owned;
	patch_status status;
	bool is_new;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORBID))
		return establish_at(attachment, PATCH_TRAP_POLICY_FORBID, region->start, refusal);
	status = build_trap(region, &trampoline, refusal);
	if (status != PATCH_OK)
		return status;
	is_new = trampoline != NULL && trampoline != region->next && !trampoline->reachable;
	region->owned = region->length;
	status = establish_at(attachment, policy, 0, refusal);
	if (status != PATCH_OK || region_at(start) != region) {
		/* Else it was taken in. */
		if (status != PATCH_OK)
			region->owned = owned;
		if (is_new)
			trampoline_free(trampoline);
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

static patch_status join_as(struct region *region, uint8_t strategy, struct attachment *attachment,
			    struct refusal *refusal)
{
	uint8_t before = region->strategy;
	patch_status status;

	region->strategy = strategy;
	status = join(region, attachment, refusal);
	if (status != PATCH_OK)
		region->strategy = before;
	return status;
}

/* From jump to trap. Trap bytes on every instruction of the window: the first phase of a jump, for good. */
static patch_status join_by_trap(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	patch_status status;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORBID)) {
		refusal->message = "the bytes belong to a patch that must not be resident as a trap";
		refusal->irritant = region->start;
		return PATCH_ECONF;
	}
	status = join_as(region, PATCH_STRATEGY_TRAP, attachment, refusal);
	if (status == PATCH_OK)
		region->forced = true;
	return status;
}

/* From trap to jump: a window of several instructions was planned for one, others are planned again. */
static patch_status join_by_jump(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	patch_status status;

	if (region_has_policy(region, PATCH_TRAP_POLICY_FORCE)) {
		refusal->message = CONFLICT;
		refusal->irritant = region->start;
		return PATCH_ECONF;
	}
	if (region->count == 1 || region->length < ARCH_JMP_SIZE)
		return establish_at(attachment, attachment->patch->policy, 0, refusal);
	status = join_as(region, PATCH_STRATEGY_CONSTRAINED_JUMP, attachment, refusal);
	if (status == PATCH_OK)
		region->forced = false;
	return status;
}

/* An instruction that a region has already: its window stays, but policies may ask for another strategy. */
static patch_status join_region(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	int policy = attachment->patch->policy;
	bool trap = region->strategy == PATCH_STRATEGY_TRAP;
	bool forced = region->forced && !region_has_policy(region, PATCH_TRAP_POLICY_FORCE);
	uintptr_t address = attachment->address;

	if (policy == PATCH_TRAP_POLICY_FORCE && !trap)
		return join_by_trap(region, attachment, refusal);
	if (policy == PATCH_TRAP_POLICY_FORBID && trap)
		return join_by_jump(region, attachment, refusal);
	/* Nobody forces it any more. */
	if (policy == PATCH_TRAP_POLICY_ALLOW && trap && forced &&
	    join_by_jump(region, attachment, refusal) == PATCH_OK)
		return PATCH_OK;
	attachment->address = address;
	return join(region, attachment, refusal);
}

patch_status attach(struct patch *patch, enum role role, uintptr_t address, struct refusal *refusal)
{
	struct attachment *attachment = &patch->attachments[role];
	static uint8_t bytes[PLAN_LENGTH_MAX];
	struct region *region;
	struct arch_insn insn;
	patch_status status;
	int error;

	attachment->patch = patch;
	attachment->role = role;
	attachment->address = address;
	region = region_at(address);
	if (region == NULL && text_read(address, bytes, INSN_MAX, &error) >= 4 && arch_decode(bytes, 4, address, &insn) &&
	    (insn.flags & ARCH_F_ENDBR)) {
		region = region_at(address + insn.length);
		if (region != NULL)
			attachment->address = address + insn.length;
	}
	if (region != NULL && !region_is_unused(region))
		return join_region(region, attachment, refusal);
	/* The program may have loaded other code here since. */
	if (region != NULL && (text_read(region->start, bytes, region->length, &error) != region->length ||
			       memcmp(bytes, region->original, region->length) != 0))
		region_bury(region);
	attachment->address = address;
	region = region_covering(address);
	if (region != NULL && region_is_unused(region))
		region = NULL;
	if (region != NULL && address - region->start < region->length) {
		refusal->message = "the address is inside an instruction that is patched";
		refusal->irritant = address;
		return PATCH_EBOUNDARY;
	}

	status = region != NULL ? establish_in_punned(region, attachment, patch->policy, refusal) :
				  establish_at(attachment, patch->policy, 0, refusal);
	if (status == PATCH_OK)
		attachment->region->forced = patch->policy == PATCH_TRAP_POLICY_FORCE;
	return status;
}
