/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a patch goes: it joins the region that has its instruction, or gets a region of its own, which takes in those
 * that its window would overlap. Called with the library lock held; nothing here writes live text.
 */
#ifndef LIBPATCH_PLAN_ATTACH_H
#define LIBPATCH_PLAN_ATTACH_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/region.h"
#include "plan/exits.h"
#include "plan/site.h"

#include <libpatch/patch.h>

/*
 * One attachment of the patch gets its place at the address, and the region's trampoline is built. `extent`: what is
 * around the patch's site. On failure nothing has changed and *refusal says why.
 */
patch_status attach_patch(struct patch *patch, unsigned int index, enum hook_when when, uintptr_t address,
			  const struct extent *extent, struct refusal *refusal) REQUIRES(library_lock);

/* The same in a region that is there, whose window stays as it is. */
patch_status attach_join(struct region *region, struct attachment *attachment, struct refusal *refusal)
	REQUIRES(library_lock);
/* The same in the unused region with the candidate's window, or a new one. */
struct candidates;
patch_status attach_settle_in(const struct candidates *candidates, struct attachment *attachment,
			      struct refusal *refusal) REQUIRES(library_lock);

/*
 * The same for a patch on an instruction whose window is given: [start, end), whole instructions, the first one of a
 * jump's length. Nothing is patched there.
 */
patch_status attach_in_window(struct patch *patch, uintptr_t address, uintptr_t start, uintptr_t end,
			      const struct extent *extent, struct refusal *refusal) REQUIRES(library_lock);

/*
 * All the places of a patch, as its model wants them. On failure *refusal says why, and region_detach() takes back what
 * was attached.
 */
patch_status attach_model(struct patch *patch, const struct extent *extent, const struct exits *exits,
			  struct refusal *refusal) REQUIRES(library_lock);
/*
 * The branches that lead to where the text traps for the patch, which was attached, are displaced, too: their copies go
 * where a trap would. As far as there are windows and memory for them.
 */
void attach_leads(struct patch *patch) REQUIRES(library_lock);

/*
 * Of a divert, which was attached: it does not lead to itself, and *original, unless that is NULL, is what can be
 * called from now on.
 */
patch_status attach_original(struct patch *patch, void **original, struct refusal *refusal) REQUIRES(library_lock);
/* How many places that is, and is a pair needed? `exits`: of PROBE_RETURN, those of the function. */
unsigned int attach_count(int type, const struct exits *exits, bool *paired);
/*
 * The exits of the function that begins at the address; `partial`: what can be found of them will do. They are good
 * until the next call.
 */
patch_status attach_find_exits(uintptr_t address, bool partial, const struct exits **exits, struct refusal *refusal)
	REQUIRES(library_lock);

#endif
