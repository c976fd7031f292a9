/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hands out blocks. Who has one is told twice, by the block and by a word of the thread's static storage, so that both
 * are in agreement only while the thread lives. Blocks are never given back to the kernel.
 */
#include "base/thread_block.h"

#include "base/syscall.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/uio.h>

/*
 * `owner`: the address of the thread's `libpatch_thread_block`; 0: nobody has the block. Its lowest bit is set while a
 * thread takes the block, or looks whether it may; only the thread that has set the bit changes `owner` then.
 */
struct thread_slot {
	_Atomic uintptr_t owner;
	struct thread_block block;
};
#define OWNER_BUSY ((uintptr_t)1)

struct thread_slots {
	struct thread_slots *_Atomic next;
	size_t count;
	struct thread_slot *slots;
};

#define FIRST_SLOTS 8
#define CHUNK_SIZE (16 * PAGE_SIZE)
#define CHUNK_SLOTS ((CHUNK_SIZE - sizeof(struct thread_slots)) / sizeof(struct thread_slot))

static struct thread_slot first_slots[FIRST_SLOTS];
static struct thread_slots first = { .count = FIRST_SLOTS, .slots = first_slots };

TLS_INITIAL_EXEC struct thread_block *_Atomic libpatch_thread_block;

/* Has the thread whose word this is another block, or none, or is it gone? */
static bool thread_block_is_left(uintptr_t owner, const struct thread_block *block)
{
	struct thread_block *its = NULL;
	struct iovec local = { &its, sizeof(its) };
	struct iovec remote = { (void *)owner, sizeof(its) };
	long size = raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, &remote, 1, 0);

	return size == (long)sizeof(its) ? its != block : size == -EFAULT;
}

static bool thread_block_claim(struct thread_slot *slot, uintptr_t owner)
{
	return atomic_compare_exchange_strong(&slot->owner, &owner, owner | OWNER_BUSY);
}

/* The block is free, or of a thread that had the same storage and is gone. */
static bool thread_block_take_free(struct thread_slot *slot)
{
	uintptr_t owner = atomic_load(&slot->owner);

	return (owner == 0 || owner == (uintptr_t)&libpatch_thread_block) && thread_block_claim(slot, owner);
}

/*
 * The second look is at what nobody else can take: a new thread at the same storage may have taken the block behind
 * the first one.
 */
static bool thread_block_take_left(struct thread_slot *slot)
{
	uintptr_t owner = atomic_load(&slot->owner);

	if ((owner & OWNER_BUSY) != 0 || !thread_block_is_left(owner, &slot->block))
		return false;
	(void)INJECT(INJECT_LEFT);
	if (!thread_block_claim(slot, owner))
		return false;
	if (thread_block_is_left(owner, &slot->block))
		return true;
	atomic_store(&slot->owner, owner);
	return false;
}

static struct thread_slot *thread_block_find(bool (*take)(struct thread_slot *slot))
{
	for (struct thread_slots *slots = &first; slots != NULL; slots = atomic_load(&slots->next))
		for (size_t i = 0; i < slots->count; ++i)
			if (take(&slots->slots[i]))
				return &slots->slots[i];
	return NULL;
}

/* False: the kernel has none. Another thread may have been faster. */
static bool thread_block_add_slots(void)
{
	struct thread_slots *last = &first, *expected = NULL, *slots;
	long result = -INJECT(INJECT_MMAP);

	if (result == 0)
		result = raw_syscall(SYS_mmap, NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				     -1, 0);
	if (result < 0)
		return false;
	slots = (struct thread_slots *)result;
	slots->count = CHUNK_SLOTS;
	slots->slots = (struct thread_slot *)(slots + 1);
	while (!atomic_compare_exchange_strong(&last->next, &expected, slots)) {
		last = expected;
		expected = NULL;
	}
	return true;
}

static struct thread_slot *thread_block_get_slot(void)
{
	struct thread_slot *slot = thread_block_find(thread_block_take_free);

	if (slot == NULL)
		slot = thread_block_find(thread_block_take_left);
	while (slot == NULL && thread_block_add_slots())
		slot = thread_block_find(thread_block_take_free);
	return slot;
}

struct thread_block *thread_block_known(void)
{
	return atomic_load_explicit(&libpatch_thread_block, memory_order_relaxed);
}

struct thread_block *thread_block(void)
{
	struct thread_block *known = thread_block_known();
	struct thread_slot *slot;

	if (known != NULL)
		return known;
	slot = thread_block_get_slot();
	if (slot == NULL)
		return NULL;
	/* A handler that has interrupted this may have got one, even this one: what it has put there stays. */
	if (thread_block_known() != &slot->block)
		slot->block = (struct thread_block){ 0 };
	if (!atomic_compare_exchange_strong(&libpatch_thread_block, &known, &slot->block) && known != &slot->block) {
		atomic_store(&slot->owner, 0);
		return known;
	}
	atomic_store(&slot->owner, (uintptr_t)&libpatch_thread_block);
	return &slot->block;
}

size_t thread_block_bytes(void)
{
	const struct thread_slots *slots = &first;
	size_t bytes = 0;

	while ((slots = atomic_load(&slots->next)) != NULL)
		bytes += CHUNK_SIZE;
	return bytes;
}
