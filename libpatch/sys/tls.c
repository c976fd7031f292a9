/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which thread-local storage is static, by glibc's vector of the blocks of a thread. Only the calling thread's own is
 * read, and the head of that of a thread that does not run yet.
 */
#include "sys/tls.h"

#include "arch/signal_entry.h"
#include "arch/thread_pointer.h"
#include "arch/x86_64/signal_leave.h"
#include "sys/mem_read.h"

#include <features.h>
#include <sys/auxv.h>

/* An entry of glibc's vector. Blocks without `to_free` are in static storage, below the thread pointer. */
struct tls_entry {
	uintptr_t block;
	void *to_free;
};

bool tls_is_static(uintptr_t variable)
{
#ifdef __GLIBC__
	const uintptr_t self = arch_thread_pointer();
	const struct tls_entry *vector = ((const struct tls_entry *const *)self)[1];
	uintptr_t lowest = UINTPTR_MAX;

	/* The vector's length is in front of it. An entry without a block is 0, or above all addresses. */
	for (size_t i = 1; i <= vector[-1].block; ++i)
		if (vector[i].to_free == NULL && vector[i].block != 0 && vector[i].block < self)
			lowest = MIN(lowest, vector[i].block);
	return variable >= lowest && variable < self;
#else
	(void)variable;
	return false;
#endif
}

/* The beginning of glibc's tcbhead_t (sysdeps/x86_64/nptl/tls.h). Both guards are the same in all threads. */
struct tls_head {
	uintptr_t thread;
	uintptr_t vector;
	uintptr_t self;
	uintptr_t flags;
	uintptr_t info;
	uintptr_t stack_guard;
	uintptr_t pointer_guard;
};

struct signal_storage libpatch_signal_storage;

_Static_assert(SIGNAL_STORAGE_THREAD == offsetof(struct tls_head, thread) &&
	       SIGNAL_STORAGE_SELF == offsetof(struct tls_head, self) &&
	       SIGNAL_STORAGE_STACK_GUARD == offsetof(struct tls_head, stack_guard) &&
	       SIGNAL_STORAGE_POINTER_GUARD == offsetof(struct tls_head, pointer_guard),
	       "signal_leave.h");

#ifdef __GLIBC__
/* In AT_HWCAP2: the instruction that tells the thread pointer may be used. */
#define HWCAP2_FSGSBASE 2

static bool tls_is_head(const struct tls_head *head)
{
	return head->thread == head->self && head->stack_guard == libpatch_signal_storage.stack_guard &&
	       head->pointer_guard == libpatch_signal_storage.pointer_guard;
}
#endif

void tls_begin(void)
{
#ifdef __GLIBC__
	const struct tls_head *head = (const struct tls_head *)arch_thread_pointer();

	libpatch_signal_storage = (struct signal_storage){
		.known = SIGNAL_STORAGE_KNOWN |
			 (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE ? SIGNAL_STORAGE_ADDRESS : 0),
		.stack_guard = head->stack_guard,
		.pointer_guard = head->pointer_guard,
	};
#endif
}

bool tls_is_libcs(uintptr_t thread)
{
	struct tls_head head;
	int error;

	if (mem_read(thread, &head, sizeof(head), &error) != sizeof(head))
		return false;
	/* The first word of its storage is its own address (psABI, TLS). */
#ifdef __GLIBC__
	return head.thread == thread && tls_is_head(&head);
#else
	return head.thread == thread;
#endif
}

bool tls_is_own_libcs(void)
{
#ifdef __GLIBC__
	struct tls_head head;
	uintptr_t address;

	/* None, or none of libc's: it may not be there to be read. */
	if (libpatch_signal_storage.known & SIGNAL_STORAGE_ADDRESS) {
		__asm__ volatile("rdfsbase %0" : "=r"(address));
		if (address < SIGNAL_STORAGE_LOWEST || address % SIGNAL_STORAGE_ALIGNMENT != 0)
			return false;
	}
	/* What its first word holds is not known to be its address. volatile: not read before that is asked. */
	__asm__ volatile("mov %%fs:%c4, %0\n\tmov %%fs:%c5, %1\n\tmov %%fs:%c6, %2\n\tmov %%fs:%c7, %3"
			 : "=&r"(head.thread), "=&r"(head.self), "=&r"(head.stack_guard), "=&r"(head.pointer_guard)
			 : "i"(offsetof(struct tls_head, thread)), "i"(offsetof(struct tls_head, self)),
			   "i"(offsetof(struct tls_head, stack_guard)), "i"(offsetof(struct tls_head, pointer_guard)));
	return tls_is_head(&head);
#else
	return true;
#endif
}
