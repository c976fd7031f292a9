/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planner: candidates for a window around a site, in order, and why each does not do. Pure: it must not look at
 * live memory, nor know what is patched.
 */
#include "plan/plan.h"

#include "arch/trap_bytes.h"

#include <libpatch/patch.h>
#include <string.h>

static patch_status plan_refuse(struct plan *plan, patch_status status, const char *message, uintptr_t where)
{
	plan->message = message;
	plan->irritant = where;
	return status;
}

#define TOO_MUCH "joining the patches around it would displace too much at once"
#define SHADOW_STACK "a call cannot be displaced while the thread has a user shadow stack"

static bool plan_is_call(const struct arch_insn *insn)
{
	return insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND;
}

static bool plan_is_target(const struct plan_request *request, uintptr_t address)
{
	return request->is_target != NULL && request->is_target(address, request->data);
}

/* Where the function branches into the middle of the instruction at the address, or 0. */
static uintptr_t plan_target_inside(const struct plan_request *request, uintptr_t address, const struct arch_insn *insn)
{
	for (unsigned int i = 1; i < insn->length; ++i)
		if (plan_is_target(request, address + i))
			return address + i;
	return 0;
}

/* ---- candidates ------------------------------------------------------------------------------------------------- */

/* How far in front of a site a window may begin: a jump's length and an instruction. */
#define BACKWARDS_MAX (ARCH_JMP_SIZE + INSN_MAX)
/* Of one shape at one level: more than there can be. */
#define VARIANTS 32

/* The first one of the next shape. */
static struct plan_rung plan_next_shape(struct plan_rung rung)
{
	rung.variant = 0;
	if (++rung.shape == PLAN_SHAPES) {
		rung.shape = 0;
		++rung.level;
	}
	return rung;
}

struct plan_rung plan_next(struct plan_rung rung)
{
	if (++rung.variant == VARIANTS)
		return plan_next_shape(rung);
	return rung;
}

/*
 * Why the window can not grow by this instruction, or NULL. Behind the function's end only padding may be taken: bytes
 * that control never reaches and that no other function owns.
 */
static const char *plan_obstacle(const struct plan_request *request, enum plan_level level,
				 const struct arch_insn *insn, uintptr_t address)
{
	uintptr_t end = address + insn->length;

	if (end > request->limit && (level < PLAN_ENTERED || address < request->limit || end > request->beyond))
		return "the function ends within the bytes of a jump, and another begins";
	if (request->upper != 0 && address >= request->upper && address < request->limit &&
	    !(insn->flags & ARCH_F_FILLER))
		return "the function ends within the bytes of a jump";
	if (insn->flags & ARCH_F_REFUSED)
		return insn->why;
	if (request->no_calls && plan_is_call(insn))
		return SHADOW_STACK;
	return NULL;
}

/* Does control go on behind it by itself, or only by a return or a branch from elsewhere? */
static bool plan_flows_on(const struct arch_insn *insn)
{
	return !(insn->flags & ARCH_F_NOFALL) && !plan_is_call(insn);
}

/* What control comes from, if it does: the instruction in front, or, behind filler, that in front of it. */
static const struct arch_insn *plan_last(const struct plan *plan)
{
	unsigned int i = plan->count - 1U;

	while (i > 0 && (plan->insns[i].flags & ARCH_F_FILLER))
		--i;
	return &plan->insns[i];
}

/*
 * How the boundary is met that is at `address`, where `insn` is, behind `last`. At PLAN_LED, whether branches can be
 * led is up to plan_can_lead().
 */
static enum plan_level plan_level_of(const struct plan_request *request, enum plan_level level,
				     const struct arch_insn *last, const struct arch_insn *insn, uintptr_t address,
				     uintptr_t site)
{
	if (address == request->limit)
		return PLAN_ENTERED;
	if (plan_is_target(request, address) && level == PLAN_LED)
		return PLAN_LED;
	if (plan_is_target(request, address))
		return address <= site ? PLAN_LED_ON : PLAN_BRANCHED_TO;
	if (insn->flags & ARCH_F_ENDBR || (!plan_flows_on(last) && !(insn->flags & ARCH_F_FILLER)))
		return PLAN_RETURNED_TO;
	return PLAN_QUIET;
}

/* NULL: all branches to boundaries of the window can be led. */
static const char *plan_can_lead(const struct plan_request *request, const struct plan *plan, uintptr_t *where)
{
	const char *why = "the window was tried already";

	for (unsigned int i = 1; i < plan->count; ++i) {
		uintptr_t address = plan->start + plan->offsets[i];

		if (!plan_is_target(request, address))
			continue;
		*where = address;
		if (!request->can_lead(address, plan->start, plan->start + plan->length, request->data))
			return "the function branches to an instruction within the bytes of a jump";
		why = NULL;
	}
	return why;
}

