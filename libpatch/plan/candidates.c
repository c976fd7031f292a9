/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan/candidates.h"

#include "arch/arch.h"
#include "patch/original.h"
#include "trap/registry.h"
#include "plan/scan.h"
#include "plan/site.h"
#include "sys/maps.h"
#include "sys/text.h"

#include <string.h>

static bool is_target(uintptr_t address, const void *data)
{
	const struct candidates *fit = data;

	return (fit->request.is_start != NULL && scan_is_target(address)) || registry_is_hot(address);
}

static bool is_start(uintptr_t address, const void *data)
{
	(void)data;
	return scan_is_start(address);
}

static patch_status misfit(struct refusal *refusal, patch_status status, const char *message, uintptr_t where)
{
	refusal->message = message;
	refusal->irritant = where;
	return status;
}

/* ---- what is there ---------------------------------------------------------------------------------------------- */

static struct region *covering(const struct candidates *fit, uintptr_t address)
{
	struct region *region = region_covering(address);

	return region != fit->through ? region : NULL;
}

/* Regions that begin inside the window, ascending. */
static void find_inner(struct candidates *fit)
{
	const struct plan *plan = &fit->plan;

	fit->inner_count = 0;
	for (uintptr_t at = plan->start; at < plan->start + plan->length; ++at) {
		struct region *region = region_at(at);

		if (region != NULL && region != fit->through &&
		    (fit->inner_count == 0 || fit->inner[fit->inner_count - 1] != region))
			fit->inner[fit->inner_count++] = region;
	}
}

/* Bytes behind the window that its jump would consist of: does a patch change them, or read them for itself? */
static bool is_free_to_read(const struct candidates *fit, uintptr_t lower, uintptr_t upper)
{
	for (uintptr_t at = lower; at < upper; ++at) {
		const struct region *region = covering(fit, at);

		if (region != NULL && region->start != fit->plan.start)
			return false;
	}
	return true;
}

static bool is_same_window(const struct region *region, const struct plan *plan)
{
	return region->start == plan->start && region->length == plan->length && region->count == plan->count &&
	       memcmp(region->offsets, plan->offsets, plan->count + 1U) == 0;
}

/* Nobody is on these: their windows need not be kept, unless it is the very same. */
static void dissolve_unused(const struct plan *plan)
{
	uintptr_t end = plan->start + MAX(plan->length, ARCH_JMP_SIZE);

	for (uintptr_t at = plan->start; at < end; ++at) {
		struct region *region = region_covering(at);

		if (region != NULL && region_is_unused(region) && !is_same_window(region, plan))
			region_bury(region);
	}
}

/* Do the window's instructions begin where those of the regions that it takes in do? */
static bool agrees(const struct candidates *fit)
{
	const struct plan *plan = &fit->plan;

	for (size_t i = 0; i < fit->inner_count; ++i) {
		const struct region *region = fit->inner[i];

		for (unsigned int k = 0; k < region->count; ++k) {
			uintptr_t offset = region->start + region->offsets[k] - plan->start;
			unsigned int j = 0;

			while (j < plan->count && plan->offsets[j] != offset)
				++j;
			if (j == plan->count)
				return false;
		}
	}
	return true;
}

/* ---- the candidate ---------------------------------------------------------------------------------------------- */

/*
 * Does the candidate cut no region? *grow: not so, but a larger one of its kind may, for which request->from or
 * request->reach was set.
 */
