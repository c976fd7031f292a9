/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a batch does beside changing text: in front of its first trap byte, and behind its last sync.
 */
#ifndef LIBPATCH_COMMIT_PUBLISH_H
#define LIBPATCH_COMMIT_PUBLISH_H

#include "base/thread_safety.h"
#include "commit/batch.h"

/* Step publish (I3). */
void commit_publish(struct batch *batch) REQUIRES(library_lock);
/* A region of which phase 1 wrote nothing has the text that it had: its entries must not be active (I6). */
void commit_withdraw(struct batch *batch) REQUIRES(library_lock);

/* Patches open as a whole, when all of their regions lead to their hooks: those of this one. */
void commit_open_patches(const struct region *region) REQUIRES(library_lock);
/* Will commit_settle() retire any entry of the change? */
bool commit_retires(const struct region_change *change);
/* Step settle. */
void commit_settle(struct batch *batch) REQUIRES(library_lock);

#endif
