/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stacks are made here, noted and given back; own_stack_ask.S takes them. Wherever a hook may be, in several threads at
 * once: no libc, no lock, general registers only. No other thread is waited for, and no other thread's stack is
 * written.
 */
#include "runtime/own_stack.h"

#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "base/chunks.h"
#include "base/syscall.h"
#include "sys/mem_read.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* A frame of a signal with AVX-512 state takes 3 KiB, and with AMX tiles 11 KiB. */
#define OWN_STACK_SIZE (64UL << 10)
uintptr_t libpatch_own_size = OWN_STACK_SIZE;
struct own_stack *libpatch_own_spares[OWN_SPARES];

/* A second or more: whoever makes spare stacks may be preempted for as long as others wait. */
#define PATIENCE (1UL << 24)
uint64_t libpatch_own_patience;
uint64_t libpatch_own_missed;

#define GUARD_SIZE PAGE_SIZE
#define BUSY 1

struct own_entry {
	_Atomic uintptr_t stack; /* 0: the entry is free; BUSY: it is being filled */
	_Atomic uintptr_t owner;
};

static struct own_entry first_stacks[16];
static struct chunks own_table = {
	.first = { .count = ARRAY_SIZE(first_stacks), .entries = first_stacks },
	.entry_size = sizeof(struct own_entry),
	.chunk_size = PAGE_SIZE,
};
static _Atomic uint64_t own_mapped;

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* At `address` if there is one, in place of what is there. */
static long own_map(uintptr_t address, size_t size, int protection, int flags)
{
	return raw_syscall(SYS_mmap, address, size, protection,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (address != 0 ? MAP_FIXED : 0) | flags, -1, 0);
}

static uintptr_t own_lower(uintptr_t stack)
{
	return stack + sizeof(struct own_stack) - libpatch_own_size - GUARD_SIZE;
}

/*
 * Below the program's stacks, if that can be had: a longjmp() of libc's with FORTIFY takes a jump to a lower stack
 * pointer for an error.
 */
static uintptr_t own_map_stack(void)
{
	const size_t size = libpatch_own_size + GUARD_SIZE;
	long lower = own_map(0, size, PROT_READ | PROT_WRITE, MAP_32BIT);

	if (lower < 0)
		lower = own_map(0, size, PROT_READ | PROT_WRITE, 0);
	if (lower < 0)
		return 0;
	if (own_map((uintptr_t)lower, GUARD_SIZE, PROT_NONE, 0) < 0) {
		raw_syscall(SYS_munmap, lower, size);
		return 0;
	}
	atomic_fetch_add(&own_mapped, size);
	return (uintptr_t)lower + size - sizeof(struct own_stack);
}

