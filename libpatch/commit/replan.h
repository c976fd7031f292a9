/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions of which a boundary turned out to be branched to. A jump elsewhere takes the place of such a region, if there
 * is a window none of whose boundaries is known to trap. The new bytes are among the old ones, so the
 * caller makes three commits (api_commit_queue()): of what the program has queued, then one behind each of
 *
 *   replan_begin()    builds the new region; the old one is to be a trap, at its hooked instruction alone
 *   replan_go_on()    once that is so: the new region takes the old one in
 *
 * Called with the library lock held, which is not given up in between.
 */
#ifndef LIBPATCH_COMMIT_REPLAN_H
#define LIBPATCH_COMMIT_REPLAN_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Is there anything to look at? */
bool replan_is_due(void) REQUIRES(library_lock);
/* Queue the regions that are to be traps. False: there is none. */
bool replan_begin(void) REQUIRES(library_lock);
/* Queue the regions that take their place. */
void replan_go_on(void) REQUIRES(library_lock);

#endif
