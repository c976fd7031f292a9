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
	gathered = hookset_add(&set, attachment);
	for (size_t i = 0; i < inner_count; ++i)
		gathered = gathered && hookset_add_region(&set, inner[i]);
	if (gathered)
		status = hookset_build(&set, region, &trampoline, refusal);
	hookset_free(&set);
	if (status == PATCH_OK && !region_make_entries(region)) {
		refusal->message = "out of memory";
		status = PATCH_ENOMEM;
		trampoline_free(trampoline);
	}
	if (status != PATCH_OK) {
		/* Gates made now belong to patches of the regions that stay. */
		if (inner_count > 0)
			region_move_gates(region, inner[0]);
		region_discard(region);
		return status;
	}

	/* Nothing fails from here on. */
	region_own_entries(region);
	region_take_in(region, inner, inner_count);
	for (size_t i = 0; i < inner_count; ++i)
		region_destroy(inner[i]);
	region->next = trampoline;
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

/* A window at the site and the regions it takes in: planned again, longer, until it cuts none. */
static patch_status plan_window(const struct patch *patch, int policy, uintptr_t address, const struct view *view,
				struct plan *plan, struct region **inner, size_t *inner_count, struct refusal *refusal)
{
	struct plan_request request = {
		.site = address,
		.bytes = view->bytes + view->before,
		.size = view->size - view->before,
		.before = view->before,
		.upper = patch->upper,
		.limit = patch->limit,
		.policy = policy,
		.no_calls = site_has_shadow_stack(),
	};

	if (patch->upper != 0 && scan_function(patch->lower, patch->upper, region_original_at)) {
		request.is_target = is_target;
		request.is_start = is_start;
	}
	for (;;) {
		patch_status status = plan_site(&request, plan);
		const struct region *first;
		uintptr_t end;

		refusal->message = plan->message;
		refusal->irritant = plan->irritant;
		if (status != PATCH_OK)
			return status;
		/* A window that was moved back into a region begins where that one does. */
		first = region_covering(plan->start);
		if (first != NULL && first->start < plan->start) {
			request.from = first->start;
			continue;
		}
		*inner_count = find_inner(plan, inner);
		if (*inner_count == 0)
			return PATCH_OK;
		end = inner[*inner_count - 1]->start + inner[*inner_count - 1]->length;
		if (plan->strategy == PATCH_STRATEGY_TRAP) {
			if (*inner_count == 1 && inner[0]->start == plan->start && end == plan->start + plan->length)
				return PATCH_OK;
			refusal->message = "the instruction overlaps patched ones that start at other addresses";
			refusal->irritant = inner[0]->start;
			return PATCH_EBOUNDARY;
		}
		for (size_t i = 0; i < *inner_count; ++i) {
			if (!region_has_policy(inner[i], PATCH_TRAP_POLICY_FORCE))
				continue;
			refusal->message = CONFLICT;
			refusal->irritant = inner[i]->start;
			return PATCH_ECONF;
		}
		if (end <= plan->start + plan->length)
			return PATCH_OK;
		request.reach = end;
	}
}

/* Do the window's instructions begin where those of the regions that it takes in do? */
static bool agrees(const struct plan *plan, struct region *const *inner, size_t count)
{
	for (size_t i = 0; i < count; ++i) {
		for (unsigned int k = 0; k < inner[i]->count; ++k) {
			uintptr_t offset = inner[i]->start + inner[i]->offsets[k] - plan->start;
			unsigned int j = 0;

			while (j < plan->count && plan->offsets[j] != offset)
				++j;
			if (j == plan->count)
				return false;
		}
	}
	return true;
}


static patch_status establish_at(struct attachment *attachment, int policy, struct refusal *refusal)
{
	/* Not on the stack, which may be a small sigaltstack. The library lock is held. */
	static struct view view;
	static struct region *inner[INNER_MAX * 2];
	static struct plan plan;
	struct patch *patch = attachment->patch;
	uintptr_t address = attachment->address;
	size_t inner_count = 0;
	patch_status status;

	view.before = patch->upper != 0 && address > patch->lower ? MIN(address - patch->lower, (size_t)VIEW_BEFORE) : 0;
	view.size = region_original(address - view.before, view.bytes, sizeof(view.bytes));
	if (view.size <= view.before) {
		refusal->message = "the address is not mapped";
		refusal->irritant = attachment->address;
		return PATCH_EFAULT;
	}
	status = plan_window(patch, policy, address, &view, &plan, inner, &inner_count, refusal);
	if (status != PATCH_OK)
		return status;
	if (!agrees(&plan, inner, inner_count)) {
		refusal->message = "patched instructions around it start at other addresses";
		refusal->irritant = plan.start;
		return PATCH_EBOUNDARY;
	}
	attachment->address = plan.site;
	return establish(&plan, view.bytes + view.before + (intptr_t)(plan.start - address), attachment, inner, inner_count,
			 refusal);
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
	if (region->count == 1)
		return establish_at(attachment, attachment->patch->policy, refusal);
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
	/* The program may have loaded other code here since. */
	if (region != NULL && region_is_unused(region) &&
	    (text_read(region->start, bytes, region->length, &error) != region->length ||
	     memcmp(bytes, region->original, region->length) != 0)) {
		region_dissolve(region);
		region = NULL;
		attachment->address = address;
	}
	if (region != NULL)
		return join_region(region, attachment, refusal);
	if (region_covering(address) != NULL) {
		refusal->message = "the address is inside an instruction that is patched";
		refusal->irritant = address;
		return PATCH_EBOUNDARY;
	}

	status = establish_at(attachment, patch->policy, refusal);
	/* A jump that finds no memory, or would have to displace a forced trap, can still be a trap. */
	if ((status == PATCH_ENOMEM || status == PATCH_ECONF) && patch->policy == PATCH_TRAP_POLICY_ALLOW) {
		attachment->address = address;
		status = establish_at(attachment, PATCH_TRAP_POLICY_FORCE, refusal);
	}
	if (status == PATCH_OK)
		attachment->region->forced = patch->policy == PATCH_TRAP_POLICY_FORCE;
	return status;
}
