/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaves of the shadow. Wherever a hook may be, in several threads at once: no libc, no lock, general registers only.
 */
#include "runtime/shadow.h"

#include "base/syscall.h"

#include <stdatomic.h>
#include <sys/mman.h>

const struct shadow_leaf libpatch_shadow_none = { .page = UINTPTR_MAX };

static _Atomic(struct shadow_leaf *) shadow_buckets[1 << 12];

/* Where leaves are taken from. What is left of a chunk when another one comes is lost. */
#define CHUNK_LEAVES 63
struct shadow_chunk {
	_Atomic size_t used;
	uint8_t unused[56];
	struct shadow_leaf leaves[CHUNK_LEAVES];
};
static _Atomic(struct shadow_chunk *) shadow_current;

static _Atomic(struct shadow_leaf *) *shadow_bucket(uintptr_t page)
{
	return &shadow_buckets[hash_index(page / PAGE_SIZE, ARRAY_SIZE(shadow_buckets))];
}

static struct shadow_leaf *shadow_search(struct shadow_leaf *leaf, uintptr_t page)
{
	while (leaf != NULL && leaf->page != page)
		leaf = leaf->next;
	return leaf;
}

/* False: the kernel has none. Another thread may have been faster. */
static bool shadow_add_chunk(struct shadow_chunk *full)
{
	long chunk = raw_syscall(SYS_mmap, NULL, sizeof(struct shadow_chunk), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (chunk < 0 && chunk > -4096)
		return atomic_load(&shadow_current) != full;
	if (!atomic_compare_exchange_strong(&shadow_current, &full, (struct shadow_chunk *)chunk))
		raw_syscall(SYS_munmap, chunk, sizeof(struct shadow_chunk));
	return true;
}

static struct shadow_leaf *shadow_take(void)
{
	for (;;) {
		struct shadow_chunk *chunk = atomic_load(&shadow_current);
		size_t index = chunk != NULL ? atomic_fetch_add(&chunk->used, 1) : CHUNK_LEAVES;

		if (index < CHUNK_LEAVES)
			return &chunk->leaves[index];
		if (!shadow_add_chunk(chunk))
			return NULL;
	}
}

static struct shadow_leaf *shadow_leaf_of(uintptr_t page)
{
	_Atomic(struct shadow_leaf *) *bucket = shadow_bucket(page);
	struct shadow_leaf *first = atomic_load(bucket);
	struct shadow_leaf *leaf = shadow_search(first, page), *mine;

	if (leaf != NULL)
		return leaf;
	mine = shadow_take();
	if (mine == NULL)
		return NULL;
	mine->page = page;
	do {
		/* Behind a handler on the same page, or a thread that got this stack from another one. */
		leaf = shadow_search(first, page);
		if (leaf != NULL)
			return leaf;
		mine->next = first;
	} while (!atomic_compare_exchange_weak(bucket, &first, mine));
	return mine;
}

bool shadow_find(uintptr_t stack_pointer)
{
	const struct shadow_leaf *leaf = shadow_leaf_of(ALIGN_DOWN(stack_pointer, PAGE_SIZE));

	if (leaf == NULL)
		return false;
	libpatch_hook_guard.shadow = leaf;
	return true;
}

void shadow_forget(uintptr_t stack_pointer)
{
	const uintptr_t page = ALIGN_DOWN(stack_pointer, PAGE_SIZE);
	struct shadow_leaf *leaf = shadow_search(atomic_load(shadow_bucket(page)), page);

	if (leaf != NULL)
		leaf->words[stack_pointer % PAGE_SIZE / sizeof(uint64_t)] = 0;
}

uint64_t *shadow_word(uintptr_t stack_pointer)
{
	struct shadow_leaf *leaf = shadow_leaf_of(ALIGN_DOWN(stack_pointer, PAGE_SIZE));

	return leaf != NULL ? &leaf->words[stack_pointer % PAGE_SIZE / sizeof(uint64_t)] : NULL;
}
