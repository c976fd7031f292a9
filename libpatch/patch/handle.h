/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Handles of patches: an index and a generation, so that a handle that was released, or never was one, is told. Called
 * with the library lock held.
 */
#ifndef LIBPATCH_PATCH_HANDLE_H
#define LIBPATCH_PATCH_HANDLE_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>

struct patch;

/* A zeroed patch with a handle, and with room for a pair if it is `paired`; NULL when out of memory. */
struct patch *handle_alloc(patch_t *handle, unsigned int attachments, bool paired) REQUIRES(library_lock);
/* The patch, or NULL. */
struct patch *handle_get(patch_t handle) REQUIRES(library_lock);
/* Release the patch: from now on its handle is unknown. The patch stays. */
void handle_revoke(struct patch *patch) REQUIRES(library_lock);
/* Free the patch; revokes its handle first, if that was not done. */
void handle_free(struct patch *patch) REQUIRES(library_lock);
/* Revoke all handles; visits each patch that had one. */
void handle_revoke_all(void (*visit)(struct patch *patch)) REQUIRES(library_lock);
uint64_t handle_count(void) REQUIRES(library_lock);
/* Patches whose handles were revoked. */
uint64_t handle_revoked_count(void) REQUIRES(library_lock);
/* Every patch, with a handle or without: the next one from *index on, which grows; NULL: no more. Begin with 0. */
struct patch *handle_next(size_t *index) REQUIRES(library_lock);

/* The patch has a change for the next commit. */
void handle_change(struct patch *patch) REQUIRES(library_lock);
/* Visit every patch that has a change. */
void handle_visit_changed(void (*visit)(struct patch *patch)) REQUIRES(library_lock);
/* The same. From then on the patch has no change, unless `settle` returns false. */
void handle_settle(bool (*settle)(struct patch *patch)) REQUIRES(library_lock);

#endif
