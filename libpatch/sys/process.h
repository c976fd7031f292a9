/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which process this is: itself, the child of a fork, or a child that borrows its parent's memory. All functions are
 * async-signal-safe and take no lock.
 */
#ifndef LIBPATCH_SYS_PROCESS_H
#define LIBPATCH_SYS_PROCESS_H

#include "base/compiler.h"

#include <stdatomic.h>
#include <sys/types.h>

/* Once, before the others. */
void process_begin(void);

/* In the child of a fork: the process whose memory this is from now on. */
void process_forked(void);
/* Is this the child of a fork, in which process_forked() has not been called yet? */
bool process_is_new(void);

/* Words that are 0 in the child of any fork, however it was made, if the kernel has such memory (process_wipes()). */
struct process_own {
	_Atomic pid_t owner;          /* the process whose memory this is */
	_Atomic int lock;             /* the library lock */
	_Atomic int initialising;     /* a thread is in patch_init() */
	_Atomic int without_handlers; /* app_handlers.c */
} __attribute__((aligned(PAGE_SIZE)));
extern struct process_own libpatch_process_own;
bool process_wipes(void);

/*
 * Is this a child that runs in its parent's memory until it executes a program: vfork(), posix_spawn(),
 * clone(CLONE_VM)? What it does to its signals is its own, but what it writes to memory is not.
 */
bool process_is_borrowed(void);

#endif
