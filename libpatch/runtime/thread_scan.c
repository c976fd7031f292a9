/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scanner's side of the table of threads: which record each thread uses, read from memory that may go away, and
 * threads that are gone taken out. With the library lock held; no thread is stopped or waited for.
 */
#include "runtime/hook_threads.h"

#include "arch/thread_pointer.h"
#include "arch/x86_64/hook_frame.h"
#include "base/syscall.h"
#include "base/thread_safety.h"
#include "runtime/hook_guard.h"
#include "runtime/thread_table.h"
#include "sys/mem_read.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

static uint64_t last_era;

void hook_threads_init(void)
{
	if (last_era != 0)
		return;
	/* Kernels before 4.14 have no such thing: then only fork() through libc is noticed. */
	raw_syscall(SYS_madvise, &libpatch_thread_era, sizeof(libpatch_thread_era), MADV_WIPEONFORK);
	atomic_store(&libpatch_thread_era.era, ++last_era);
}

void hook_threads_forget_others(void)
{
	uintptr_t self = arch_thread_pointer();

	if (last_era == 0)
		return;
	++last_era;
	for_each_in_chunks(struct thread_entry, entry, &libpatch_threads) {
		uintptr_t thread = atomic_load(&entry->thread);

		/* Era 0: a thread that the child has started. */
		if (thread == 0)
			continue;
		if ((thread & ~THREAD_DOUBTED) == self || atomic_load(&entry->era) == 0) {
			atomic_store(&entry->era, last_era);
		} else {
			atomic_store(&entry->era, 0);
			atomic_store(&entry->thread, 0);
		}
	}
	atomic_store(&libpatch_thread_era.era, last_era);
}

/* A child of a fork() that libc knows nothing of. Only the thread that is left of the parent's may tell who is not. */
static void thread_scan_notice_fork(void)
{
	if (atomic_load(&libpatch_thread_era.era) == 0 && raw_syscall(SYS_gettid) == raw_syscall(SYS_getpid))
		hook_threads_forget_others();
}

enum thread_life { THREAD_LIVES, THREAD_GONE, THREAD_UNREADABLE };

/* A thread's storage, and where it says which hook it is in. */
struct thread_look {
	uintptr_t self;
	struct {
		uintptr_t guard;
		uintptr_t saved;
	} state;
};
_Static_assert(offsetof(struct hook_guard, guard) == 0 && offsetof(struct hook_guard, saved) == sizeof(uintptr_t),
	       "as in struct thread_look");

/* Of the frame of a hook. */
struct thread_frame {
	uintptr_t record;
	uint32_t error_number;
	uint32_t current;
};
_Static_assert(ARCH_HOOK_FRAME_CURRENT == ARCH_HOOK_FRAME_RECORD + offsetof(struct thread_frame, current),
	       "as in a frame");

static uintptr_t thread_scan_guard_at(uintptr_t thread)
{
	return thread + ((uintptr_t)&libpatch_hook_guard - arch_thread_pointer());
}

static uintptr_t thread_scan_pair_at(uintptr_t thread)
{
	return thread_scan_guard_at(thread) + offsetof(struct hook_guard, pair);
}

/* Where it says which block it has. */
static uintptr_t thread_scan_block_at(uintptr_t thread)
{
	return thread + ((uintptr_t)&libpatch_thread_block - arch_thread_pointer());
}

/* Pairs, and where the others are. */
struct thread_pairs {
	struct hook_pair first;
	const struct thread_block *block;
};

/* The thread's memory may have been given back, and may have been used again since. */
static enum thread_life thread_scan_look(uintptr_t thread, struct thread_look *look)
{
	int error;

	if (mem_read(thread, &look->self, sizeof(look->self), &error) != sizeof(look->self) ||
	    mem_read(thread_scan_guard_at(thread), &look->state, sizeof(look->state), &error) != sizeof(look->state))
		return error == EFAULT ? THREAD_GONE : THREAD_UNREADABLE;
	return look->self == thread ? THREAD_LIVES : THREAD_GONE;
}

/* The base of the frame of the thread's hook; 0: it is in none. */
static uintptr_t thread_scan_frame(const struct thread_look *look)
{
	uintptr_t guard = look->state.guard == GUARD_INSIDE ? look->state.saved : look->state.guard;

	return guard == GUARD_UNKNOWN ? 0 : guard;
}

static void thread_scan_visit_frame(const struct thread_frame *frame, hook_threads_visit_fn *visit, void *data)
{
	visit(&(struct hook_use){ .record = frame->record, .current = frame->current }, data);
}

