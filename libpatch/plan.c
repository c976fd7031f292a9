/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

static patch_status refuse(struct plan *plan, patch_status status, const char *message, uintptr_t where)
{
	plan->message = message;
	plan->irritant = where;
	return status;
}

/* How far in front of a site a window may begin: a jump's length and an instruction. */
#define BACKWARDS_MAX (ARCH_JMP_SIZE + INSN_MAX)

#define SHADOW_STACK "a call cannot be displaced while the thread has a user shadow stack"

static bool is_barred_call(const struct plan_request *request, const struct arch_insn *insn)
{
	return request->no_calls && (insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND);
}

static bool is_target(const struct plan_request *request, uintptr_t address)
{
	return request->is_target != NULL && request->is_target(address, request->data);
}

/*
 * Why the window can not grow by this instruction, or NULL. Behind the function's end only padding may be taken: bytes
 * that control never reaches and that no other function owns.
 */
static const char *obstacle(const struct plan_request *request, const struct arch_insn *insn, uintptr_t address)
{
	if (address + insn->length > request->limit)
		return "the function ends within the bytes of a jump, and another begins";
	if (request->upper != 0 && address >= request->upper && !(insn->flags & ARCH_F_PADDING))
		return "the function ends within the bytes of a jump";
	if (insn->flags & ARCH_F_REFUSED)
		return insn->why;
	if (is_barred_call(request, insn))
		return SHADOW_STACK;
	for (unsigned int i = 1; i < insn->length; ++i)
		if (is_target(request, address + i))
			return "the function branches into the middle of an instruction within the bytes of a jump";
	return NULL;
}

/* Extend the window from one instruction to a jump's length, and to `reach`. NULL or why not. */
static const char *extend(const struct plan_request *request, struct plan *plan, uintptr_t *where)
{
	const uint8_t *bytes = request->bytes + (plan->start - request->site);
	size_t size = request->size - (plan->start - request->site);

	while (plan->length < ARCH_JMP_SIZE || plan->start + plan->length < request->reach) {
		uintptr_t address = plan->start + plan->length;
		struct arch_insn insn;
		const char *why;

		*where = address;
		if (!arch_decode(bytes + plan->length, size - plan->length, address, &insn))
			return "the bytes behind the instruction do not decode";
		why = obstacle(request, &insn, address);
		if (why != NULL)
			return why;
		if (plan->count == PLAN_INSNS_MAX || plan->length + insn.length > PLAN_LENGTH_MAX)
			return "joining the patches around it would displace too much at once";
		plan->length += insn.length;
		plan->offsets[++plan->count] = plan->length;
	}
	return NULL;
}

/* A branch to a boundary traps at every turn: worth a trap at the head instead, where the policy leaves the choice. */
static bool has_inner_target(const struct plan_request *request, const struct plan *plan, uintptr_t *where)
{
	for (unsigned int i = 1; i < plan->count; ++i) {
		*where = plan->start + plan->offsets[i];
		if (is_target(request, *where))
			return true;
	}
	return false;
}

/* Does control go on behind it by itself, or only by a return, which would trap on the boundary it returns to? */
static bool flows_on(const struct arch_insn *insn)
{
	return !(insn->flags & ARCH_F_NOFALL) && insn->kind != ARCH_CALL && insn->kind != ARCH_CALL_IND;
}

/*
 * A window that begins at `start`, in front of the site, and ends with the site's instruction. Control must flow from its
 * start to the site, or the jump would not be met; a branch to the site would trap, which is for FORBID to accept.
 */
static bool begins_at(const struct plan_request *request, uintptr_t start, uintptr_t end, struct plan *plan)
{
	struct plan window = { .site = plan->site, .start = start };
	uintptr_t at = start;

	while (at < end) {
		struct arch_insn insn;

		if (window.count == PLAN_INSNS_MAX ||
		    !arch_decode(request->bytes + (at - request->site), end - at, at, &insn) ||
		    obstacle(request, &insn, at) != NULL || (insn.flags & ARCH_F_ENDBR) ||
		    (at < plan->site && !flows_on(&insn)))
			return false;
		at += insn.length;
		window.length += insn.length;
		window.offsets[++window.count] = window.length;
		/* The site's own instruction is the last one. */
		if (at > plan->site && at != end)
			return false;
	}
	for (unsigned int i = 1; i < window.count; ++i)
		if (request->policy == PATCH_TRAP_POLICY_ALLOW && is_target(request, start + window.offsets[i]))
			return false;
	*plan = window;
	return true;
}

