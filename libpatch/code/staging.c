/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: generated code that no thread can reach yet is collected, and written many pieces at a time. Code that
 * threads may be running is never written from here: a commit does that, by text_apply().
 */
#include "code/staging.h"

#include "base/bug.h"
#include "base/heap.h"
#include "base/inject.h"
#include "base/thread_safety.h"
#include "code/perf.h"
#include "sys/text.h"

#include <string.h>

/*
 * Pieces are many, and all are written at the same time: they have memory of their own. In a chunk their bytes are at
 * its beginning, and grow upwards; what text_apply() is to be told about them is at its end, and grows downwards.
 */
#define CHUNK (256 * 1024UL)

struct chunk {
	struct chunk *next;
	size_t used;  /* bytes */
	size_t count; /* pieces */
	uint8_t bytes[];
};

/* The newest first: pieces are added to it, and the others are full. */
static struct chunk *chunks GUARDED_BY(library_lock);

/* Pages to which nothing was ever written. A page for which there is no room here is not prefaulted. */
static struct pages {
	uintptr_t lower;
	uintptr_t upper;
} fresh[512] GUARDED_BY(library_lock);
static size_t fresh_count GUARDED_BY(library_lock);

/* The pieces, the newest first. */
static struct text_write *staging_pieces(struct chunk *chunk)
{
	return (struct text_write *)((uint8_t *)chunk + CHUNK) - chunk->count;
}

static bool staging_fits(struct chunk *chunk, size_t length)
{
	return length + sizeof(struct text_write) <=
	       (size_t)((uint8_t *)staging_pieces(chunk) - (chunk->bytes + chunk->used));
}

static bool staging_add_chunk(void) REQUIRES(library_lock)
{
	struct chunk *chunk = heap_map(CHUNK);

	if (chunk == NULL)
		return false;
	chunk->next = chunks;
	chunks = chunk;
	return true;
}

/* Keeps one chunk, empty, for the next pieces. */
static void staging_empty(void) REQUIRES(library_lock)
{
	while (chunks != NULL && chunks->next != NULL) {
		struct chunk *chunk = chunks;

		chunks = chunk->next;
		heap_unmap((uintptr_t)chunk, CHUNK);
		heap_disown(CHUNK);
	}
	if (chunks != NULL) {
		chunks->used = 0;
		chunks->count = 0;
	}
}

/*
 * No thread can reach the code yet, so it may be written at any time. The commit tries again what fails here. Asked
 * before memory for a block is taken: what was given out so far is staged, or was dropped.
 */
void staging_make_room(uint32_t length)
{
	if (chunks != NULL && !staging_fits(chunks, length))
		(void)staging_flush();
}

bool staging_add(uintptr_t address, const void *bytes, uint32_t length)
{
	uint8_t *copy;

	LOCK_ASSERT_HELD();
	if (INJECT(INJECT_ALLOC))
		return false;
	if ((chunks == NULL || !staging_fits(chunks, length)) && !staging_add_chunk())
		return false;
	BUG_ON_RETURN(!staging_fits(chunks, length), false);
	copy = chunks->bytes + chunks->used;
	memcpy(copy, bytes, length);
	chunks->used += length;
	++chunks->count;
	*staging_pieces(chunks) = (struct text_write){ .address = address, .bytes = copy, .length = length };
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

/* Where the piece is, from the newest one on, as it is mostly that one. */
static struct text_write *staging_find(struct chunk *chunk, uintptr_t address)
{
	struct text_write *pieces = staging_pieces(chunk);

	for (size_t i = 0; i < chunk->count; ++i)
		if (pieces[i].address == address)
			return &pieces[i];
	return NULL;
}

void staging_drop(uintptr_t address)
{
	for (struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next) {
		struct text_write *piece = staging_find(chunk, address);

		if (piece == NULL)
			continue;
		*piece = *staging_pieces(chunk);
		if (--chunk->count == 0)
			chunk->used = 0;
		return;
	}
}

/* After a failure all pieces are still there, and the next flush writes them all again, which does no harm. */
int staging_flush(void)
{
	int error = 0;

	/* Even with nothing staged: a pad's jump may be written to such a page next, by text_apply(). */
	staging_prefault();
	for (struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next) {
		struct text_write *pieces = staging_pieces(chunk);

		if (text_apply(pieces, chunk->count) == 0) {
			perf_tell(pieces, chunk->count);
			continue;
		}
		for (size_t i = 0; i < chunk->count && error == 0; ++i)
			error = pieces[i].error;
	}
	if (error == 0) {
		staging_empty();
		perf_told();
	}
	return error;
}
