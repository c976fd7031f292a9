/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: generated code that no thread can reach yet is collected, and written many pieces at a time. Code that
 * threads may be running is never written from here: a commit does that, by text_apply().
 */
#include "code/staging.h"

#include "base/heap.h"
#include "base/inject.h"
#include "base/thread_safety.h"
#include "sys/text.h"

#include <string.h>

struct staged {
	struct staged *next;
	uintptr_t address;
	uint32_t length;
	uint8_t bytes[];
};

/* Staged bytes are many, and all are freed at the same time: they have memory of their own. */
#define CHUNK (256 * 1024UL)

struct chunk {
	struct chunk *next;
	size_t used;
	uint8_t bytes[];
};

static struct chunk *chunks GUARDED_BY(library_lock);
static struct staged *staged_list GUARDED_BY(library_lock);
static size_t staged_count GUARDED_BY(library_lock);

/* Pages to which nothing was ever written. A page for which there is no room here is not prefaulted. */
static struct pages {
	uintptr_t lower;
	uintptr_t upper;
} fresh[512] GUARDED_BY(library_lock);
static size_t fresh_count GUARDED_BY(library_lock);

static void *staging_alloc(size_t size) REQUIRES(library_lock)
{
	struct chunk *chunk = chunks;
	void *block;

	size = ALIGN_UP(size, sizeof(void *));
	if (chunk == NULL || CHUNK - sizeof(*chunk) - chunk->used < size) {
		if (size > CHUNK - sizeof(*chunk))
			return NULL;
		chunk = heap_map(CHUNK);
		if (chunk == NULL)
			return NULL;
		chunk->next = chunks;
		chunks = chunk;
	}
	block = chunk->bytes + chunk->used;
	chunk->used += size;
	return block;
}

/* Keeps one chunk, empty, for the next pieces. */
static void staging_free_chunks(void) REQUIRES(library_lock)
{
	while (chunks != NULL && chunks->next != NULL) {
		struct chunk *chunk = chunks;

		chunks = chunk->next;
		heap_unmap((uintptr_t)chunk, CHUNK);
		heap_disown(CHUNK);
	}
	if (chunks != NULL)
		chunks->used = 0;
}

bool staging_add(uintptr_t address, const void *bytes, uint32_t length)
{
	struct staged *staged;

	if (INJECT(INJECT_ALLOC))
		return false;
	/*
	 * No thread can reach the code yet, so it may be written at any time. The commit tries again what fails here.
	 */
	if (chunks != NULL &&
	    CHUNK - sizeof(*chunks) - chunks->used < ALIGN_UP(sizeof(*staged) + length, sizeof(void *)))
		(void)staging_flush();
	staged = staging_alloc(sizeof(*staged) + length);
	if (staged == NULL)
		return false;
	staged->address = address;
	staged->length = length;
	memcpy(staged->bytes, bytes, length);
	staged->next = staged_list;
	staged_list = staged;
	++staged_count;
	return true;
}

/* Arenas grow page after page, and pads lie elsewhere: the page mostly continues one of the last few ranges. */
void staging_fresh_page(uintptr_t page)
{
	for (size_t i = fresh_count; i > 0 && i + 4 > fresh_count; --i) {
		if (fresh[i - 1].upper == page) {
			fresh[i - 1].upper += PAGE_SIZE;
			return;
		}
	}
	if (fresh_count < ARRAY_SIZE(fresh))
		fresh[fresh_count++] = (struct pages){ page, page + PAGE_SIZE };
}

static void staging_prefault(void) REQUIRES(library_lock)
{
	for (size_t i = 0; i < fresh_count; ++i)
		text_prefault(fresh[i].lower, fresh[i].upper);
	fresh_count = 0;
}

/* The list is short, and the piece is mostly the last one that was added. */
void staging_drop(uintptr_t address)
{
	struct staged **link = &staged_list;

	while (*link != NULL && (*link)->address != address)
		link = &(*link)->next;
	if (*link == NULL)
		return;
	*link = (*link)->next;
	if (--staged_count == 0)
		staging_free_chunks();
}

/*
 * Writes in portions of a fixed array, so that no memory is needed. After a failure all pieces are still in the list,
 * and the next flush writes them all again, which does no harm.
 */
int staging_flush(void)
{
	static struct text_write writes[8192] GUARDED_BY(library_lock);
	size_t n = 0;
	int error = 0;

	/* Even with nothing staged: a pad's jump may be written to such a page next, by text_apply(). */
	staging_prefault();
	if (staged_count == 0)
		return 0;
	for (struct staged *staged = staged_list; staged != NULL; staged = staged->next) {
		writes[n++] = (struct text_write){
			.address = staged->address, .bytes = staged->bytes, .length = staged->length
		};
		if (n < ARRAY_SIZE(writes) && staged->next != NULL)
			continue;
		if (text_apply(writes, n) != 0)
			for (size_t i = 0; i < n && error == 0; ++i)
				error = writes[i].error;
		n = 0;
	}
	if (error != 0)
		return error;
	staged_list = NULL;
	staged_count = 0;
	staging_free_chunks();
	return 0;
}