/* No room behind the site: begin in front of it. `end` is the site's instruction's. */
static bool widen_backwards(const struct plan_request *request, uintptr_t end, struct plan *plan)
{
	uintptr_t lowest = plan->site - MIN(request->before, (size_t)BACKWARDS_MAX);

	if (request->is_start == NULL)
		return false;
	if (request->from != 0)
		return request->from >= request->site - request->before && begins_at(request, request->from, end, plan);
	for (uintptr_t start = plan->site; start-- > lowest;)
		if (end - start >= ARCH_JMP_SIZE && request->is_start(start, request->data) &&
		    begins_at(request, start, end, plan))
			return true;
	return false;
}

patch_status plan_site(const struct plan_request *request, struct plan *plan)
{
	struct arch_insn insn;
	uintptr_t where = request->site;
	const char *why;

	*plan = (struct plan){ .site = request->site, .start = request->site };
	if (!arch_decode(request->bytes, request->size, plan->start, &insn))
		return refuse(plan, PATCH_EDISASM, "the bytes at the address are no valid instruction", plan->start);
	if (insn.flags & ARCH_F_ENDBR) {
		/* Kept in place for indirect branches; the hook sits right behind it. */
		plan->start += insn.length;
		plan->site = plan->start;
		if (!arch_decode(request->bytes + insn.length, request->size - insn.length, plan->start, &insn))
			return refuse(plan, PATCH_EDISASM, "the bytes behind endbr64 are no valid instruction",
				      plan->start);
		if (request->upper != 0 && plan->start >= request->upper)
			return refuse(plan, PATCH_EDISASM, "the function ends behind endbr64", plan->start);
	}
	if (insn.flags & ARCH_F_REFUSED)
		return refuse(plan, PATCH_ERELOCATE, insn.why, plan->start);
	if (is_barred_call(request, &insn))
		return refuse(plan, PATCH_ENOTSUP, SHADOW_STACK, plan->start);
	if (request->bytes[plan->start - request->site] == ARCH_INT3)
		return refuse(plan, PATCH_ECHANGED, "an int3 that libpatch did not write is there already", plan->start);
	plan->length = insn.length;
	plan->count = 1;
	plan->offsets[1] = insn.length;

	if (request->policy == PATCH_TRAP_POLICY_FORCE) {
		plan->strategy = PATCH_STRATEGY_TRAP;
		return PATCH_OK;
	}
	for (unsigned int i = 1; i < insn.length; ++i) {
		if (!is_target(request, plan->start + i))
			continue;
		why = "the function branches into the middle of the instruction";
		where = plan->start + i;
		goto no_jump;
	}
	why = extend(request, plan, &where);
	if (why == NULL && request->policy == PATCH_TRAP_POLICY_ALLOW && has_inner_target(request, plan, &where))
		why = "the function branches to an instruction within the bytes of a jump";
	if (why == NULL) {
		plan->strategy = plan->count == 1 ? PATCH_STRATEGY_JUMP : PATCH_STRATEGY_CONSTRAINED_JUMP;
		return PATCH_OK;
	}
	if (widen_backwards(request, plan->site + insn.length, plan)) {
		plan->strategy = PATCH_STRATEGY_CONSTRAINED_JUMP;
		return PATCH_OK;
	}

no_jump:
	if (request->policy == PATCH_TRAP_POLICY_FORBID)
		return refuse(plan, PATCH_ENOJUMP, why, where);
	plan->length = insn.length;
	plan->count = 1;
	plan->offsets[1] = insn.length;
	plan->strategy = PATCH_STRATEGY_TRAP;
	plan->message = why;
	plan->irritant = where;
	return PATCH_OK;
}

unsigned int plan_boundaries(const uint8_t *offsets, unsigned int count)
{
	unsigned int fixed = 0;

	for (unsigned int i = 1; i < count && offsets[i] < ARCH_JMP_SIZE; ++i)
		fixed |= 1U << (offsets[i] - 1);
	return fixed;
}
