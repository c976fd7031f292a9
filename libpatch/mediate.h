/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls of the program that would make a trap fatal, or tell the program what is not so: made in its stead, with the
 * signals that libpatch owns kept out of masks and handlers. What the program reads back is what it set.
 */
#ifndef LIBPATCH_MEDIATE_H
#define LIBPATCH_MEDIATE_H

#include "arch/arch.h"
#include "base.h"

/* Is the call with this number one of them? */
bool mediate_concerns(long number);
/* An arch_instead_fn. Any thread, any state of its masks; async-signal-safe. */
bool mediate(struct arch_call *call);

/*
 * Bring what was set before under the same rule: handlers' masks, and what the calling thread blocks, also in the mask that it is
 * about to get back. Other threads that block owned signals are remembered, for mediate_blocking_thread().
 */
void mediate_adopt(uint64_t *mask);
/* Those of them that libc is just starting are waited for, a second at most. Takes the library lock now and then. */
void mediate_wait_for_libc(void);

/*
 * The end of it, with nothing mediated any more: handlers' masks and the calling thread's are for the kernel again. What other
 * threads believe to block they do not, until they set it again.
 */
void mediate_release(void);

/* Can what threads block be known, where there are any? */
bool mediate_can_look(void);
/*
 * A thread that blocks owned signals by means that are not mediated, or since before mediate_adopt(); 0: none is known. It
 * would be killed by a trap byte. MEDIATE_NOT_KNOWN: there may be one, as far as can be seen. With the library lock held.
 */
#define MEDIATE_NOT_KNOWN (-1)
int mediate_blocking_thread(void);
/* There is code that makes such calls and is not mediated: threads have to be looked at. */
void mediate_incomplete(void);

#endif
