/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for stacks of threads' own (arch/own_stack.h), and whose they are.
 *
 * All stacks are in a table, of which only more is added. An entry names its stack and the thread that has it:
 *
 *   owner 0               the stack is spare, or somebody is about to take it, or is the thread's first hook
 *   owner BUSY            somebody gives it back
 *   else                  the address of the thread's storage
 *
 * A hook takes a stack without the table, by an exchange with libpatch_own_spares[], and has the owner noted when it
 * runs. A thread that has ended is found like those of the table of threads: its storage is not there, or is another
 * thread's, which has another stack or none. Its stack is spare again, or unmapped.
 */
#ifndef LIBPATCH_RUNTIME_OWN_STACK_H
#define LIBPATCH_RUNTIME_OWN_STACK_H

#include "arch/own_stack.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

/* There are spare stacks from now on. False: no memory. */
bool own_stack_prepare(void) REQUIRES(library_lock);

/* In a thread's first hook with a stack of its own, on that stack: no libc, no lock, general registers only. */
void own_stack_adopt(void);

/* Give back those of threads that are gone. */
void own_stack_collect(void) REQUIRES(library_lock);
/* In a child of fork(), by the thread that is left. */
void own_stack_forget_others(void);

/* Is it in the calling thread's own stack? */
bool own_stack_is_own(uintptr_t address);

/* Bytes mapped for stacks. */
uint64_t own_stack_bytes(void);
/* Hooks that were passed over for want of a stack, at least. */
uint64_t own_stack_missed(void);

#endif
