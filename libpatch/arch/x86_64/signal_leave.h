/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What signal_thunks.S looks at where a handler has returned, in structures of the layers above.
 */
#ifndef LIBPATCH_ARCH_X86_64_SIGNAL_LEAVE_H
#define LIBPATCH_ARCH_X86_64_SIGNAL_LEAVE_H

/* In struct signal_belief. */
#define SIGNAL_BELIEF_BLOCKED 0
#define SIGNAL_BELIEF_CHILD 8
/* Of struct signal_held: the first word is its state, of 4 bytes. */
#define SIGNAL_HELD_SIZE 40
/* SIGTRAP and SIGILL in a mask. */
#define SIGNAL_LEAVE_OWNED 0x18
/* arch_signal_words(), uc_link and uc_sigmask of the kernel's struct ucontext. */
#define SIGNAL_CONTEXT_LINK 8
#define SIGNAL_CONTEXT_WORDS 232
#define SIGNAL_CONTEXT_MASK 296

#endif
