/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The heap: blocks of some fifty sizes, cut from chunks that the kernel gives. Chunks are never given back; blocks
 * above LARGE are mappings of their own, and are. No libc, no lock of its own.
 */
#include "base/heap.h"

#include "base/bug.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "base/thread_safety.h"

#include <string.h>
#include <sys/mman.h>

/* What the heap grows by. */
#define CHUNK (256 * 1024UL)
/* The largest block that is cut from a chunk. */
#define LARGE 8192UL
/* From this size of the heap on, the pages of a new chunk are populated when it is mapped. */
#define POPULATE_FROM (4 * CHUNK)
/* A large page of the processor, and the size of the heap from which on it grows by large pages. */
#define HUGE (2UL << 20)
#define HUGE_FROM (4 * HUGE)

/* Size classes: multiples of 8 up to 256, then four per power of two. */
#define STEP 8UL
#define FINE 256UL
#define CLASSES 56

struct free_block {
	struct free_block *next;
};

static struct free_block *free_blocks[CLASSES];
static uint8_t *chunk;
static size_t chunk_left;

/*
 * A slab is the part of a chunk that blocks of one class are cut from; each is twice as large as the slab before it. So
 * objects of one kind lie side by side, and a pass over the objects of many patches finds them in the cache.
 */
#define SLAB_MAX (64 * 1024UL)
static struct slab {
	uint8_t *next; /* the next block */
	size_t left;   /* bytes from there to the slab's end */
	size_t size;   /* of the whole slab */
} slabs[CLASSES];

/* The class of a size; *rounded is the size that blocks of that class have. */
static unsigned int heap_size_class(size_t size, size_t *rounded)
{
	size_t step = STEP;
	size_t limit = FINE;
	unsigned int base = 0;

	if (size == 0)
		size = 1;
	while (size > limit) {
		base += limit == FINE ? FINE / STEP - 4 : 4;
		limit *= 2;
		step = limit / 8;
	}
	*rounded = ALIGN_UP(size, step);
	return base + (unsigned int)(*rounded / step);
}

static uint64_t mapped;
static uint64_t in_use;
static uint64_t lost;

/*
 * Mappings that the kernel refused to unmap: to cut one in two, it needs one more, and their number has a limit.
 * heap_tidy() tries again. A mapping for which there is no room here stays mapped for good, and is counted in `lost`.
 */
#define REFUSED 64
static struct {
	uintptr_t address;
	size_t size;
} refused[REFUSED];

static long refusal;

uint64_t heap_lost(void)
{
	return lost;
}

void heap_note_refusal(long error)
{
	refusal = error;
}

long heap_take_refusal(void)
{
	long taken = refusal;

	refusal = 0;
	return taken;
}

uint64_t heap_in_use(void)
{
	return in_use;
}

static bool heap_try_unmap(uintptr_t address, size_t size)
{
	return raw_syscall(SYS_munmap, address, size) == 0;
}

void heap_unmap(uintptr_t address, size_t size)
{
	size = ALIGN_UP(size, PAGE_SIZE);
	if (heap_try_unmap(address, size))
		return;
	for (size_t i = 0; i < REFUSED; ++i) {
		if (refused[i].size != 0)
			continue;
		refused[i].address = address;
		refused[i].size = size;
		return;
	}
	lost += size;
}

void heap_tidy(void)
{
	for (size_t i = 0; i < REFUSED; ++i)
		if (refused[i].size != 0 && heap_try_unmap(refused[i].address, refused[i].size))
			refused[i].size = 0;
}

uint64_t heap_mapped(void)
{
	return mapped;
}