static patch_status compare(struct candidates *fit, bool *grow, struct refusal *refusal)
{
	const struct plan *plan = &fit->plan;
	uintptr_t end = plan->start + plan->length;
	const struct region *first, *last;

	*grow = false;
	first = covering(fit, plan->start);
	if (first != NULL && first->start < plan->start) {
		/* A window that was moved back into a region begins where that one does. */
		if (plan->start == plan->site || plan->strategy == PATCH_STRATEGY_PUNNED_JUMP)
			return misfit(refusal, PATCH_ECONF, "the bytes are part of another patch's jump", first->start);
		fit->request.from = first->start;
		*grow = true;
		return PATCH_OK;
	}
	find_inner(fit);
	if (plan->strategy == PATCH_STRATEGY_PUNNED_JUMP && !is_free_to_read(fit, end, plan->start + ARCH_JMP_SIZE))
		return misfit(refusal, PATCH_ECONF, "the bytes of a jump belong to another patch", end);
	if (fit->inner_count == 0)
		return PATCH_OK;
	first = fit->inner[0];
	last = fit->inner[fit->inner_count - 1];
	if (plan->strategy == PATCH_STRATEGY_TRAP) {
		if (first == last && first->start == plan->start && last->start + last->length == end)
			return PATCH_OK;
		return misfit(refusal, PATCH_EBOUNDARY,
			      "the instruction overlaps patched ones that start at other addresses", first->start);
	}
	for (size_t i = 0; i < fit->inner_count; ++i)
		if (region_has_policy(fit->inner[i], PATCH_TRAP_POLICY_FORCE))
			return misfit(refusal, PATCH_ECONF, "the bytes belong to a patch that must be resident as a trap",
				      fit->inner[i]->start);
	if (last->start + last->length > end) {
		fit->request.reach = last->start + last->length;
		*grow = true;
		return PATCH_OK;
	}
	return agrees(fit) ? PATCH_OK :
			     misfit(refusal, PATCH_EBOUNDARY, "patched instructions around it start at other addresses",
				    plan->start);
}

/*
 * What somebody else put over an instruction, so that neither it nor what follows is what it seems (I8): an int3 in a
 * function, or a call of the page that the kernel maps for its probes on nops of five bytes (Linux 6.18,
 * arch/x86/kernel/uprobes.c). Behind a function's end an int3 is padding; so it is, of a function whose end is not known,
 * where control does not get to. An int3 that is the site itself is plan_site()'s matter.
 */
static const char *foreign(const struct candidates *fit, const struct arch_insn *insn, uintptr_t address, bool flows)
{
	uint8_t byte = fit->request.bytes[(intptr_t)(address - fit->request.site)];
	struct maps_mapping mapping;
	bool readable;

	if (byte == ARCH_INT3 && (fit->extent.upper != 0 ? address < fit->extent.upper : flows))
		return "an int3 that libpatch did not write is within the bytes of a jump";
	if (insn->kind == ARCH_CALL && insn->target % PAGE_SIZE == 0 && maps_mapping(insn->target, &mapping, &readable) &&
	    mapping.special)
		return "a uprobe is there: a call of the kernel's page for them";
	return NULL;
}

/* In the window, and in what a punned jump reads behind it. */
static patch_status check_foreign(const struct candidates *fit, struct refusal *refusal)
{
	const struct plan *plan = &fit->plan;
	uintptr_t end = plan->start + plan->length;
	bool flows = true;
	uintptr_t at = plan->start;

	if (plan->strategy == PATCH_STRATEGY_PUNNED_JUMP)
		end = plan->start + ARCH_JMP_SIZE;
	for (unsigned int i = 0; at < end; ++i) {
		intptr_t offset = (intptr_t)(at - fit->request.site);
		const struct arch_insn *insn = &plan->insns[i];
		struct arch_insn behind;
		const char *why;

		if (i >= plan->count) {
			if (!arch_decode(fit->request.bytes + offset, fit->request.size - offset, at, &behind))
				break;
			insn = &behind;
		}
		why = foreign(fit, insn, at, flows);
		if (why != NULL)
			return misfit(refusal, PATCH_ECHANGED, why, at);
		flows = !(insn->flags & ARCH_F_NOFALL) && insn->kind != ARCH_CALL && insn->kind != ARCH_CALL_IND;
		at += insn->length;
	}
	return PATCH_OK;
}