/*
 * The window of whole instructions from plan->start to `end` or behind it, with boundaries up to `level`. From
 * plan->start control must flow to the site, or the jump would not be met; unless the request gives the start and
 * boundaries may trap: then the site's boundary may be one that traps. `at_site` is the site's instruction. Returns
 * NULL, or why there is no such window and in *where the address that says so.
 */
static const char *plan_build(const struct plan_request *request, enum plan_level level, uintptr_t end,
			      const struct arch_insn *at_site, struct plan *plan, uintptr_t *where)
{
	const uint8_t *bytes = request->bytes + (plan->start - request->site);
	size_t size = request->size - (plan->start - request->site);
	bool flows = request->from == 0 || level < PLAN_BRANCHED_TO;
	bool led_on = false;

	plan->length = 0;
	plan->count = 0;
	while (plan->start + plan->length < end) {
		uintptr_t address = plan->start + plan->length;
		struct arch_insn *insn = &plan->insns[plan->count];
		const char *why;

		*where = address;
		if (plan->count == WINDOW_INSNS_MAX)
			return TOO_MUCH;
		if (address == plan->site)
			*insn = *at_site;
		else if (!arch_decode(bytes + plan->length, size - plan->length, address, insn))
			return "the bytes behind the instruction do not decode";
		why = plan_obstacle(request, level, insn, address);
		if (why != NULL)
			return why;
		/* Of the site's own instruction plan_site() knows. */
		if (address != plan->site && plan_target_inside(request, address, insn) != 0)
			return "the function branches into the middle of an instruction within the bytes of a jump";
		if (plan->count > 0) {
			enum plan_level met = plan_level_of(request, level, plan_last(plan), insn, address, plan->site);

			led_on |= met == PLAN_LED_ON;
			/* It may turn away in front of the site. */
			if (led_on && address < plan->site && insn->rel_size != 0)
				met = MAX(met, PLAN_BRANCHED_TO);
			if (met > level)
				return "the function branches to an instruction within the bytes of a jump";
		}
		if (address < plan->site && (address + insn->length > plan->site ||
					     (flows && (!plan_flows_on(insn) || (insn->flags & ARCH_F_ENDBR)))))
			return "control does not flow to the instruction from the one in front";
		if (plan->length + insn->length > WINDOW_LENGTH_MAX)
			return TOO_MUCH;
		plan->length += insn->length;
		plan->offsets[++plan->count] = plan->length;
	}
	if (level == PLAN_LED)
		return plan_can_lead(request, plan, where);
	return level == PLAN_LED_ON && !led_on ? "the window was tried already" : NULL;
}

/* From plan->start on, as long as a jump, over the site's instruction. */
static const char *plan_build_window(const struct plan_request *request, enum plan_level level,
				     const struct arch_insn *at_site, struct plan *plan, uintptr_t *where)
{
	uintptr_t end = MAX(MAX(plan->start + ARCH_JMP_SIZE, plan->site + at_site->length), request->reach);
	const char *why = plan_build(request, level, end, at_site, plan, where);

	if (why == NULL)
		plan->strategy = plan->count == 1 ? PATCH_STRATEGY_JUMP : PATCH_STRATEGY_CONSTRAINED_JUMP;
	return why;
}

static bool plan_build_forward(const struct plan_request *request, enum plan_level level,
			       const struct arch_insn *at_site, struct plan *plan, const char **why,
			       uintptr_t *where)
{
	const char *before = *why;
	uintptr_t about = *where;

	plan->start = plan->site;
	*why = plan_build_window(request, level, at_site, plan, where);
	if (*why == NULL)
		return true;
	/* That there are no leads is no reason: what they are for is. */
	if (level == PLAN_LED) {
		*why = before;
		*where = about;
	}
	return false;
}

static bool plan_build_backward(const struct plan_request *request, enum plan_level level, unsigned int variant,
				const struct arch_insn *at_site, struct plan *plan)
{
	uintptr_t distance = plan->site - request->site + MIN(request->before, (size_t)BACKWARDS_MAX);
	uintptr_t where;

	if (request->from != 0) {
		if (variant != 0 || request->site - request->from > request->before)
			return false;
		plan->start = request->from;
	} else {
		if (variant >= distance || request->is_start == NULL ||
		    !request->is_start(plan->site - 1 - variant, request->data))
			return false;
		plan->start = plan->site - 1 - variant;
	}
	return plan_build_window(request, level, at_site, plan, &where) == NULL;
}

