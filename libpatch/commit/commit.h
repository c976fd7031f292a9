/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * THE protocol: from what is wanted to what is in the text, for a batch of regions, while threads run through them.
 * doc/protocol.md states the invariants cited as I1 to I11.
 */
#ifndef LIBPATCH_COMMIT_COMMIT_H
#define LIBPATCH_COMMIT_COMMIT_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>

/*
 * Bring every queued region to the state that its patches want. PATCH_OK, PATCH_EFAIL when some regions could not be
 * changed, PATCH_ESYS when the batch was cut short and waits for the next commit; errors are in the thread's chain.
 * With the library lock held.
 */
patch_status commit_run(void) REQUIRES(library_lock);

/*
 * The same, without a trap byte at any time: for code that runs where a trap would be fatal. Every change is one write
 * that threads see whole (text_begin_whole()); regions that are to be installed, and of which more than one instruction
 * would change, fail. Only the library's own patches are looked at: others stay queued for a commit of the program's.
 */
patch_status commit_run_whole(void) REQUIRES(library_lock);

/*
 * The same, of what needs no change of text: hooks are opened and closed. All other regions fail with PATCH_EBLOCKED,
 * and their changes stay queued.
 */
patch_status commit_run_without_text(void) REQUIRES(library_lock);

/* Would the queued regions change text? */
bool commit_changes_text(void) REQUIRES(library_lock);

uint64_t commit_count(void) REQUIRES(library_lock);

#endif
