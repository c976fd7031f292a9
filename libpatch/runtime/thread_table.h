/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of threads that ran a hook. hook_threads.c enters threads,
 * thread_scan.c reads them and takes them out; all by atomics.
 */
#ifndef LIBPATCH_RUNTIME_THREAD_TABLE_H
#define LIBPATCH_RUNTIME_THREAD_TABLE_H

#include "base/chunks.h"
#include "base/compiler.h"

#include <stdatomic.h>

/*
 * `thread`: the address of the thread's storage (fs base), which its first word holds, too; 0: free; the lowest bit is
 * set while the scanner makes sure that the thread is gone. `era`: of the process that the thread registered in.
 */
struct thread_entry {
	_Atomic uintptr_t thread;
	_Atomic uint64_t era;
};
#define THREAD_DOUBTED ((uintptr_t)1)

extern struct chunks libpatch_threads;

/*
 * Tells a child of fork(), by whatever means, from its parent, and not from a child that shares its memory: the kernel
 * wipes it in the former (MADV_WIPEONFORK). 0 there until the child has looked.
 */
union thread_era {
	_Atomic uint64_t era;
	uint8_t page[PAGE_SIZE];
};
extern union thread_era libpatch_thread_era;

/* Hooks passed over for want of memory. */
extern _Atomic uint64_t libpatch_hook_threads_missed;

#endif