/* The bytes of the jump behind the window are those of the instructions there: nothing is changed of them (I11). */
static bool plan_build_punned(const struct plan_request *request, enum plan_level level, unsigned int variant,
			      const struct arch_insn *at_site, struct plan *plan)
{
	unsigned int back = variant / (ARCH_JMP_SIZE - 1);
	unsigned int length = ARCH_JMP_SIZE - 1 - variant % (ARCH_JMP_SIZE - 1);
	uintptr_t where;

	/* Whatever is patched behind the window would make it a trap: leads first. */
	if (request->can_lead != NULL && level <= PLAN_LED) {
		if (level < PLAN_LED)
			return false;
		level = PLAN_RETURNED_TO;
	}
	if (request->from != 0 || back >= ARCH_JMP_SIZE - 1 || back > plan->site - request->site + request->before)
		return false;
	if (back > 0 && (request->is_start == NULL || !request->is_start(plan->site - back, request->data)))
		return false;
	plan->start = plan->site - back;
	if (plan->start + length < plan->site + at_site->length || plan->start + length < request->reach ||
	    plan->start + ARCH_JMP_SIZE > request->punnable ||
	    plan->start + ARCH_JMP_SIZE > request->site + request->size)
		return false;
	plan->strategy = PATCH_STRATEGY_PUNNED_JUMP;
	return plan_build(request, level, plan->start + length, at_site, plan, &where) == NULL &&
	       plan->length == length;
}

/* ---- the ladder ------------------------------------------------------------------------------------------------- */

static bool plan_climb(const struct plan_request *request, const struct arch_insn *at_site, struct plan *plan,
		       const char **why, uintptr_t *where)
{
	enum plan_level end = request->policy == PATCH_TRAP_POLICY_ALLOW ? PLAN_BRANCHED_TO :
			      request->beyond                            ? PLAN_LEVELS :
									   PLAN_ENTERED;
	struct plan_rung rung = request->candidate;

	while (rung.level < end) {
		bool built = false;

		if (rung.level == PLAN_LED && request->can_lead == NULL) {
			rung = (struct plan_rung){ .level = PLAN_LED_ON };
			continue;
		}
		plan->candidate = rung;
		switch (rung.shape) {
		case PLAN_FORWARD:
			/* There is one, and none when the start is given; control does not reach the site from it. */
			if (rung.variant == 0 && request->from == 0 && rung.level != PLAN_LED_ON) {
				built = plan_build_forward(request, rung.level, at_site, plan, why, where);
			}
			rung = plan_next_shape(rung);
			break;
		case PLAN_BACKWARD:
			built = plan_build_backward(request, rung.level, rung.variant, at_site, plan);
			rung = plan_next(rung);
			break;
		default:
			built = plan_build_punned(request, rung.level, rung.variant, at_site, plan);
			rung = plan_next(rung);
		}
		if (built)
			return true;
	}
	return false;
}

static void plan_trap(struct plan *plan, const struct arch_insn *insn)
{
	uint8_t length = insn->length;

	plan->start = plan->site;
	plan->length = length;
	plan->count = 1;
	plan->offsets[1] = length;
	plan->insns[0] = *insn;
	plan->strategy = PATCH_STRATEGY_TRAP;
	plan->candidate = (struct plan_rung){ .level = PLAN_LEVELS };
}

patch_status plan_site(const struct plan_request *request, struct plan *plan)
{
	struct arch_insn insn;
	uintptr_t where = request->site;
	uintptr_t inside;
	const char *why = "the bytes are part of another patch's jump, which cannot take the instruction in";

	memset(plan, 0, offsetof(struct plan, insns));
	plan->site = request->site;
	if (!arch_decode(request->bytes, request->size, plan->site, &insn))
		return plan_refuse(plan, PATCH_EDISASM, "the bytes at the address are no valid instruction",
				   plan->site);
	if (insn.flags & ARCH_F_ENDBR) {
		/* Kept in place for indirect branches; the hook sits right behind it. */
		plan->site += insn.length;
		if (!arch_decode(request->bytes + insn.length, request->size - insn.length, plan->site, &insn))
			return plan_refuse(plan, PATCH_EDISASM, "the bytes behind endbr64 are no valid instruction",
					   plan->site);
		if (request->upper != 0 && plan->site >= request->upper)
			return plan_refuse(plan, PATCH_EDISASM, "the function ends behind endbr64", plan->site);
	}
	if (insn.flags & ARCH_F_REFUSED)
		return plan_refuse(plan, PATCH_ERELOCATE, insn.why, plan->site);
	if (request->no_calls && plan_is_call(&insn))
		return plan_refuse(plan, PATCH_ENOTSUP, SHADOW_STACK, plan->site);
	if (request->bytes[plan->site - request->site] == ARCH_INT3)
		return plan_refuse(plan, PATCH_ECHANGED, "an int3 that libpatch did not write is there already",
				   plan->site);

	if (request->policy == PATCH_TRAP_POLICY_FORCE) {
		plan_trap(plan, &insn);
		return PATCH_OK;
	}
	inside = plan_target_inside(request, plan->site, &insn);
	if (inside != 0) {
		why = "the function branches into the middle of the instruction";
		where = inside;
	} else if (plan_climb(request, &insn, plan, &why, &where)) {
		return PATCH_OK;
	}
	if (request->policy == PATCH_TRAP_POLICY_FORBID || request->from != 0)
		return plan_refuse(plan, PATCH_ENOJUMP, why, where);
	plan_trap(plan, &insn);
	plan->message = why;
	plan->irritant = where;
	return PATCH_OK;
}
