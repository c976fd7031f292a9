/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the three files of the registry share: the table (registry.c), its read side (registry_read.c), reports (hot.c).
 * Nobody else includes it. Called with the library lock held.
 */
#ifndef LIBPATCH_TRAP_REGISTRY_PARTS_H
#define LIBPATCH_TRAP_REGISTRY_PARTS_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct registry_entry;

/* Grace periods begun. What is unpublished now can be freed when it is two more. */
uint64_t registry_epoch(void) REQUIRES(library_lock);
/* Begin the next ones, as far as readers of the ones before have left. Returns the epoch. Never waits. */
uint64_t registry_advance_epoch(void) REQUIRES(library_lock);

/* The entry is about to be freed, when no reader can report it any more: take it off the list of reports. */
void registry_unreport(const struct registry_entry *entry) REQUIRES(library_lock);
/* The entry is taken out of the table: it is not hot, and reports of it, also later ones, are nobody's business. */
void registry_take_out_reports(struct registry_entry *entry) REQUIRES(library_lock);

#endif
