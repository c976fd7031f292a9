/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walks tables of chunks, and adds chunks. What entries are is their owner's business.
 */
#include "base/chunks.h"

#include "base/syscall.h"

#include <sys/mman.h>

static void *chunk_find(const struct chunks *table, const struct chunk *chunk, chunks_take_fn *take, uintptr_t data)
{
	char *entry = chunk->entries;

	for (size_t i = 0; i < chunk->count; ++i, entry += table->entry_size)
		if (take(entry, data))
			return entry;
	return NULL;
}

/* Behind the last one; or what another thread has added first. NULL: the kernel has no memory. */
static struct chunk *chunk_add(const struct chunks *table, struct chunk *last)
{
	struct chunk *expected = NULL, *chunk;
	long result = -INJECT(INJECT_MMAP);

	if (result == 0)
		result = raw_syscall(SYS_mmap, NULL, table->chunk_size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (result < 0)
		return atomic_load(&last->next);
	chunk = (struct chunk *)result;
	chunk->count = (table->chunk_size - sizeof(*chunk)) / table->entry_size;
	chunk->entries = chunk + 1;
	if (atomic_compare_exchange_strong(&last->next, &expected, chunk))
		return chunk;
	raw_syscall(SYS_munmap, chunk, table->chunk_size);
	return expected;
}

static void *chunks_search(struct chunks *table, chunks_take_fn *take, uintptr_t data, bool grow)
{
	for (struct chunk *chunk = &table->first, *next; chunk != NULL; chunk = next) {
		void *entry = chunk_find(table, chunk, take, data);

		if (entry != NULL)
			return entry;
		next = atomic_load(&chunk->next);
		if (next == NULL && grow)
			next = chunk_add(table, chunk);
	}
	return NULL;
}

void *chunks_find(struct chunks *table, chunks_take_fn *take, uintptr_t data)
{
	return chunks_search(table, take, data, false);
}

void *chunks_take(struct chunks *table, chunks_take_fn *take, uintptr_t data)
{
	return chunks_search(table, take, data, true);
}

size_t chunks_bytes(struct chunks *table)
{
	size_t bytes = 0;

	for (struct chunk *chunk = &table->first; (chunk = atomic_load(&chunk->next)) != NULL;)
		bytes += table->chunk_size;
	return bytes;
}