static void thread_scan_visit_pair(const struct hook_pair *pair, hook_threads_visit_fn *visit, void *data)
{
	if (pair->record != 0)
		visit(&(struct hook_use){ .record = pair->record, .called = pair->called }, data);
}

static void thread_scan_visit_pairs(const struct hook_pair pairs[HOOK_PAIRS], hook_threads_visit_fn *visit, void *data)
{
	for (size_t i = 0; i < HOOK_PAIRS; ++i)
		thread_scan_visit_pair(&pairs[i], visit, data);
}

/*
 * Take a thread that is gone out of the table. Meanwhile a new one may have got the same storage, found the entry, and
 * relied on it: so doubt, look once more, and only then take it, if nobody has claimed it against the doubt.
 */
static void thread_scan_drop(struct thread_entry *entry, uintptr_t thread)
{
	uintptr_t doubted = thread | THREAD_DOUBTED;
	struct thread_look look;

	if (!atomic_compare_exchange_strong(&entry->thread, &thread, doubted))
		return;
	if (thread_scan_look(doubted & ~THREAD_DOUBTED, &look) == THREAD_GONE) {
		atomic_store(&entry->era, 0);
		atomic_compare_exchange_strong(&entry->thread, &doubted, 0);
	} else {
		atomic_compare_exchange_strong(&entry->thread, &doubted, doubted & ~THREAD_DOUBTED);
	}
}

/*
 * The order of looking: the guard, the record in the frame, the pairs. A record goes from the first hook's frame into a
 * pair, and other hooks may run in a frame at the same address before the second hook takes it from there: whatever has
 * left the frame by the time that it is read is in the pairs, unless it is done. That holds for the block, too: the
 * thread has it before it notes a pair there.
 */

/* A hook between its guard and its record is soon past it, if it runs. */
#define LOOKS 3

/* False: could not be read. */
static bool thread_scan_visit(struct thread_entry *entry, hook_threads_visit_fn *visit, void *data)
{
	uintptr_t thread = atomic_load(&entry->thread) & ~THREAD_DOUBTED;

	for (int i = 0; thread != 0 && i < LOOKS; ++i) {
		struct thread_frame frame = { 0 };
		struct hook_pair first, pairs[HOOK_PAIRS];
		const struct thread_block *block;
		struct thread_look look;
		uintptr_t guard;
		int error;

		switch (thread_scan_look(thread, &look)) {
		case THREAD_GONE:
			thread_scan_drop(entry, thread);
			return true;
		case THREAD_UNREADABLE:
			return false;
		default:
			break;
		}
		guard = thread_scan_frame(&look);
		/* Of EFAULT: the stack is gone, and nobody returns into it. */
		if (guard != 0 &&
		    mem_read(guard + ARCH_HOOK_FRAME_RECORD, &frame, sizeof(frame), &error) != sizeof(frame)) {
			if (error != EFAULT)
				return false;
			guard = 0;
		}
		if (mem_read(thread_scan_pair_at(thread), &first, sizeof(first), &error) != sizeof(first) ||
		    mem_read(thread_scan_block_at(thread), &block, sizeof(block), &error) != sizeof(block))
			return error == EFAULT;
		thread_scan_visit_pair(&first, visit, data);
		if (block != NULL) {
			if (mem_read((uintptr_t)block->pairs, pairs, sizeof(pairs), &error) != sizeof(pairs))
				return error == EFAULT;
			thread_scan_visit_pairs(pairs, visit, data);
		}
		if (guard == 0)
			return true;
		if (frame.record != 0 || i + 1 == LOOKS) {
			thread_scan_visit_frame(&frame, visit, data);
			return true;
		}
	}
	return true;
}

void hook_threads_visit_own(hook_threads_visit_fn *visit, void *data)
{
	const struct thread_look look = { .state = { libpatch_hook_guard.guard, libpatch_hook_guard.saved } };
	const struct thread_block *block = thread_block_known();
	uintptr_t guard = thread_scan_frame(&look);
	struct thread_frame frame;
	int error;

	thread_scan_visit_pair(&libpatch_hook_guard.pair, visit, data);
	if (block != NULL)
		thread_scan_visit_pairs(block->pairs, visit, data);
	if (guard != 0 &&
	    mem_read(guard + ARCH_HOOK_FRAME_RECORD, &frame, sizeof(frame), &error) == sizeof(frame) &&
	    frame.record != 0)
		thread_scan_visit_frame(&frame, visit, data);
}

/*
 * Many at once, as each call of the kernel costs more than what it reads. Entries about which there is anything to say
 * that needs another look are visited one by one.
 */
#define GROUP 32