static void *heap_map_pages(size_t size, int flags)
{
	long result;

	if (INJECT(INJECT_MMAP))
		return NULL;
	result = raw_syscall(SYS_mmap, NULL, ALIGN_UP(size, PAGE_SIZE), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (result < 0) {
		heap_note_refusal(result);
		return NULL;
	}
	mapped += ALIGN_UP(size, PAGE_SIZE);
	return (void *)result;
}

void *heap_map(size_t size)
{
	return heap_map_pages(size, 0);
}

void heap_disown(size_t size)
{
	mapped -= ALIGN_UP(size, PAGE_SIZE);
}

/* A hint, for systems that give large pages to programs that ask (transparent_hugepage/enabled is madvise). */
static void heap_want_huge(uintptr_t address, size_t size)
{
	raw_syscall(SYS_madvise, address, size, MADV_HUGEPAGE);
}

/* Map a large page at an address that is a multiple of its size: map more, and give back the parts around it. */
static void *heap_map_huge(void)
{
	const size_t size = 2 * HUGE - PAGE_SIZE;
	uintptr_t wide = (uintptr_t)heap_map_pages(size, 0);
	uintptr_t huge = ALIGN_UP(wide, HUGE);

	if (wide == 0)
		return NULL;
	heap_disown(size - HUGE);
	if (huge > wide)
		heap_unmap(wide, huge - wide);
	if (huge + HUGE < wide + size)
		heap_unmap(huge + HUGE, wide + size - (huge + HUGE));
	heap_want_huge(huge, HUGE);
	return (void *)huge;
}

/*
 * A program that has filled several chunks will fill the next one: to populate it at once costs a fraction of a page
 * fault for each page. And a commit of many patches goes through all of them, each on another page, of which the TLB
 * holds few unless pages are large.
 */
static uint8_t *heap_map_chunk(size_t *size)
{
	long before = refusal;
	uint8_t *huge = mapped >= HUGE_FROM ? heap_map_huge() : NULL;

	/* That there was no large page is no refusal: a chunk of small pages will do. */
	refusal = before;
	*size = huge != NULL ? HUGE : CHUNK;
	return huge != NULL ? huge : heap_map_pages(CHUNK, mapped >= POPULATE_FROM ? MAP_POPULATE : 0);
}

static bool heap_refill(struct slab *slab, size_t block)
{
	if (chunk_left < block) {
		size_t size;
		uint8_t *fresh = heap_map_chunk(&size);

		if (fresh == NULL)
			return false;
		chunk = fresh;
		chunk_left = size;
	}
	slab->size = MAX(MIN(MIN(2 * slab->size, SLAB_MAX), chunk_left) / block, (size_t)1) * block;
	slab->next = chunk;
	slab->left = slab->size;
	chunk += slab->size;
	chunk_left -= slab->size;
	return true;
}

void *heap_alloc(size_t size)
{
	unsigned int class;
	size_t rounded;
	void *block;

	LOCK_ASSERT_HELD();
	if (INJECT(INJECT_ALLOC))
		return NULL;
	if (size > LARGE) {
		block = heap_map(size);
		if (block != NULL && size >= 2 * HUGE)
			heap_want_huge((uintptr_t)block, ALIGN_UP(size, PAGE_SIZE));
		in_use += block != NULL ? ALIGN_UP(size, PAGE_SIZE) : 0;
		return block;
	}

	class = heap_size_class(size, &rounded);
	if (free_blocks[class] != NULL) {
		block = free_blocks[class];
		free_blocks[class] = free_blocks[class]->next;
		memset(block, 0, rounded);
		in_use += rounded;
		return block;
	}
	if (slabs[class].left < rounded && !heap_refill(&slabs[class], rounded))
		return NULL;
	block = slabs[class].next;
	slabs[class].next += rounded;
	slabs[class].left -= rounded;
	in_use += rounded;
	return block;
}

void heap_free(void *block, size_t size)
{
	struct free_block *freed = block;
	unsigned int class;
	size_t rounded;

	LOCK_ASSERT_HELD();
	if (block == NULL)
		return;
	if (size > LARGE) {
		heap_unmap((uintptr_t)block, size);
		mapped -= ALIGN_UP(size, PAGE_SIZE);
		in_use -= ALIGN_UP(size, PAGE_SIZE);
		return;
	}
	class = heap_size_class(size, &rounded);
	BUG_ON_RETURN(in_use < rounded);
	in_use -= rounded;
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

bool heap_reserve(void *items, size_t *room, size_t count, size_t size)
{
	size_t grown = MAX(MAX(*room * 2, count), (size_t)64);
	void *block;

	if (count <= *room)
		return true;
	memcpy(&block, items, sizeof(block));
	block = heap_grow(block, *room * size, grown * size);
	if (block == NULL)
		return false;
	memcpy(items, &block, sizeof(block));
	*room = grown;
	return true;
}
