/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hands out blocks. Who has one is told twice, by the block and by a word of the thread's static storage, so that both
 * are in agreement only while the thread lives. Blocks are never given back to the kernel.
 */
#include "base/thread_block.h"

#include "base/chunks.h"
#include "base/syscall.h"

#include <stdatomic.h>
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

static struct thread_slot first_slots[8];
static struct chunks thread_slots = {
	.first = { .count = ARRAY_SIZE(first_slots), .entries = first_slots },
	.entry_size = sizeof(struct thread_slot),
	.chunk_size = 16 * PAGE_SIZE,
};

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
static bool thread_block_take_free(void *entry, uintptr_t self)
{
	struct thread_slot *slot = entry;
	uintptr_t owner = atomic_load(&slot->owner);

	return (owner == 0 || owner == self) && thread_block_claim(slot, owner);
}

/*
 * The second look is at what nobody else can take: a new thread at the same storage may have taken the block behind
 * the first one.
 */
static bool thread_block_take_left(void *entry, uintptr_t unused)
{
	struct thread_slot *slot = entry;
	uintptr_t owner = atomic_load(&slot->owner);

	(void)unused;
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

static struct thread_slot *thread_block_get_slot(void)
{
	const uintptr_t self = (uintptr_t)&libpatch_thread_block;
	struct thread_slot *slot = chunks_find(&thread_slots, thread_block_take_free, self);

	if (slot == NULL)
		slot = chunks_find(&thread_slots, thread_block_take_left, 0);
	return slot != NULL ? slot : chunks_take(&thread_slots, thread_block_take_free, self);
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
	return chunks_bytes(&thread_slots);
}
