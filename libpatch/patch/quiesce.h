/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When a patch is gone: opening and closing its hooks, and finding out that no thread uses its records any more
 * (hook_threads.h has the argument). Nothing here waits: a look that finds a thread in a procedure leaves the patch to
 * the next look. The states are those of enum patch_life (patch_object.h). Called with the library lock held.
 */
#ifndef LIBPATCH_PATCH_QUIESCE_H
#define LIBPATCH_PATCH_QUIESCE_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct patch;

/* Let its hooks call its procedure, or pass them over. */
void quiesce_set_open(struct patch *patch, bool open) REQUIRES(library_lock);

/* The patch was released and is in no region any more. The caller must not use it after the call, which may free it. */
void quiesce_detached(struct patch *patch) REQUIRES(library_lock);

/* Look at the threads, if anything waits for them. */
void quiesce_poll(void) REQUIRES(library_lock);
/* The same if more lists wait (hook_list.h) than this. */
void quiesce_lists(size_t most) REQUIRES(library_lock);

/* Is a patch due? */
bool quiesce_is_due(void) REQUIRES(library_lock);
/*
 * Take the next patch that is due, in order of patch_unmake(); NULL: none is. The caller calls its destroy function
 * without the library lock, then quiesce_destroyed().
 */
struct patch *quiesce_take(void) REQUIRES(library_lock);
void quiesce_destroyed(struct patch *patch) REQUIRES(library_lock);

/* The last ticket: patches that were closed or detached until now have tickets up to it. */
uint64_t quiesce_ticket(void) REQUIRES(library_lock);
enum quiesce_state {
	QUIESCE_QUIET, /* patches with tickets up to the given one are quiet, and the detached ones of them destroyed */
	QUIESCE_BUSY,
	QUIESCE_SELF /* busy for as long as the calling thread does not return from a procedure */
};
/* *site: the address of a patch that is not, if one is not. */
enum quiesce_state quiesce_state(uint64_t ticket, uintptr_t *site) REQUIRES(library_lock);

/* Is the procedure or the destroy function of any patch, also of one that is not gone yet, in [lower, upper)? */
bool quiesce_uses(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

#endif
