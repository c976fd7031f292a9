/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Planning: from the original bytes at a site to a window of whole instructions and a strategy, or a refusal with its
 * reason. Pure: nothing is read but the request, nothing is written but the plan.
 */
#ifndef LIBPATCH_PLAN_PLAN_H
#define LIBPATCH_PLAN_PLAN_H

#include "arch/insn.h"
#include "base/compiler.h"
#include "code/window.h"

#include <libpatch/patch.h>

/*
 * How the boundaries of a window are met, the best level first: a boundary that something leads to traps, at
 * microseconds each. Only FORBID goes beyond PLAN_LED_ON, up to which no execution traps that would not at the site.
 */
enum plan_level {
	PLAN_QUIET,       /* nothing is known to lead to them but the instruction in front: they never trap */
	PLAN_RETURNED_TO, /* behind a call or a jump: something may lead there, as a return does */
	PLAN_LED,         /* the function branches to them, but those branches can be led to their copies */
	PLAN_LED_ON,      /* the function branches to them, and from there control reaches the site */
	PLAN_BRANCHED_TO, /* the function branches to them */
	PLAN_ENTERED,     /* the window runs into the next function, whose entry is one: only if plan_request.beyond */
	PLAN_LEVELS       /* no window: a trap */
};

/* Where a window lies, at each level in this order. */
enum plan_shape {
	PLAN_FORWARD,  /* from the site on */
	PLAN_BACKWARD, /* it begins in front of the site; the nearest first */
	PLAN_PUNNED,   /* its jump consists of bytes behind it, too; the longest first */
	PLAN_SHAPES
};

/* A candidate's place in the order in which candidates are tried. Zeroed: the first one. */
struct plan_rung {
	uint8_t level;   /* enum plan_level */
	uint8_t shape;   /* enum plan_shape */
	uint8_t variant; /* of the shape */
};

struct plan_request {
	uintptr_t site;
	const uint8_t *bytes; /* original bytes from site on */
	size_t size;          /* how many are readable */
	size_t before;        /* how many in front of them are, too: not beyond the function's start */
	/* End of the function around the site; 0 when unknown. Its start bounds `before`. */
	uintptr_t upper;
	/* Where the next function begins: nothing from there on may be touched. UINTPTR_MAX when unknown. */
	uintptr_t limit;
	/* ... but by the last resort of FORBID, which may displace instructions up to here. 0: none. */
	uintptr_t beyond;
	/* A jump may consist of bytes that stay what they are up to here: the end of the mapping. 0: it may not. */
	uintptr_t punnable;
	/* Is there a known direct branch to `address`? Does an instruction start there? NULL: nothing is known. */
	bool (*is_target)(uintptr_t address, const void *data);
	bool (*is_start)(uintptr_t address, const void *data);
	/*
	 * Of a branch target: can all known branches there be led to its copy, but those from the window [lower,
	 * upper)? What they are displaced by is outside of the window. NULL: no.
	 */
	bool (*can_lead)(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data);
	const void *data;
	/*
	 * The window must end here or later, because it joins the region that ends here. 0: it need not.
	 */
	uintptr_t reach;
	/*
	 * The window must begin here, in front of the site, because it joins the region that begins here. 0: it need
	 * not.
	 */
	uintptr_t from;
	struct plan_rung candidate; /* the first one to try: those before it did not do */
	int policy;                 /* enum patch_trap_policy */
	bool no_calls; /* calls cannot be displaced: the return address written by the copy is not the shadow stack's */
};

struct plan {
	uintptr_t site;  /* the instruction to hook: behind an endbr64, and inside the window */
	uintptr_t start; /* of the window */
	uint8_t length;
	uint8_t count;
	uint8_t strategy; /* enum patch_strategy */
	struct plan_rung candidate;
	uint8_t offsets[WINDOW_INSNS_MAX + 1]; /* of the instructions, and the end */
	/* Refused: status is not PATCH_OK, and this is why and where. */
	const char *message;
	uintptr_t irritant;
	struct arch_insn insns[WINDOW_INSNS_MAX]; /* decoded */
};

/*
 * The best candidate from request->candidate on, level by level, and at each level shape by shape. Last of all, with
 * ALLOW, a trap.
 */
patch_status plan_site(const struct plan_request *request, struct plan *plan);

/* The candidate behind this one. */
struct plan_rung plan_next(struct plan_rung rung);

/* The plan as a window over `original`, bytes from its start on. */
static inline struct window plan_window(const struct plan *plan, const uint8_t *original)
{
	return (struct window){
		.start = plan->start,
		.length = plan->length,
		.count = plan->count,
		.strategy = plan->strategy,
		.offsets = plan->offsets,
		.original = original,
		.insns = plan->insns,
	};
}

#endif
