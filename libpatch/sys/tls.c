/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which thread-local storage is static, by glibc's vector of the blocks of a thread. Only the calling thread's own is
 * read.
 */
#include "sys/tls.h"

#include "arch/thread_pointer.h"

#include <features.h>

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
