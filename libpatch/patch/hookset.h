/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The patches that are to share a region, and the trampoline that serves them: one that the region has had, if that
 * serves them, else a new one. Called with the library lock held.
 */
#ifndef LIBPATCH_PATCH_HOOKSET_H
#define LIBPATCH_PATCH_HOOKSET_H

#include "arch/insn.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/region.h"

#include <libpatch/patch.h>

/* Attachments by address, at equal addresses in order of making. Begins zeroed. */
struct hookset {
	struct attachment **list;
	size_t count;
	size_t capacity;
};

/* False: out of memory. */
bool hookset_add(struct hookset *set, struct attachment *attachment) REQUIRES(library_lock);
/* Add all attachments of the region. */
bool hookset_add_region(struct hookset *set, const struct region *region) REQUIRES(library_lock);
void hookset_free(struct hookset *set) REQUIRES(library_lock);

/*
 * A trampoline for those of the set that are not released. Its hooks are used then by all of the set that they suffice
 * for. PATCH_OK; PATCH_ENOMEM with the reason in *refusal.
 */
patch_status hookset_build(const struct hookset *set, struct region *region, const struct arch_insn *insns,
			   struct trampoline **out, struct refusal *refusal) REQUIRES(library_lock);
/* The same for the patches on the region, which is to be a trap. *out is NULL when there are none. */
patch_status hookset_build_trap(struct region *region, struct trampoline **out, struct refusal *refusal)
	REQUIRES(library_lock);

/*
 * A patch of the region is about to go: at the next commit the text is to lead to the trampoline that does the least
 * beside what is wanted then. Without memory it stays as it is, which is right, and slower.
 */
void hookset_settle_for_less(struct region *region) REQUIRES(library_lock);

#endif
