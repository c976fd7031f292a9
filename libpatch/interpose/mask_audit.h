/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What threads did by system calls that were not mediated yet, or are not at all: they may block owned signals, and they may be
 * about to install a handler. With the library lock held, but for earlier_wait_for_libc().
 */
#ifndef LIBPATCH_EARLIER_H
#define LIBPATCH_EARLIER_H

#include "base/base.h"

/* Can what threads block be known, where there are any? */
bool earlier_can_look(void);
/* There is code that makes such calls and is not mediated: threads have to be looked at each time. */
void earlier_incomplete(void);

/* System calls are mediated from now on: remember who else is there. */
void earlier_look(void);

/*
 * A thread that blocks owned signals; 0: none is known. It would be killed by a trap byte. EARLIER_NOT_KNOWN: there may be one,
 * as far as can be seen.
 */
#define EARLIER_NOT_KNOWN (-1)
int earlier_blocking_thread(void);
/* Those of them that libc is just starting are waited for, a second at most. Takes the library lock now and then. */
void earlier_wait_for_libc(void);

/* Is every call that installs a handler and was not mediated over? True is sure, and for ever. */
bool earlier_is_over(void);

#endif
