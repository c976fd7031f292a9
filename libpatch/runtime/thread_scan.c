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
#include "sys/process.h"

#include <errno.h>
#include <sys/mman.h>
#include <string.h>
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
	for (struct thread_chunk *chunk = &libpatch_first_threads; chunk != NULL; chunk = atomic_load(&chunk->next)) {
		for (size_t i = 0; i < chunk->count; ++i) {
			struct thread_entry *entry = &chunk->entries[i];
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

/*
 * Where the guard is, then the pairs. A record goes from the first hook's frame into a pair, and other hooks may run in
 * a frame at the same address before the second hook takes it from there. So a thread's guard is read first, then the
 * record in the frame, then the pairs: whatever has left the frame by then is in them, unless it is done.
 */
#define GUARD_SIZE offsetof(struct hook_guard, pairs)
#define PAIRS_SIZE (sizeof(struct hook_guard) - GUARD_SIZE)

static intptr_t thread_scan_guard_offset(void)
{
	return (intptr_t)((uintptr_t)&libpatch_hook_guard - arch_thread_pointer());
}

/* The thread's guard and pairs. Its memory may have been given back, and may have been used again since. */
static enum thread_life thread_scan_read_guard(uintptr_t thread, struct hook_guard *guard)
{
	const uintptr_t at = thread + (uintptr_t)thread_scan_guard_offset();
	uintptr_t self;
	int error;

	if (mem_read(thread, &self, sizeof(self), &error) != sizeof(self) ||
	    mem_read(at, guard, GUARD_SIZE, &error) != GUARD_SIZE ||
	    mem_read(at + GUARD_SIZE, guard->pairs, PAIRS_SIZE, &error) != PAIRS_SIZE)
		return error == EFAULT ? THREAD_GONE : THREAD_UNREADABLE;
	return self == thread ? THREAD_LIVES : THREAD_GONE;
}

/* The base of the frame of the thread's hook; 0: it is in none. */
static uintptr_t thread_scan_frame(const struct hook_guard *state)
{
	uintptr_t guard = state->guard == GUARD_INSIDE ? state->saved : state->guard;

	return guard == GUARD_UNKNOWN ? 0 : guard;
}

static void thread_scan_visit_pairs(const struct hook_pair pairs[HOOK_PAIRS], hook_threads_visit_fn *visit, void *data)
{
	for (size_t i = 0; i < HOOK_PAIRS; ++i)
		if (pairs[i].record != 0)
			visit(pairs[i].record, data);
}

/* The thread's pairs, behind what is in its frame. False: could not be read. */
static bool thread_scan_read_pairs(uintptr_t thread, struct hook_guard *state, hook_threads_visit_fn *visit, void *data)
{
	enum thread_life life = thread_scan_read_guard(thread, state);

	if (life == THREAD_LIVES)
		thread_scan_visit_pairs(state->pairs, visit, data);
	return life != THREAD_UNREADABLE;
}

/*
 * Take a thread that is gone out of the table. Meanwhile a new one may have got the same storage, found the entry, and
 * relied on it: so doubt, look once more, and only then take it, if nobody has claimed it against the doubt.
 */
static void thread_scan_drop(struct thread_entry *entry, uintptr_t thread)
{
	uintptr_t doubted = thread | THREAD_DOUBTED;
	struct hook_guard guard;

	if (!atomic_compare_exchange_strong(&entry->thread, &thread, doubted))
		return;
	if (thread_scan_read_guard(doubted & ~THREAD_DOUBTED, &guard) == THREAD_GONE) {
		atomic_store(&entry->era, 0);
		atomic_compare_exchange_strong(&entry->thread, &doubted, 0);
	} else {
		atomic_compare_exchange_strong(&entry->thread, &doubted, doubted & ~THREAD_DOUBTED);
	}
}

/* A hook between its guard and its record is soon past it, if it runs. */
#define LOOKS 3

/* False: could not be read. */
static bool thread_scan_visit(struct thread_entry *entry, hook_threads_visit_fn *visit, void *data)
{
	uintptr_t thread = atomic_load(&entry->thread) & ~THREAD_DOUBTED;

	for (int i = 0; thread != 0 && i < LOOKS; ++i) {
		struct hook_guard state;
		uintptr_t record = 0;
		uintptr_t guard;
		int error;

		switch (thread_scan_read_guard(thread, &state)) {
		case THREAD_GONE:
			thread_scan_drop(entry, thread);
			return true;
		case THREAD_UNREADABLE:
			return false;
		default:
			break;
		}
		thread_scan_visit_pairs(state.pairs, visit, data);
		guard = thread_scan_frame(&state);
		if (guard == 0)
			return true;
		if (mem_read(guard + ARCH_HOOK_FRAME_RECORD, &record, sizeof(record), &error) != sizeof(record)) {
			/* The stack is gone, and nobody returns into it. */
			if (error == EFAULT)
				return true;
			return false;
		}
		if (!thread_scan_read_pairs(thread, &state, visit, data))
			return false;
		if (record != 0 || i + 1 == LOOKS) {
			visit(record, data);
			return true;
		}
	}
	return true;
}

void hook_threads_visit_own(hook_threads_visit_fn *visit, void *data)
{
	uintptr_t guard = thread_scan_frame(&libpatch_hook_guard);
	uintptr_t record;
	int error;

	thread_scan_visit_pairs(libpatch_hook_guard.pairs, visit, data);
	if (guard != 0 &&
	    mem_read(guard + ARCH_HOOK_FRAME_RECORD, &record, sizeof(record), &error) == sizeof(record) && record != 0)
		visit(record, data);
}

/*
 * Many at once, as each call of the kernel costs more than what it reads. Entries about which there is anything to say
 * that needs another look are visited one by one.
 */
#define GROUP 32

static struct {
	struct thread_entry *entries[GROUP];
	uintptr_t at[GROUP];
	uintptr_t selves[GROUP];
	struct hook_guard guards[GROUP];
	uintptr_t records[GROUP];
	struct hook_pair pairs[GROUP][HOOK_PAIRS];
	uintptr_t pairs_at[GROUP];
	size_t count;
} group GUARDED_BY(library_lock);

/* Of each, what is at group.at: first `head` bytes, then `tail` more. */
static bool thread_scan_read_all(void *buffer, size_t head, size_t tail) REQUIRES(library_lock)
{
	struct iovec local = { buffer, (head + tail) * group.count };
	static struct iovec remote[2 * GROUP] GUARDED_BY(library_lock);

	for (size_t i = 0; i < group.count; ++i) {
		remote[2 * i] = (struct iovec){ (void *)group.at[i], head };
		remote[2 * i + 1] = (struct iovec){ (void *)(group.at[i] + head), tail };
	}
	return group.count == 0 || raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, remote,
					       2 * group.count, 0) == (long)local.iov_len;
}

/* Keep those that may be in a hook, with the places of their records. False: something is not as it was. */
static bool thread_scan_read_guards(hook_threads_visit_fn *visit, void *data) REQUIRES(library_lock)
{
	size_t kept = 0;

	for (size_t i = 0; i < group.count; ++i)
		group.at[i] = atomic_load(&group.entries[i]->thread) & ~THREAD_DOUBTED;
	if (!thread_scan_read_all(group.selves, sizeof(group.selves[0]), 0))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		if (group.selves[i] != group.at[i])
			return false;
		group.at[i] += (uintptr_t)thread_scan_guard_offset();
	}
	if (!thread_scan_read_all(group.guards, GUARD_SIZE, PAIRS_SIZE))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		uintptr_t guard = thread_scan_frame(&group.guards[i]);

		thread_scan_visit_pairs(group.guards[i].pairs, visit, data);
		if (guard == 0)
			continue;
		group.entries[kept] = group.entries[i];
		group.pairs_at[kept] = group.at[i] + GUARD_SIZE;
		group.at[kept++] = guard + ARCH_HOOK_FRAME_RECORD;
	}
	group.count = kept;
	return true;
}

