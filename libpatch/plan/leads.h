/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Branches that lead to where the text traps: which they are, and windows for them. The branch is displaced, and its
 * copy goes where a trap would (code/lead.h). Called with the library lock held.
 */
#ifndef LIBPATCH_PLAN_LEADS_H
#define LIBPATCH_PLAN_LEADS_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "plan/candidates.h"
#include "plan/scan.h"

/*
 * Can all known branches to `address` be led but those from the window [lower, upper)? Of the function that the scan is
 * at; what they are displaced by lies outside of the window.
 */
bool leads_can_lead(const struct candidates *candidates, uintptr_t address, uintptr_t lower, uintptr_t upper)
	REQUIRES(library_lock);

/* The function's next branch to `address` from outside of [lower, upper), from *index on. NULL: no more. */
const struct scan_branch *leads_next(const struct scan_function *function, uintptr_t address, uintptr_t lower,
				     uintptr_t upper, size_t *index);

/* May a lead join the region? It is no trap, and need not change whole (S4). */
bool leads_may_join(const struct region *region) REQUIRES(library_lock);

/* Candidates for the branch at an address: none of their boundaries is known to trap. */
patch_status leads_begin(struct candidates *candidates, const struct extent *extent, uintptr_t address,
			 struct refusal *refusal) REQUIRES(library_lock);
patch_status leads_next_candidate(struct candidates *candidates, struct refusal *refusal) REQUIRES(library_lock);

#endif
