/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads may block owned signals by system calls that were not mediated yet, or are not at all. Library lock held, but
 * for mask_audit_wait().
 */
#ifndef LIBPATCH_INTERPOSE_MASK_AUDIT_H
#define LIBPATCH_INTERPOSE_MASK_AUDIT_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Can what threads block be known, where there are any? */
bool mask_audit_can_look(void);
/* May threads be adopted? From before the first look on; else they are only found. */
void mask_audit_set_adopts(bool may);
bool mask_audit_adopts(void);
/*
 * There is code that makes such calls and is not mediated: threads have to be looked at each time. Async-signal-safe,
 * without the lock.
 */
void mask_audit_incomplete(void);
/*
 * There is code that makes such calls, and is to be mediated, but its text could not be changed yet: no commit may put
 * trap bytes into the text. Async-signal-safe, without the lock.
 */
void mask_audit_set_pending(bool is);
bool mask_audit_is_pending(void);
/* Is there neither? */
bool mask_audit_is_complete(void);
/* Is it known that no thread blocks owned signals? Async-signal-safe, without the lock. */
bool mask_audit_is_settled(void);

/*
 * System calls are mediated from now on. Threads that block owned signals in the kernel, or may as soon as a call in
 * which they wait is over, are adopted: they only believe so from now on. Who else is there is remembered.
 */
void mask_audit_begin(void) REQUIRES(library_lock);

/*
 * A thread that blocks owned signals and cannot be adopted, or may be about to block them by a call that is not
 * mediated (call_audit.h); 0: none is known. It would be killed by a trap byte.
 * MASK_AUDIT_UNKNOWN: there may be one, as far as can be seen. MASK_AUDIT_PENDING: there may be one at any time.
 */
#define MASK_AUDIT_UNKNOWN (-1)
#define MASK_AUDIT_PENDING (-2)
int mask_audit_blocking_thread(void) REQUIRES(library_lock);
/*
 * Before the first commit, once, a second at most: those of them that libc is just starting are waited for, and those
 * that may have been interrupted in front of a call that was not mediated yet, until they run. Takes the library lock
 * now and then.
 */
void mask_audit_wait(void);
/* Has it been waited, or is there nothing to wait for? */
bool mask_audit_is_finished(void);

#endif