/* Of those that are in a hook: what is in the frame, and behind that the pairs. */
static bool thread_scan_read_records(hook_threads_visit_fn *visit, void *data) REQUIRES(library_lock)
{
	if (!thread_scan_read_all(group.records, sizeof(group.records[0]), 0))
		return false;
	memcpy(group.at, group.pairs_at, sizeof(group.at));
	if (!thread_scan_read_all(group.pairs, sizeof(group.pairs[0]), 0))
		return false;
	for (size_t i = 0; i < group.count; ++i)
		thread_scan_visit_pairs(group.pairs[i], visit, data);
	return true;
}

static bool thread_scan_visit_group(hook_threads_visit_fn *visit, void *data) REQUIRES(library_lock)
{
	bool known = thread_scan_read_guards(visit, data) && thread_scan_read_records(visit, data);
	bool complete = true;

	for (size_t i = 0; i < group.count; ++i) {
		if (known && group.records[i] != 0)
			visit(group.records[i], data);
		else
			complete &= thread_scan_visit(group.entries[i], visit, data);
	}
	group.count = 0;
	return complete;
}

bool hook_threads_visit(hook_threads_visit_fn *visit, void *data)
{
	bool complete = true;

	thread_scan_notice_fork();
	for (struct thread_chunk *chunk = &libpatch_first_threads; chunk != NULL; chunk = atomic_load(&chunk->next)) {
		for (size_t i = 0; i < chunk->count; ++i) {
			if (atomic_load(&chunk->entries[i].thread) != 0)
				group.entries[group.count++] = &chunk->entries[i];
			if (group.count == GROUP)
				complete &= thread_scan_visit_group(visit, data);
		}
	}
	complete &= thread_scan_visit_group(visit, data);
	return complete;
}

void hook_threads_usage(struct hook_threads_usage *usage)
{
	usage->known = 0;
	usage->missed = atomic_load(&libpatch_hook_threads_counts.missed);
	usage->bytes = atomic_load(&libpatch_hook_threads_counts.mapped);
	for (struct thread_chunk *chunk = &libpatch_first_threads; chunk != NULL; chunk = atomic_load(&chunk->next))
		for (size_t i = 0; i < chunk->count; ++i)
			usage->known += atomic_load(&chunk->entries[i].thread) != 0;
}
