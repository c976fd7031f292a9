/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "runtime/hook_threads.h"

#include "arch/thread_pointer.h"
#include "arch/x86_64/hook_frame.h"
#include "base/syscall.h"
#include "runtime/hook_guard.h"
#include "sys/mem_read.h"
#include "sys/process.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/uio.h>

TLS_INITIAL_EXEC struct hook_guard libpatch_hook_guard = { GUARD_UNKNOWN, 0 };

#define FIRST_SLOTS 128
#define CHUNK_SIZE (4 * PAGE_SIZE)
#define CHUNK_SLOTS ((CHUNK_SIZE - sizeof(struct chunk)) / sizeof(struct slot))

/*
 * `thread`: the address of the thread's storage (fs base), which its first word holds, too; 0: free; the lowest bit is set
 * while the scanner makes sure that the thread is gone. `era`: of the process that the thread registered in.
 */
struct slot {
	_Atomic uintptr_t thread;
	_Atomic uint64_t era;
};
#define DOUBTED ((uintptr_t)1)

struct chunk {
	struct chunk *_Atomic next;
	size_t count;
	struct slot *slots;
};

static struct slot first_slots[FIRST_SLOTS];
static struct chunk first = { .count = FIRST_SLOTS, .slots = first_slots };
static _Atomic uint64_t missed;
static _Atomic uint64_t mapped;

/*
 * Tells a child of fork(), by whatever means, from its parent, and not from a child that shares its memory: the kernel wipes
 * it in the former (MADV_WIPEONFORK). 0 there until the child has looked.
 */
static union {
	_Atomic uint64_t era;
	uint8_t page[PAGE_SIZE];
} wiped __attribute__((aligned(PAGE_SIZE)));
static uint64_t last_era;

/* ---- in hooks --------------------------------------------------------------------------------------------------- */