static struct {
	struct thread_entry *entries[GROUP];
	size_t count;
	struct iovec from[2 * GROUP]; /* what is to be read */
	size_t pieces;
	struct thread_look looks[GROUP];
	struct thread_frame frames[GROUP]; /* of those that are in a hook */
	struct thread_pairs pairs[GROUP];
	struct hook_pair in_blocks[GROUP][HOOK_PAIRS]; /* of those that have one */
} group GUARDED_BY(library_lock);

static void thread_scan_add(uintptr_t at, size_t size) REQUIRES(library_lock)
{
	group.from[group.pieces++] = (struct iovec){ (void *)at, size };
}

/* Read what was added, one behind the other, into the buffer. */
static bool thread_scan_read(void *buffer, size_t size) REQUIRES(library_lock)
{
	struct iovec local = { buffer, size };
	size_t pieces = group.pieces;

	group.pieces = 0;
	return pieces == 0 || raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, group.from, pieces,
					  0) == (long)size;
}

/* False: something is not as it was. */
static bool thread_scan_read_group(void) REQUIRES(library_lock)
{
	size_t in_hooks = 0, blocks = 0;

	for (size_t i = 0; i < group.count; ++i) {
		uintptr_t thread = atomic_load(&group.entries[i]->thread) & ~THREAD_DOUBTED;

		thread_scan_add(thread, sizeof(group.looks[i].self));
		thread_scan_add(thread_scan_guard_at(thread), sizeof(group.looks[i].state));
	}
	if (!thread_scan_read(group.looks, group.count * sizeof(group.looks[0])))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		uintptr_t guard = thread_scan_frame(&group.looks[i]);

		if (group.looks[i].self != (atomic_load(&group.entries[i]->thread) & ~THREAD_DOUBTED))
			return false;
		if (guard == 0)
			continue;
		thread_scan_add(guard + ARCH_HOOK_FRAME_RECORD, sizeof(group.frames[0]));
		++in_hooks;
	}
	if (!thread_scan_read(group.frames, in_hooks * sizeof(group.frames[0])))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		thread_scan_add(thread_scan_pair_at(group.looks[i].self), sizeof(group.pairs[i].first));
		thread_scan_add(thread_scan_block_at(group.looks[i].self), sizeof(group.pairs[i].block));
	}
	if (!thread_scan_read(group.pairs, group.count * sizeof(group.pairs[0])))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		if (group.pairs[i].block == NULL)
			continue;
		thread_scan_add((uintptr_t)group.pairs[i].block->pairs, sizeof(group.in_blocks[0]));
		++blocks;
	}
	return thread_scan_read(group.in_blocks, blocks * sizeof(group.in_blocks[0]));
}

static bool thread_scan_visit_group(hook_threads_visit_fn *visit, void *data) REQUIRES(library_lock)
{
	const struct thread_frame *frame = group.frames;
	const struct hook_pair(*in_block)[HOOK_PAIRS] = group.in_blocks;
	const bool known = thread_scan_read_group();
	bool complete = true;

	for (size_t i = 0; i < group.count; ++i) {
		const struct hook_pair *pairs = NULL;
		const struct thread_frame *own = NULL;

		if (known && thread_scan_frame(&group.looks[i]) != 0)
			own = frame++;
		if (known && group.pairs[i].block != NULL)
			pairs = *in_block++;
		if (!known || (own != NULL && own->record == 0)) {
			complete &= thread_scan_visit(group.entries[i], visit, data);
			continue;
		}
		thread_scan_visit_pair(&group.pairs[i].first, visit, data);
		if (pairs != NULL)
			thread_scan_visit_pairs(pairs, visit, data);
		if (own != NULL)
			thread_scan_visit_frame(own, visit, data);
	}
	group.count = 0;
	return complete;
}

bool hook_threads_visit(hook_threads_visit_fn *visit, void *data)
{
	bool complete = true;

	thread_scan_notice_fork();
	for_each_in_chunks(struct thread_entry, entry, &libpatch_threads) {
		if (atomic_load(&entry->thread) != 0)
			group.entries[group.count++] = entry;
		if (group.count == GROUP)
			complete &= thread_scan_visit_group(visit, data);
	}
	complete &= thread_scan_visit_group(visit, data);
	return complete;
}

void hook_threads_usage(struct hook_threads_usage *usage)
{
	usage->known = 0;
	usage->missed = atomic_load(&libpatch_hook_threads_missed);
	usage->bytes = chunks_bytes(&libpatch_threads);
	for_each_in_chunks(struct thread_entry, entry, &libpatch_threads)
		usage->known += atomic_load(&entry->thread) != 0;
}
