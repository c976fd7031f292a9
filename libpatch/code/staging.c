/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: generated code that nobody can be led to yet is collected, and written many pieces at a time. What can be run is
 * changed by text_apply() alone.
 */
#include "sys/text.h"

#include "base/heap.h"
#include "base/inject.h"

#include <string.h>

struct text_staged {
	struct text_staged *next;
	uintptr_t address;
	uint32_t length;
	uint8_t bytes[];
};

/* Staged bytes are many, and all go at the same time. */
#define CHUNK (256 * 1024UL)

struct chunk {
	struct chunk *next;
	size_t used;
	uint8_t bytes[];
};

static struct chunk *chunks;
static struct text_staged *staged_list;
static size_t staged_count;

/* Pages of which nothing is written yet, but staged at most. Those that are too many go without. */
static struct pages {
	uintptr_t lower;
	uintptr_t upper;
} fresh[512];
static size_t fresh_count;

static void *chunk_alloc(size_t size)
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

/* All but the last, which is begun anew. */
static void free_chunks(void)
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

bool text_stage(uintptr_t address, const void *bytes, uint32_t length)
{
	struct text_staged *staged;

	if (INJECT(INJECT_ALLOC))
		return false;
	/* Nobody can be led there yet, so any time will do. What fails is tried again by whoever needs it. */
	if (chunks != NULL && CHUNK - sizeof(*chunks) - chunks->used < ALIGN_UP(sizeof(*staged) + length, sizeof(void *)))
		(void)text_flush();
	staged = chunk_alloc(sizeof(*staged) + length);
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

/* Code is laid out page after page, with pads elsewhere in between. */
void text_stage_page(uintptr_t page)
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

static void touch_fresh(void)
{
	for (size_t i = 0; i < fresh_count; ++i)
		text_touch(fresh[i].lower, fresh[i].upper);
	fresh_count = 0;
}

/* As a rule there is one chunk at most, and it is the last. */
void text_unstage(uintptr_t address)
{
	struct text_staged **link = &staged_list;

	while (*link != NULL && (*link)->address != address)
		link = &(*link)->next;
	if (*link == NULL)
		return;
	*link = (*link)->next;
	if (--staged_count == 0)
		free_chunks();
}

/* Piecewise, so that it needs no memory. One that failed is in the list still, with all others: written twice is as once. */
int text_flush(void)
{
	static struct text_write writes[8192];
	size_t n = 0;
	int error = 0;

	/* Also for who writes there next by other means. */
	touch_fresh();
	if (staged_count == 0)
		return 0;
	for (struct text_staged *staged = staged_list; staged != NULL; staged = staged->next) {
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
	free_chunks();
	return 0;
}