static struct chunk *add_chunk(struct chunk *last)
{
	struct chunk *expected = NULL;
	struct chunk *chunk;
	long result = raw_syscall(SYS_mmap, NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (result < 0)
		return NULL;
	chunk = (struct chunk *)result;
	chunk->count = CHUNK_SLOTS;
	chunk->slots = (struct slot *)(chunk + 1);
	if (!atomic_compare_exchange_strong(&last->next, &expected, chunk)) {
		raw_syscall(SYS_munmap, chunk, CHUNK_SIZE);
		return expected;
	}
	atomic_fetch_add(&mapped, CHUNK_SIZE);
	return chunk;
}

static bool claim(struct slot *slot, uintptr_t before, uintptr_t self)
{
	if (!atomic_compare_exchange_strong(&slot->thread, &before, self))
		return false;
	atomic_store(&slot->era, atomic_load(&wiped.era));
	return true;
}

/* Of a thread that had the same storage and is gone, or of this one: a handler has interrupted its registration. */
static bool claim_same(uintptr_t self)
{
	for (struct chunk *chunk = &first; chunk != NULL; chunk = atomic_load(&chunk->next)) {
		for (size_t i = 0; i < chunk->count; ++i) {
			struct slot *slot = &chunk->slots[i];
			uintptr_t thread = atomic_load(&slot->thread);

			/* Against the scanner, who doubts it at this moment: it looks once more before it takes it away. */
			if ((thread & ~DOUBTED) == self && claim(slot, thread, self))
				return true;
		}
	}
	return false;
}

static bool claim_free(uintptr_t self)
{
	for (struct chunk *chunk = &first;;) {
		struct chunk *next;

		for (size_t i = 0; i < chunk->count; ++i)
			if (atomic_load(&chunk->slots[i].thread) == 0 && claim(&chunk->slots[i], 0, self))
				return true;
		next = atomic_load(&chunk->next);
		chunk = next != NULL ? next : add_chunk(chunk);
		if (chunk == NULL)
			return false;
	}
}

/* Has a handler on the thread's signal stack, with its frame here, interrupted what is not on that stack? */
static bool is_in_handler_above(uintptr_t guard)
{
	stack_t stack;

	if (raw_syscall(SYS_sigaltstack, NULL, &stack) != 0 || !(stack.ss_flags & SS_ONSTACK))
		return false;
	return guard - (uintptr_t)stack.ss_sp >= stack.ss_size;
}

/*
 * A frame that does not lie below the stack pointer's is none any more, unless this is another stack: a handler's, or that of a
 * child that shares the parent's memory, while the parent waits in what is perhaps a procedure.
 */
static bool is_gone(uintptr_t guard)
{
	return !is_in_handler_above(guard) && !process_is_borrowed();
}

bool hook_threads_may_run(uintptr_t guard, uintptr_t base)
{
	if (guard == GUARD_UNKNOWN) {
		uintptr_t self = arch_thread_pointer();

		if (claim_same(self) || claim_free(self))
			return true;
		atomic_fetch_add(&missed, 1);
		return false;
	}
	/* Above this frame: running, but for one that this frame overlaps. */
	if (base < guard)
		return base >= guard - ARCH_HOOK_FRAME_TOTAL;
	return is_gone(guard);
}

/* ---- with the library lock held --------------------------------------------------------------------------------- */

uintptr_t hook_threads_own_guard(void)
{
	uintptr_t guard = libpatch_hook_guard.guard;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	if (guard == 0 || guard >= here)
		return guard;
	return is_gone(guard) ? 0 : guard;
}

void hook_threads_init(void)
{
	if (last_era != 0)
		return;
	/* Kernels before 4.14 have no such thing: then only fork() through libc is noticed. */
	raw_syscall(SYS_madvise, &wiped, sizeof(wiped), MADV_WIPEONFORK);
	atomic_store(&wiped.era, ++last_era);
}

void hook_threads_forget_others(void)
{
	uintptr_t self = arch_thread_pointer();

	if (last_era == 0)
		return;
	++last_era;
	for (struct chunk *chunk = &first; chunk != NULL; chunk = atomic_load(&chunk->next)) {
		for (size_t i = 0; i < chunk->count; ++i) {
			struct slot *slot = &chunk->slots[i];
			uintptr_t thread = atomic_load(&slot->thread);

			/* Era 0: a thread that the child has started. */
			if (thread == 0)
				continue;
			if ((thread & ~DOUBTED) == self || atomic_load(&slot->era) == 0) {
				atomic_store(&slot->era, last_era);
			} else {
				atomic_store(&slot->era, 0);
				atomic_store(&slot->thread, 0);
			}
		}
	}
	atomic_store(&wiped.era, last_era);
}

/* A child of a fork() that libc knows nothing of. Only the thread that is left of the parent's may tell who is not. */
static void notice_fork(void)
{
	if (atomic_load(&wiped.era) == 0 && raw_syscall(SYS_gettid) == raw_syscall(SYS_getpid))
		hook_threads_forget_others();
}

enum life { THREAD_LIVES, THREAD_GONE, THREAD_UNREADABLE };

/* The thread's guard. Its memory may have been given back, and may have been used again since. */
static enum life read_guard(uintptr_t thread, struct hook_guard *guard)
{
	const intptr_t offset = (intptr_t)((uintptr_t)&libpatch_hook_guard - arch_thread_pointer());
	uintptr_t self;
	int error;

