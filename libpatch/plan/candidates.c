/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planner's candidates against what is patched already, and against what debuggers and the kernel have put there. A
 * candidate grows until it takes in whole regions, or is rejected with a reason.
 */
#include "plan/candidates.h"

#include "base/thread_safety.h"
#include "arch/cpu.h"
#include "arch/insn.h"
#include "arch/trap_bytes.h"
#include "patch/original.h"
#include "sys/mem_read.h"
#include "trap/registry.h"
#include "plan/leads.h"
#include "plan/scan.h"
#include "plan/site.h"
#include "sys/gaps.h"
#include "sys/maps.h"

#include <errno.h>
#include <string.h>

REQUIRES(library_lock)
static bool candidates_is_target(uintptr_t address, const void *data)
{
	const struct candidates *candidates = data;

	return (candidates->request.is_start != NULL && scan_is_target(address)) || registry_is_hot(address);
}

REQUIRES(library_lock)
static bool candidates_is_start(uintptr_t address, const void *data)
{
	(void)data;
	return scan_is_start(address);
}

REQUIRES(library_lock)
static bool candidates_can_lead(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data)
{
	return leads_can_lead(data, address, lower, upper);
}

static patch_status candidates_refuse(struct refusal *refusal, patch_status status, const char *message,
				      uintptr_t where)
{
	refusal->message = message;
	refusal->irritant = where;
	return status;
}

/* ---- what is there ---------------------------------------------------------------------------------------------- */

static struct region *candidates_covering(const struct candidates *candidates, uintptr_t address)
	REQUIRES(library_lock)
{
	struct region *region = region_covering(address);

	return region != candidates->through ? region : NULL;
}

/* Regions that begin inside the window, ascending. */
REQUIRES(library_lock)
static void candidates_find_inner(struct candidates *candidates)
{
	const struct plan *plan = &candidates->plan;

	candidates->inner_count = 0;
	for (uintptr_t at = plan->start; at < plan->start + plan->length; ++at) {
		struct region *region = region_at(at);

		if (region != NULL && region != candidates->through &&
		    (candidates->inner_count == 0 || candidates->inner[candidates->inner_count - 1] != region))
			candidates->inner[candidates->inner_count++] = region;
	}
}

/* Bytes behind the window that its jump would consist of: does a patch change them, or read them for itself? */
static bool candidates_is_free_to_read(const struct candidates *candidates, uintptr_t lower, uintptr_t upper)
	REQUIRES(library_lock)
{
	for (uintptr_t at = lower; at < upper; ++at) {
		const struct region *region = candidates_covering(candidates, at);

		if (region != NULL && region->start != candidates->plan.start)
			return false;
	}
	return true;
}

static bool candidates_is_same_window(const struct region *region, const struct plan *plan)
{
	return region->start == plan->start && region->length == plan->length && region->count == plan->count &&
	       memcmp(region->offsets, plan->offsets, plan->count + 1U) == 0;
}

/* Bury unused regions in the way of the plan, unless one has the very same window. */
REQUIRES(library_lock)
static void candidates_dissolve_unused(const struct plan *plan)
{
	uintptr_t end = plan->start + MAX(plan->length, ARCH_JMP_SIZE);

	for (uintptr_t at = plan->start; at < end; ++at) {
		struct region *region = region_covering(at);

		if (region != NULL && region_is_unused(region) && !candidates_is_same_window(region, plan))
			region_bury(region);
	}
}

