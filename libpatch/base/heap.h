/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's own heap, because patch_make() may run in a signal handler that interrupted malloc, and because the
 * host may interpose malloc (I9). Called with the library lock held.
 */
#ifndef LIBPATCH_BASE_HEAP_H
#define LIBPATCH_BASE_HEAP_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Zeroed memory, 8-byte aligned; NULL when the kernel has none. */
void *heap_alloc(size_t size) REQUIRES(library_lock);
/* `size` as given to heap_alloc(). NULL is ignored. */
void heap_free(void *block, size_t size) REQUIRES(library_lock);
/* A longer block with the same contents; the old one is freed. NULL and the old one intact on failure. */
void *heap_grow(void *block, size_t old_size, size_t new_size) REQUIRES(library_lock);
/*
 * Make room for `count` items of `size` bytes in an array that has some for *room of them. `items`: the address of the
 * pointer to it, which is NULL at first. It grows by half its new size, so that items may be added one by one. False,
 * and nothing has changed, on failure.
 */
bool heap_reserve(void *items, size_t *room, size_t count, size_t size) REQUIRES(library_lock);

/* Fresh zeroed pages anywhere, writable, or NULL. */
void *heap_map(size_t size);

/* Why the kernel last refused to map memory: -errno. heap_take_refusal() sets it to 0. */
void heap_note_refusal(long error);
long heap_take_refusal(void);

/* A mapping of heap_map() was given away, or unmapped by other means: heap_mapped() no longer counts it. */
void heap_disown(size_t size);
/* Unmap pages, also such as are not the heap's. Where the kernel refuses, heap_tidy() tries again. */
void heap_unmap(uintptr_t address, size_t size);
void heap_tidy(void);

/* Memory that can be neither used nor given back, because to do so takes memory or a mapping more. Bytes. */
uint64_t heap_lost(void);

/* Bytes handed out by heap_alloc() and not freed, as rounded. For tests. */
uint64_t heap_in_use(void);
/* Bytes mapped and not given back. */
uint64_t heap_mapped(void);

#endif