static void own_unmap_stack(uintptr_t stack)
{
	const size_t size = libpatch_own_size + GUARD_SIZE;

	raw_syscall(SYS_munmap, own_lower(stack), size);
	atomic_fetch_sub(&own_mapped, size);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* It is BUSY from now on. */
static bool own_take_free(void *entry, uintptr_t unused)
{
	uintptr_t none = 0;

	(void)unused;
	return atomic_compare_exchange_strong(&((struct own_entry *)entry)->stack, &none, BUSY);
}

static bool own_has_stack(void *entry, uintptr_t stack)
{
	return atomic_load(&((struct own_entry *)entry)->stack) == stack;
}

static bool own_is_known(uintptr_t stack)
{
	return chunks_find(&own_table, own_has_stack, stack) != NULL;
}

/* ---- spare stacks ----------------------------------------------------------------------------------------------- */

/* False: there are enough. */
static bool own_put_spare(uintptr_t stack)
{
	for (size_t i = 0; i < OWN_SPARES; ++i) {
		struct own_stack *none = NULL;

		if (__atomic_compare_exchange_n(&libpatch_own_spares[i], &none, (struct own_stack *)stack, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

static bool own_needs_spares(void)
{
	for (size_t i = 0; i < OWN_SPARES; ++i)
		if (__atomic_load_n(&libpatch_own_spares[i], __ATOMIC_RELAXED) == NULL)
			return true;
	return false;
}

static void own_set_patience(uint64_t patience)
{
	__atomic_store_n(&libpatch_own_patience, patience, __ATOMIC_RELAXED);
}

/* The thread of the entry, which is BUSY, is gone. What it has left on its stack goes, too. */
static void own_give_back(struct own_entry *entry)
{
	const uintptr_t stack = atomic_load(&entry->stack);

	if (raw_syscall(SYS_madvise, own_lower(stack) + GUARD_SIZE, libpatch_own_size, MADV_DONTNEED) == 0) {
		atomic_store(&entry->owner, 0);
		if (own_put_spare(stack))
			return;
	}
	own_unmap_stack(stack);
	atomic_store(&entry->owner, 0);
	atomic_store(&entry->stack, 0);
}

static bool own_claim(struct own_entry *entry, uintptr_t owner)
{
	return atomic_compare_exchange_strong(&entry->owner, &owner, BUSY);
}

/* False: no memory. */
static bool own_make_spare(void)
{
	struct own_entry *entry = chunks_take(&own_table, own_take_free, 0);
	uintptr_t stack = entry != NULL ? own_map_stack() : 0;

	if (entry == NULL)
		return false;
	atomic_store(&entry->stack, stack);
	if (stack == 0)
		return false;
	if (!own_put_spare(stack)) {
		own_unmap_stack(stack);
		atomic_store(&entry->stack, 0);
	}
	return true;
}

static bool own_fill_spares(void)
{
	while (own_needs_spares()) {
		if (!own_make_spare()) {
			own_set_patience(0);
			return false;
		}
		own_set_patience(PATIENCE);
	}
	return true;
}

bool own_stack_prepare(void)
{
	return own_fill_spares();
}

/* A thread that had the same storage is gone. */
void own_stack_adopt(void)
{
	struct own_stack *own = libpatch_hook_guard.own;
	const uintptr_t self = arch_thread_pointer();

	if (own->self == NULL || own->adopted != 0)
		return;
	own->adopted = 1;
	for_each_in_chunks(struct own_entry, entry, &own_table) {
		if (atomic_load(&entry->owner) == self && atomic_load(&entry->stack) != (uintptr_t)own &&
		    own_claim(entry, self))
			own_give_back(entry);
		if (atomic_load(&entry->stack) == (uintptr_t)own)
			atomic_store(&entry->owner, self);
	}
	own_fill_spares();
}

/* ---- threads that are gone -------------------------------------------------------------------------------------- */

static uintptr_t own_word_of(uintptr_t thread)
{
	return thread + ((uintptr_t)&libpatch_hook_guard.own - arch_thread_pointer());
}

/* The word may be a landing, for a moment: then nothing is known. */
static bool own_is_gone(uintptr_t thread, uintptr_t stack)
{
	uintptr_t self, own;
	int error;

	if (mem_read(thread, &self, sizeof(self), &error) != sizeof(self) ||
	    mem_read(own_word_of(thread), &own, sizeof(own), &error) != sizeof(own))
		return error == EFAULT;
	return self != thread || (own != stack && (own == (uintptr_t)&libpatch_own_none || own_is_known(own)));
}

void own_stack_collect(void)
{
	for_each_in_chunks(struct own_entry, entry, &own_table) {
		const uintptr_t owner = atomic_load(&entry->owner);

		if (owner > BUSY && own_is_gone(owner, atomic_load(&entry->stack)) && own_claim(entry, owner))
			own_give_back(entry);
	}
}

void own_stack_forget_others(void)
{
	for_each_in_chunks(struct own_entry, entry, &own_table) {
		const uintptr_t owner = atomic_load(&entry->owner);

		if (owner > BUSY && owner != arch_thread_pointer() && own_claim(entry, owner))
			own_give_back(entry);
	}
	/* Who was about to make them is gone, too. */
	if (atomic_load(&own_mapped) != 0)
		own_fill_spares();
}

/* ---- the calling thread's --------------------------------------------------------------------------------------- */

bool own_stack_is_own(uintptr_t address)
{
	const struct own_stack *own = libpatch_hook_guard.own;

	return own->self == own && own_stack_has(own, address);
}

uint64_t own_stack_bytes(void)
{
	return atomic_load(&own_mapped);
}

uint64_t own_stack_missed(void)
{
	return __atomic_load_n(&libpatch_own_missed, __ATOMIC_RELAXED);
}
