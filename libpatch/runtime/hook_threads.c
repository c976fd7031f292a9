/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hook's side of the table of threads: a thread's first hook enters the thread, and a hook that meets another one
 * decides whether it may run. Wherever a hook may be: no libc, no lock, general registers only. Nothing here looks at
 * other threads.
 */
#include "runtime/hook_threads.h"

#include "arch/thread_pointer.h"
#include "arch/x86_64/hook_frame.h"
#include "base/syscall.h"
#include "runtime/hook_guard.h"
#include "runtime/own_stack.h"
#include "runtime/shadow.h"
#include "runtime/thread_table.h"
#include "sys/process.h"

#include <signal.h>
#include <stdatomic.h>

TLS_INITIAL_EXEC struct hook_guard libpatch_hook_guard = {
	.guard = GUARD_UNKNOWN,
	.shadow = &libpatch_shadow_none,
	.own = (struct own_stack *)(uintptr_t)&libpatch_own_none,
};

static struct thread_entry first_entries[128];
struct chunks libpatch_threads = {
	.first = { .count = ARRAY_SIZE(first_entries), .entries = first_entries },
	.entry_size = sizeof(struct thread_entry),
	.chunk_size = 4 * PAGE_SIZE,
};
_Atomic uint64_t libpatch_hook_threads_missed;

union thread_era libpatch_thread_era __attribute__((aligned(PAGE_SIZE)));

static bool hook_threads_claim(struct thread_entry *entry, uintptr_t before, uintptr_t self)
{
	if (!atomic_compare_exchange_strong(&entry->thread, &before, self))
		return false;
	atomic_store(&entry->era, atomic_load(&libpatch_thread_era.era));
	return true;
}

/* Of a thread that had the same storage and is gone, or of this one: a handler has interrupted its registration. */
static bool hook_threads_claim_same(void *entry, uintptr_t self)
{
	uintptr_t thread = atomic_load(&((struct thread_entry *)entry)->thread);

	/* Against the scanner, who doubts it at this moment: it looks once more before it takes it away. */
	return (thread & ~THREAD_DOUBTED) == self && hook_threads_claim(entry, thread, self);
}

static bool hook_threads_claim_free(void *entry, uintptr_t self)
{
	return atomic_load(&((struct thread_entry *)entry)->thread) == 0 && hook_threads_claim(entry, 0, self);
}

bool hook_threads_in_handler_above(uintptr_t guard)
{
	stack_t stack;

	if (raw_syscall(SYS_sigaltstack, NULL, &stack) != 0 || !(stack.ss_flags & SS_ONSTACK))
		return false;
	return guard - (uintptr_t)stack.ss_sp >= stack.ss_size;
}

/*
 * A frame that does not lie below the stack pointer's is none any more, unless this is another stack: a handler's, or
 * that of a child that shares the parent's memory, while the parent waits in what is perhaps a procedure.
 */
static bool hook_threads_frame_is_gone(uintptr_t guard)
{
	return !hook_threads_in_handler_above(guard) && !process_is_borrowed();
}

/*
 * Is a hook with its frame at `guard` not above this place, on the same stack? What is on the thread's own stack says
 * nothing of who is on another one.
 */
static bool hook_threads_left(uintptr_t guard, uintptr_t place, uintptr_t overlap)
{
	if (own_stack_is_own(guard) && !own_stack_is_own(place))
		return true;
	return place >= guard - overlap;
}

/*
 * Where the program's stack pointer is below which a frame would be, if it were below it; the frame itself, when it is
 * below others on the thread's own stack.
 */
static uintptr_t hook_threads_place(uintptr_t base)
{
	const uintptr_t above = arch_hook_stack_pointer(base);

	return own_stack_is_own(above) ? base : above - ARCH_HOOK_FRAME_TOTAL;
}

bool hook_threads_may_run(uintptr_t guard, uintptr_t base)
{
	own_stack_adopt();
	if (guard == GUARD_UNKNOWN) {
		uintptr_t self = arch_thread_pointer();

		if (chunks_find(&libpatch_threads, hook_threads_claim_same, self) != NULL ||
		    chunks_take(&libpatch_threads, hook_threads_claim_free, self) != NULL)
			return true;
		atomic_fetch_add(&libpatch_hook_threads_missed, 1);
		return false;
	}
	base = hook_threads_place(base);
	/* Above this frame: running, but for one that this frame overlaps. */
	if (!hook_threads_left(guard, base, ARCH_HOOK_FRAME_TOTAL) ||
	    ((base >= guard || own_stack_is_own(guard)) && !hook_threads_frame_is_gone(guard)))
		return false;
	libpatch_hook_guard.guard = 0;
	put_off_abandon();
	return true;
}

uintptr_t hook_threads_own_guard(void)
{
	uintptr_t guard = libpatch_hook_guard.guard;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	if (guard == 0 || !hook_threads_left(guard, here, 0))
		return guard;
	return hook_threads_frame_is_gone(guard) ? 0 : guard;
}