/* Planned again, longer, until it takes in whole regions. */
static patch_status fit_candidate(struct candidates *fit, struct refusal *refusal)
{
	for (;;) {
		patch_status status;
		bool grow;

		dissolve_unused(&fit->plan);
		status = compare(fit, &grow, refusal);
		if (!grow)
			return status;
		fit->request.candidate = fit->plan.candidate;
		status = plan_site(&fit->request, &fit->plan);
		if (status != PATCH_OK || fit->plan.strategy == PATCH_STRATEGY_TRAP)
			return misfit(refusal, PATCH_ENOJUMP, fit->plan.message, fit->plan.irritant);
	}
}

void candidates_reject(struct candidates *fit, patch_status status, const struct refusal *refusal)
{
	/* The first reason counts; but where a trap was the last thing to try, that is what failed. */
	if (fit->status != PATCH_OK && fit->plan.strategy != PATCH_STRATEGY_TRAP)
		return;
	fit->status = status;
	fit->refusal = *refusal;
}

/* With FORBID, the last resort: a window that runs into the next function. Is there one? */
static bool try_last_resort(struct candidates *fit)
{
	struct plan_request *request = &fit->request;

	if (request->policy != PATCH_TRAP_POLICY_FORBID || request->beyond != 0)
		return false;
	request->beyond = site_next_function_end(&fit->extent);
	request->candidate = plan_last_resort();
	return request->beyond != 0;
}

patch_status candidates_next(struct candidates *fit, struct refusal *refusal)
{
	const struct plan *plan = &fit->plan;

	while (!fit->over) {
		patch_status status = plan_site(&fit->request, &fit->plan);

		if (status != PATCH_OK) {
			candidates_reject(fit, status, &(struct refusal){ plan->message, plan->irritant });
			fit->over = status != PATCH_ENOJUMP || !try_last_resort(fit);
			continue;
		}
		status = fit_candidate(fit, refusal);
		if (status == PATCH_OK)
			status = check_foreign(fit, refusal);
		fit->over = plan->strategy == PATCH_STRATEGY_TRAP;
		fit->request.candidate = plan->candidate + 1U;
		fit->request.reach = 0;
		fit->request.from = fit->from;
		if (status == PATCH_OK) {
			fit->original = fit->request.bytes + (intptr_t)(plan->start - fit->request.site);
			return PATCH_OK;
		}
		candidates_reject(fit, status, refusal);
	}
	*refusal = fit->refusal;
	return fit->status;
}

static patch_status unreadable(uintptr_t address, struct refusal *refusal)
{
	int error = EFAULT;
	uint8_t byte;

	if (text_read(address, &byte, 1, &error) == 0 && error != EFAULT)
		return misfit(refusal, PATCH_ESYS,
			      "the code cannot be read: the kernel refuses process_vm_readv() and reading /proc/self/mem", address);
	return misfit(refusal, PATCH_EFAULT, "the address is not mapped", address);
}

patch_status candidates_begin(struct candidates *fit, const struct extent *extent, uintptr_t address, int policy, uintptr_t from,
		       const struct region *through, struct refusal *refusal)
{
	uintptr_t lower = MAX(extent->lower, extent->floor);
	size_t before = extent->upper != 0 && address > lower ? MIN(address - lower, (size_t)CANDIDATES_BEFORE) : 0;
	size_t size = original_read(address - before, fit->view, sizeof(fit->view));

	if (size <= before)
		return unreadable(address, refusal);
	fit->extent = *extent;
	fit->through = through;
	fit->from = from;
	fit->over = false;
	fit->status = PATCH_OK;
	fit->request = (struct plan_request){
		.site = address,
		.bytes = fit->view + before,
		.size = size - before,
		.before = before,
		.upper = extent->upper,
		.limit = extent->limit,
		.punnable = extent->no_rmw ? 0 : extent->mapped,
		.is_target = is_target,
		.data = fit,
		.from = from,
		.policy = policy,
		.no_calls = arch_has_shadow_stack(),
	};
	if (extent->upper != 0) {
		scan_set(extent->lower, extent->upper);
		fit->request.is_start = is_start;
	}
	return PATCH_OK;
}
