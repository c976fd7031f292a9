/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What signal_thunks.S looks at where a handler has returned, in structures of the layers above.
 */
#ifndef LIBPATCH_ARCH_X86_64_SIGNAL_LEAVE_H
#define LIBPATCH_ARCH_X86_64_SIGNAL_LEAVE_H

/* In struct signal_belief. */
#define SIGNAL_BELIEF_BLOCKED 0
#define SIGNAL_BELIEF_CHILD 8
/* Of struct signal_held: its first 4 bytes are 0 when there is nothing. */
#define SIGNAL_HELD_SIZE 40
/* SIGTRAP and SIGILL in a mask. */
#define SIGNAL_LEAVE_OWNED 0x18
/* arch_signal_words(), uc_link and uc_sigmask of the kernel's struct ucontext. */
#define SIGNAL_CONTEXT_LINK 8
#define SIGNAL_CONTEXT_WORDS 232
#define SIGNAL_CONTEXT_STORAGE 264 /* the word ARCH_SIGNAL_STORAGE */
#define SIGNAL_CONTEXT_MASK 296
/*
 * struct signal_storage, and what `known` says: that the rest is set, and that the address of a thread's storage can be
 * asked for. The head of libc's, which lies at such addresses.
 */
#define SIGNAL_STORAGE_GUARDS 8
#define SIGNAL_STORAGE_KNOWN 1
#define SIGNAL_STORAGE_ADDRESS 2
#define SIGNAL_STORAGE_THREAD 0
#define SIGNAL_STORAGE_SELF 16
#define SIGNAL_STORAGE_STACK_GUARD 40
#define SIGNAL_STORAGE_POINTER_GUARD 48
#define SIGNAL_STORAGE_LOWEST 0x10000
#define SIGNAL_STORAGE_ALIGNMENT 64

#endif
