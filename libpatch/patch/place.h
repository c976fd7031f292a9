/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A place: an instruction that patches are on. Its hooks, in whatever trampolines they were built, are the place's, not
 * a patch's: which patches a hook calls is decided here, and is in its slot.
 *
 *   no patch that uses the hook is open      0
 *   one is, and the hook is as for it alone  its record, called directly; its counter
 *   else                                     the hook's list (hook_list.h)
 *
 * Of diverts, the slot holds the target of the open one that was made last, whether it was there or not when the
 * trampoline was built; or the address of what follows.
 *
 * What a hook is used for changes in patch_make(), which may run out of memory, and when a patch goes. Opening and
 * closing only says which of its users are called, and cannot fail.
 */
#ifndef LIBPATCH_PATCH_PLACE_H
#define LIBPATCH_PATCH_PLACE_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/trampoline.h"
#include "patch/patch_object.h"

struct place {
	uint64_t pair; /* of the last opening of a patch that is told of the function's return */
	struct built_hook *hooks; /* that are used; of any region's trampolines */
	uintptr_t behind; /* what the place's diverts do not lead elsewhere goes there, once one of them is known */
	uint32_t attachments;
};

/* Join the place, NULL: a new one. False: out of memory. */
bool place_join(struct place *place, struct attachment *attachment) REQUIRES(library_lock);
/* Leave it: its hooks, and the place with its last patch. The patch is closed. */
void place_leave(struct attachment *attachment) REQUIRES(library_lock);

/*
 * The hooks of the trampoline are to serve these attachments, which it can do (trampoline_excess()), in order of
 * address and making. False: out of memory, and nothing was changed.
 */
bool place_use(struct trampoline *trampoline, struct attachment *const *list, size_t count) REQUIRES(library_lock);

/* The hook's users changed: for place_use(), which has made the list that it needs. */
void place_set_slot(struct built_hook *hook) REQUIRES(library_lock);

/* The patch was opened or closed: let its hooks call it, or not. */
void place_update(struct patch *patch) REQUIRES(library_lock);

/*
 * An address for the program, which leads to what runs at the place without this patch, which diverts there, and those
 * that were made after it. The trampoline, which serves the patch, is written, and reachable from now on (I7).
 */
uintptr_t place_lend_original(struct trampoline *trampoline, struct attachment *attachment) REQUIRES(library_lock);
/* The trampoline serves its place from now on: what programs were given leads to it. */
void place_lead_originals(const struct trampoline *trampoline) REQUIRES(library_lock);

/* Free a trampoline that was never reachable, or whose code is gone. */
void place_free_trampoline(struct trampoline *trampoline) REQUIRES(library_lock);

#endif