	if (mem_read(thread, &self, sizeof(self), &error) != sizeof(self) ||
	    mem_read(thread + offset, guard, sizeof(*guard), &error) != sizeof(*guard))
		return error == EFAULT ? THREAD_GONE : THREAD_UNREADABLE;
	return self == thread ? THREAD_LIVES : THREAD_GONE;
}

/*
 * Take a thread that is gone out of the table. Meanwhile a new one may have got the same storage, found the slot, and relied
 * on it: so doubt, look once more, and only then take it, if nobody has claimed it against the doubt.
 */
static void drop(struct slot *slot, uintptr_t thread)
{
	uintptr_t doubted = thread | DOUBTED;
	struct hook_guard guard;

	if (!atomic_compare_exchange_strong(&slot->thread, &thread, doubted))
		return;
	if (read_guard(doubted & ~DOUBTED, &guard) == THREAD_GONE) {
		atomic_store(&slot->era, 0);
		atomic_compare_exchange_strong(&slot->thread, &doubted, 0);
	} else {
		atomic_compare_exchange_strong(&slot->thread, &doubted, doubted & ~DOUBTED);
	}
}

/* A hook between its guard and its record is soon past it, if it runs. */
#define LOOKS 3

/* False: could not be read. */
static bool visit_slot(struct slot *slot, hook_threads_visit_fn *visit, void *data)
{
	uintptr_t thread = atomic_load(&slot->thread) & ~DOUBTED;

	for (int i = 0; thread != 0 && i < LOOKS; ++i) {
		struct hook_guard state;
		uintptr_t record = 0;
		uintptr_t guard;
		int error;

		switch (read_guard(thread, &state)) {
		case THREAD_GONE:
			drop(slot, thread);
			return true;
		case THREAD_UNREADABLE:
			return false;
		default:
			break;
		}
		guard = state.guard == GUARD_INSIDE ? state.saved : state.guard;
		if (guard == 0 || guard == GUARD_UNKNOWN)
			return true;
		if (mem_read(guard + ARCH_HOOK_FRAME_RECORD, &record, sizeof(record), &error) != sizeof(record)) {
			/* The stack is gone, and nobody returns into it. */
			if (error == EFAULT)
				return true;
			return false;
		}
		if (record != 0 || i + 1 == LOOKS) {
			visit(record, data);
			return true;
		}
	}
	return true;
}

uintptr_t hook_threads_own_record(void)
{
	uintptr_t guard = libpatch_hook_guard.saved;
	uintptr_t record;
	int error;

	if (guard == 0 || guard == GUARD_UNKNOWN ||
	    mem_read(guard + ARCH_HOOK_FRAME_RECORD, &record, sizeof(record), &error) != sizeof(record))
		return 0;
	return record;
}

/*
 * Many at once, as each call of the kernel costs more than what it reads. Slots about which there is anything to say that needs
 * another look are visited one by one.
 */
#define GROUP 32

static struct {
	struct slot *slots[GROUP];
	uintptr_t at[GROUP];
	uintptr_t selves[GROUP];
	struct hook_guard guards[GROUP];
	uintptr_t records[GROUP];
	size_t count;
} group;

static bool read_all(void *buffer, size_t size)
{
	struct iovec local = { buffer, size * group.count };
	static struct iovec remote[GROUP];

	for (size_t i = 0; i < group.count; ++i) {
		remote[i].iov_base = (void *)group.at[i];
		remote[i].iov_len = size;
	}
	return group.count == 0 || raw_syscall(SYS_process_vm_readv, raw_syscall(SYS_gettid), &local, 1, remote, group.count,
					       0) == (long)local.iov_len;
}

/* Keep those that may be in a hook, with the places of their records. False: something is not as it was. */
static bool read_guards(void)
{
	const intptr_t offset = (intptr_t)((uintptr_t)&libpatch_hook_guard - arch_thread_pointer());
	size_t kept = 0;

	for (size_t i = 0; i < group.count; ++i)
		group.at[i] = atomic_load(&group.slots[i]->thread) & ~DOUBTED;
	if (!read_all(group.selves, sizeof(group.selves[0])))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		if (group.selves[i] != group.at[i])
			return false;
		group.at[i] += (uintptr_t)offset;
	}
	if (!read_all(group.guards, sizeof(group.guards[0])))
		return false;
	for (size_t i = 0; i < group.count; ++i) {
		const struct hook_guard *state = &group.guards[i];
		uintptr_t guard = state->guard == GUARD_INSIDE ? state->saved : state->guard;

		if (guard == 0 || guard == GUARD_UNKNOWN)
			continue;
		group.slots[kept] = group.slots[i];
		group.at[kept++] = guard + ARCH_HOOK_FRAME_RECORD;
	}
	group.count = kept;
	return true;
}

static bool visit_group(hook_threads_visit_fn *visit, void *data)
{
	bool known = read_guards() && read_all(group.records, sizeof(group.records[0]));
	bool complete = true;

	for (size_t i = 0; i < group.count; ++i) {
		if (known && group.records[i] != 0)
			visit(group.records[i], data);
		else
			complete &= visit_slot(group.slots[i], visit, data);
	}
	group.count = 0;
	return complete;
}

bool hook_threads_visit(hook_threads_visit_fn *visit, void *data)
{
	bool complete = true;

	notice_fork();
	for (struct chunk *chunk = &first; chunk != NULL; chunk = atomic_load(&chunk->next)) {
		for (size_t i = 0; i < chunk->count; ++i) {
			if (atomic_load(&chunk->slots[i].thread) != 0)
				group.slots[group.count++] = &chunk->slots[i];
			if (group.count == GROUP)
				complete &= visit_group(visit, data);
		}
	}
	complete &= visit_group(visit, data);
	return complete;
}

void hook_threads_usage(struct hook_threads_usage *usage)
{
	usage->known = 0;
	usage->missed = atomic_load(&missed);
	usage->bytes = atomic_load(&mapped);
	for (struct chunk *chunk = &first; chunk != NULL; chunk = atomic_load(&chunk->next))
		for (size_t i = 0; i < chunk->count; ++i)
			usage->known += atomic_load(&chunk->slots[i].thread) != 0;
}
