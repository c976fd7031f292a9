/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forking with the library lock held.
 */
#ifndef LIBPATCH_RUNTIME_FORK_H
#define LIBPATCH_RUNTIME_FORK_H

#include "base/compiler.h"

/*
 * A child finds the lock free, however it was made (process.h). But it must also find the text and all else whole, so
 * that its parent holds the lock over the fork: over the system call only. A handler of pthread_atfork(3) would hold it
 * while libc, and handlers of the program, take locks of theirs, malloc()'s among them, which a thread may have that
 * waits for this one, be it in a signal handler.
 */
typedef long lock_fork_fn(void *data);
/* `fork` returns 0 in the child, as this does. */
long lock_over_fork(lock_fork_fn *fork, void *data);

enum lock_forks {
	/* there is nothing to protect: a fork waits for whoever is in, but does not hold the lock */
	LOCK_FORKS_ARE_FREE,
	/* some call of libc's could not be patched: handlers of pthread_atfork(3) hold it after all */
	LOCK_FORKS_BY_HANDLER,
	/* so do they where lock_fork_is_filtered() */
	LOCK_FORKS_BY_CALL,
};
void lock_set_forks(enum lock_forks now);
/* Has a thread a filter of system calls? In patch_init(). */
void lock_look_for_filters(void);
/* The program is about to set one. */
void lock_note_filter(void);
/*
 * May a filter raise SIGSYS for a fork, and the program's handler come in the middle of it? Then lock_over_fork() must
 * not be called: the handler would run under the lock, and the call would begin anew.
 */
bool lock_fork_is_filtered(void);
/* Install the handlers. Once. 0 or an error number. */
int lock_handle_fork(void);

#endif
