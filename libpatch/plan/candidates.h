/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a patch can go, given what is patched around it: the planner's candidates, best first, made to fit.
 * Called with the library lock held; nothing here changes a region that has patches.
 */
#ifndef LIBPATCH_PLAN_CANDIDATES_H
#define LIBPATCH_PLAN_CANDIDATES_H

#include "base/compiler.h"
#include "base/scratch.h"
#include "base/thread_safety.h"
#include "plan/plan.h"
#include "patch/region.h"
#include "plan/site.h"

#include <libpatch/patch.h>

/* Bytes a plan may look at: the longest window on either side, one instruction more, and an endbr64. */
#define CANDIDATES_BEFORE WINDOW_LENGTH_MAX
#define CANDIDATES_VIEW (CANDIDATES_BEFORE + WINDOW_LENGTH_MAX + INSN_MAX + 4)

/* A candidate, and how it was come by. Large: scratch memory (base/scratch.h). */
struct candidates {
	struct plan plan;
	const uint8_t *original;                    /* bytes from plan.start on: the window, and a jump */
	struct region *inner[WINDOW_INSNS_MAX * 2]; /* regions that it takes in */
	size_t inner_count;
	/* The rest is candidates.c's. */
	struct extent extent;
	const struct region *through;
	uintptr_t from;
	struct plan_request request;
	bool over;
	bool without_memory; /* there was a candidate that only memory was missing for */
	bool in_break_room;
	patch_status status; /* why there is no better candidate: the first reason */
	struct refusal refusal;
	uint8_t view[CANDIDATES_VIEW];
};
_Static_assert(sizeof(struct candidates) <= SCRATCH_CANDIDATES, "scratch.h");

/*
 * Begin with the candidates for a hook on the instruction at address; `extent` is what is around it. `from`: see struct
 * plan_request. `through`: a region that is taken for not there; or NULL. PATCH_OK; PATCH_EFAULT: not mapped.
 */
patch_status candidates_begin(struct candidates *candidates, const struct extent *extent, uintptr_t address, int policy,
			      uintptr_t from, const struct region *through, struct refusal *refusal)
	REQUIRES(library_lock);

/* Which branches can be led, as in struct plan_request. As it begins: leads_can_lead(). */
void candidates_lead(struct candidates *candidates,
		     bool (*can_lead)(uintptr_t address, uintptr_t lower, uintptr_t upper, const void *data))
	REQUIRES(library_lock);
/* The next candidate: PATCH_OK, or why there is none, which is why the first of them did not do. */
patch_status candidates_next(struct candidates *candidates, struct refusal *refusal) REQUIRES(library_lock);
/* The candidate does not do, for a reason that only its building showed. */
void candidates_reject(struct candidates *candidates, patch_status status, const struct refusal *refusal)
	REQUIRES(library_lock);
/* No other candidate will be built. */
void candidates_end(struct candidates *candidates) REQUIRES(library_lock);

#endif
