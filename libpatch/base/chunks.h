/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables whose entries threads take without a lock, each by a compare and exchange of its own: chunks of entries, to
 * which others are only added, so that an entry stays where it is. Entries are all 0 at first.
 *
 * Async-signal-safe, and wherever a hook may be: no libc, no lock. Memory is the kernel's.
 */
#ifndef LIBPATCH_BASE_CHUNKS_H
#define LIBPATCH_BASE_CHUNKS_H

#include "base/compiler.h"

#include <stdatomic.h>

struct chunk {
	struct chunk *_Atomic next;
	size_t count;
	void *entries;
};

struct chunks {
	struct chunk first; /* of static entries */
	size_t entry_size;
	size_t chunk_size; /* of the others, in bytes: whole pages */
};

/* Each entry as far as there are chunks. A `break` leaves one chunk only. */
#define for_each_in_chunks(type, entry, table)                                                                         \
	for (struct chunk *chunk_ = &(table)->first; chunk_ != NULL; chunk_ = atomic_load(&chunk_->next))              \
		for (type *entry = chunk_->entries; entry < (type *)chunk_->entries + chunk_->count; ++entry)

/* Is it this entry, or is it the caller's now? */
typedef bool chunks_take_fn(void *entry, uintptr_t data);
/* The first one that `take` says yes to; NULL: none. */
void *chunks_find(struct chunks *table, chunks_take_fn *take, uintptr_t data);
/* The same, in as many chunks as it needs; NULL: the kernel has no memory for another one. */
void *chunks_take(struct chunks *table, chunks_take_fn *take, uintptr_t data);

/* Mapped for chunks. */
size_t chunks_bytes(struct chunks *table);

#endif
