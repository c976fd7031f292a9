/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "heap.h"

#include "inject.h"

#include <string.h>
#include <sys/mman.h>

#define CHUNK (256 * 1024UL)
#define LARGE 8192UL

/* Size classes: 16, 32, 48, 64, then two per power of two. */
#define CLASSES 40

struct free_block {
	struct free_block *next;
};

static struct free_block *free_blocks[CLASSES];
static uint8_t *chunk;
static size_t chunk_left;

static unsigned int size_class(size_t size, size_t *rounded)
{
	size_t step = 16;
	size_t limit = 64;
	unsigned int base = 0;

	if (size == 0)
		size = 1;
	while (size > limit) {
		base += limit == 64 ? 4 : 2;
		limit *= 2;
		step = limit / 4;
	}
	*rounded = ALIGN_UP(size, step);
	return base + (unsigned int)(*rounded / step);
}

static uint64_t mapped;

uint64_t heap_mapped(void)
{
	return mapped;
}

void *heap_map(size_t size)
{
	long result;

	if (INJECT(INJECT_MMAP))
		return NULL;
	result = raw_syscall(SYS_mmap, NULL, ALIGN_UP(size, PAGE_SIZE), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (result < 0)
		return NULL;
	mapped += ALIGN_UP(size, PAGE_SIZE);
	return (void *)result;
}

void *heap_alloc(size_t size)
{
	unsigned int class;
	size_t rounded;
	void *block;

	if (size > LARGE)
		return heap_map(size);

	class = size_class(size, &rounded);
	if (free_blocks[class] != NULL) {
		block = free_blocks[class];
		free_blocks[class] = free_blocks[class]->next;
		memset(block, 0, rounded);
		return block;
	}
	if (chunk_left < rounded) {
		uint8_t *fresh = heap_map(CHUNK);

		if (fresh == NULL)
			return NULL;
		chunk = fresh;
		chunk_left = CHUNK;
	}
	block = chunk;
	chunk += rounded;
	chunk_left -= rounded;
	return block;
}

void heap_free(void *block, size_t size)
{
	struct free_block *freed = block;
	unsigned int class;
	size_t rounded;

	if (block == NULL)
		return;
	if (size > LARGE) {
		raw_syscall(SYS_munmap, block, ALIGN_UP(size, PAGE_SIZE));
		mapped -= ALIGN_UP(size, PAGE_SIZE);
		return;
	}
	class = size_class(size, &rounded);
	freed->next = free_blocks[class];
	free_blocks[class] = freed;
}

void *heap_grow(void *block, size_t old_size, size_t new_size)
{
	void *fresh = heap_alloc(new_size);

	if (fresh == NULL)
		return NULL;
	if (block != NULL)
		memcpy(fresh, block, MIN(old_size, new_size));
	heap_free(block, old_size);
	return fresh;
}