/* Do instructions of the window begin wherever instructions of the regions begin that it takes in? */
static bool candidates_agree(const struct candidates *candidates)
{
	const struct plan *plan = &candidates->plan;

	for (size_t i = 0; i < candidates->inner_count; ++i) {
		const struct region *region = candidates->inner[i];

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
 * PATCH_OK: the candidate cuts no region. *grow: it cuts one, but a larger candidate of its kind may not; request->from
 * or request->reach says how large.
 */
static patch_status candidates_compare(struct candidates *candidates, bool *grow, struct refusal *refusal)
	REQUIRES(library_lock)
{
	const struct plan *plan = &candidates->plan;
	uintptr_t end = plan->start + plan->length;
	const struct region *first, *last;

	*grow = false;
	first = candidates_covering(candidates, plan->start);
	if (first != NULL && first->start < plan->start) {
		/* A window that was moved back into a region begins where that one does. */
		if (plan->start == plan->site || plan->strategy == PATCH_STRATEGY_PUNNED_JUMP)
			return candidates_refuse(refusal, PATCH_ECONF, "the bytes are part of another patch's jump",
						 first->start);
		candidates->request.from = first->start;
		*grow = true;
		return PATCH_OK;
	}
	candidates_find_inner(candidates);
	if (plan->strategy == PATCH_STRATEGY_PUNNED_JUMP &&
	    !candidates_is_free_to_read(candidates, end, plan->start + ARCH_JMP_SIZE))
		return candidates_refuse(refusal, PATCH_ECONF, "the bytes of a jump belong to another patch", end);
	if (candidates->inner_count == 0)
		return PATCH_OK;
	first = candidates->inner[0];
	last = candidates->inner[candidates->inner_count - 1];
	if (plan->strategy == PATCH_STRATEGY_TRAP) {
		if (first == last && first->start == plan->start && last->start + last->length == end)
			return PATCH_OK;
		return candidates_refuse(refusal, PATCH_EBOUNDARY,
					 "the instruction overlaps patched ones that start at other addresses",
					 first->start);
	}
	for (size_t i = 0; i < candidates->inner_count; ++i)
		if (region_has_policy(candidates->inner[i], PATCH_TRAP_POLICY_FORCE))
			return candidates_refuse(refusal, PATCH_ECONF,
						 "the bytes belong to a patch that must be resident as a trap",
						 candidates->inner[i]->start);
	if (last->start + last->length > end) {
		candidates->request.reach = last->start + last->length;
		*grow = true;
		return PATCH_OK;
	}
	return candidates_agree(candidates) ?
		       PATCH_OK :
		       candidates_refuse(refusal, PATCH_EBOUNDARY,
					 "patched instructions around it start at other addresses", plan->start);
}

/* Behind the function's end, up to where the next one begins; when that is not known, where control does not get to. */
static bool candidates_is_padding(const struct extent *extent, uintptr_t address, bool flows)
{
	return extent->upper != 0 ? address >= extent->upper && address < extent->limit : !flows;
}

/*
 * Why the instruction is not the program's (I8), or NULL. A debugger puts an int3 there; the kernel puts a call of a
 * page that it maps for its probes on nops of five bytes (Linux 6.18, arch/x86/kernel/uprobes.c). Then neither the
 * instruction nor what follows is what it seems. plan_site() looks at the site itself.
 */
static const char *candidates_foreign(const struct candidates *candidates, const struct arch_insn *insn,
				      uintptr_t address, bool flows)
{
	uint8_t byte = candidates->request.bytes[(intptr_t)(address - candidates->request.site)];
	struct maps_mapping mapping;
	bool readable;

	if (byte == ARCH_INT3 && !candidates_is_padding(&candidates->extent, address, flows))
		return "an int3 that libpatch did not write is within the bytes of a jump";
	if (insn->kind == ARCH_CALL && insn->target % PAGE_SIZE == 0 &&
	    maps_mapping(insn->target, &mapping, &readable) && mapping.special)
		return "a uprobe is there: a call of the kernel's page for them";
	return NULL;
}

/* In the window, and in what a punned jump reads behind it. */
static patch_status candidates_check_foreign(const struct candidates *candidates, struct refusal *refusal)
{
	const struct plan *plan = &candidates->plan;
	uintptr_t end = plan->start + plan->length;
	bool flows = true;
	uintptr_t at = plan->start;

	if (plan->strategy == PATCH_STRATEGY_PUNNED_JUMP)
		end = plan->start + ARCH_JMP_SIZE;
	for (unsigned int i = 0; at < end; ++i) {
		intptr_t offset = (intptr_t)(at - candidates->request.site);
		const struct arch_insn *insn = &plan->insns[i];
		struct arch_insn behind;
		const char *why;

		if (i >= plan->count) {
			if (!arch_decode(candidates->request.bytes + offset, candidates->request.size - offset, at,
					 &behind))
				break;
			insn = &behind;
		}
		why = candidates_foreign(candidates, insn, at, flows);
		if (why != NULL)
			return candidates_refuse(refusal, PATCH_ECHANGED, why, at);
		flows = !(insn->flags & ARCH_F_NOFALL) && insn->kind != ARCH_CALL && insn->kind != ARCH_CALL_IND;
		at += insn->length;
	}
	return PATCH_OK;
}

/* What plan_site() knows of the site's own function: does the next one branch into what the window takes of it? */
REQUIRES(library_lock)
static patch_status candidates_check_next(const struct candidates *candidates, struct refusal *refusal)
{
	const struct plan *plan = &candidates->plan;
	const struct extent *extent = &candidates->extent;
	patch_status status = PATCH_OK;

	if (candidates->request.beyond == 0 || plan->start + plan->length <= extent->limit)
		return PATCH_OK;
	scan_set(extent->limit, candidates->request.beyond);
	for (unsigned int i = 0; i < plan->count; ++i)
		for (uintptr_t at = plan->start + plan->offsets[i] + 1; at < plan->start + plan->offsets[i + 1]; ++at)
			if (at > extent->limit && scan_is_target(at))
				status = candidates_refuse(refusal, PATCH_ENOJUMP,
							   "the next function branches into the middle of an "
							   "instruction within the bytes of a jump", at);
	scan_set(extent->lower, extent->upper);
	return status;
}

/* Plan the candidate again, longer each time, until it takes in whole regions. */
REQUIRES(library_lock)
static patch_status candidates_grow(struct candidates *candidates, struct refusal *refusal)
{
	for (;;) {
		patch_status status;
		bool grow;

		candidates_dissolve_unused(&candidates->plan);
		status = candidates_compare(candidates, &grow, refusal);
		if (!grow)
			return status;
		candidates->request.candidate = candidates->plan.candidate;
		status = plan_site(&candidates->request, &candidates->plan);
		if (status != PATCH_OK || candidates->plan.strategy == PATCH_STRATEGY_TRAP)
			return candidates_refuse(refusal, PATCH_ENOJUMP, candidates->plan.message,
						 candidates->plan.irritant);
	}
}

/* Nobody changed what the file has. */
static bool candidates_is_own_int3(uintptr_t address) REQUIRES(library_lock)
{
	uint8_t byte;

	return maps_file_byte(address, &byte) && byte == ARCH_INT3;
}

void candidates_reject(struct candidates *candidates, patch_status status, const struct refusal *refusal)
{
	static const char own[] = "an int3 of the program's own, whose trap tells where it is";

	candidates->without_memory |= status == PATCH_ENOMEM;
	/* The first reason counts; but where a trap was the last thing to try, that is what failed. */
	if (candidates->status != PATCH_OK && candidates->plan.strategy != PATCH_STRATEGY_TRAP)
		return;
	candidates->status = status;
	candidates->refusal = *refusal;
	if (status == PATCH_ECHANGED && candidates_is_own_int3(refusal->irritant)) {
		candidates->status = PATCH_ERELOCATE;
		candidates->refusal.message = own;
	}
}

/*
 * Once more from the first one on, with memory that is left for the program break as a rule: rather that than a jump
 * that traps, or none.
 */
REQUIRES(library_lock)
static bool candidates_try_break_room(struct candidates *candidates)
{
	if (!candidates->without_memory || candidates->in_break_room)
		return false;
	candidates->in_break_room = true;
	gaps_open_break_room(true);
	candidates->request.candidate = (struct plan_rung){ 0 };
	return true;
}

void candidates_end(struct candidates *candidates)
{
	if (candidates->in_break_room)
		gaps_open_break_room(false);
}

/* With FORBID, the last resort: a window that runs into the next function. Is there one? */
REQUIRES(library_lock)
static bool candidates_try_last_resort(struct candidates *candidates)
{
	struct plan_request *request = &candidates->request;

	if (request->policy != PATCH_TRAP_POLICY_FORBID || request->beyond != 0)
		return false;
	request->beyond = site_next_function_end(&candidates->extent);
	request->candidate = (struct plan_rung){ .level = PLAN_ENTERED };
	return request->beyond != 0;
}

void candidates_lead(struct candidates *candidates,
		     bool (*can_lead)(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data))
{
	candidates->request.can_lead = candidates->request.is_start != NULL ? can_lead : NULL;
}

patch_status candidates_next(struct candidates *candidates, struct refusal *refusal)
{
	const struct plan *plan = &candidates->plan;

	while (!candidates->over) {
		patch_status status = plan_site(&candidates->request, &candidates->plan);

		if (status != PATCH_OK) {
			candidates_reject(candidates, status, &(struct refusal){ plan->message, plan->irritant });
			candidates->over = status != PATCH_ENOJUMP || (!candidates_try_break_room(candidates) &&
								       !candidates_try_last_resort(candidates));
			continue;
		}
		if (plan->strategy == PATCH_STRATEGY_TRAP && candidates_try_break_room(candidates))
			continue;
		/* Before it grows: where it cannot, a trap is the next one. */
		candidates->over = plan->strategy == PATCH_STRATEGY_TRAP;
		status = candidates_grow(candidates, refusal);
		if (status == PATCH_OK)
			status = candidates_check_foreign(candidates, refusal);
		if (status == PATCH_OK)
			status = candidates_check_next(candidates, refusal);
		candidates->request.candidate = plan_next(plan->candidate);
		candidates->request.reach = 0;
		candidates->request.from = candidates->from;
		if (status == PATCH_OK) {
			candidates->original =
				candidates->request.bytes + (intptr_t)(plan->start - candidates->request.site);
			return PATCH_OK;
		}
		candidates_reject(candidates, status, refusal);
	}
	*refusal = candidates->refusal;
	return candidates->status;
}

static patch_status candidates_unreadable(uintptr_t address, struct refusal *refusal)
{
	int error = EFAULT;
	uint8_t byte;

	if (mem_read(address, &byte, 1, &error) == 1)
		return candidates_refuse(refusal, PATCH_EFAULT, "the code is not readable", address);
	if (error != EFAULT)
		return candidates_refuse(refusal, PATCH_ESYS,
					 "the code is mapped, but cannot be read: the kernel refuses "
					 "process_vm_readv(), or its page is not readable, and reading /proc/self/mem",
					 address);
	return candidates_refuse(refusal, PATCH_EFAULT, "the address is not mapped", address);
}

patch_status candidates_begin(struct candidates *candidates, const struct extent *extent, uintptr_t address, int policy,
			      uintptr_t from, const struct region *through, struct refusal *refusal)
{
	uintptr_t lower = MAX(extent->lower, extent->floor);
	size_t before = extent->upper != 0 && address > lower ? MIN(address - lower, (size_t)CANDIDATES_BEFORE) : 0;
	size_t size = original_read(address - before, candidates->view, sizeof(candidates->view));

	if (size <= before)
		return candidates_unreadable(address, refusal);
	candidates->extent = *extent;
	candidates->through = through;
	candidates->from = from;
	candidates->over = false;
	candidates->without_memory = false;
	candidates->in_break_room = false;
	candidates->status = PATCH_OK;
	candidates->request = (struct plan_request){
		.site = address,
		.bytes = candidates->view + before,
		.size = size - before,
		.before = before,
		.upper = extent->upper,
		.limit = extent->limit,
		.punnable = extent->no_rmw ? 0 : extent->mapped,
		.is_target = candidates_is_target,
		.data = candidates,
		.from = from,
		.policy = policy,
		.no_calls = arch_has_shadow_stack(),
	};
	if (extent->upper != 0) {
		scan_set(extent->lower, extent->upper);
		candidates->request.is_start = candidates_is_start;
		candidates->request.can_lead = candidates_can_lead;
	}
	return PATCH_OK;
}
