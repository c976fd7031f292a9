/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library lock: one mutex around everything that plans, builds or changes patches.
 *
 * While it is held (I9):
 *  - no handler of this thread can ask for it: every signal is blocked but the owned ones, or no other has a handler
 *    (handlers.h);
 *  - hooks of this thread are passed over, so no probe of a function that the library calls can ask for it.
 * It is held for a bounded time and never across anything that waits for a probe. Nothing nests in it.
 */
#ifndef LIBPATCH_RUNTIME_LOCK_H
#define LIBPATCH_RUNTIME_LOCK_H

#include "base/compiler.h"

struct lock_scope {
	bool blocked; /* signals, by the lock: then, the thread's mask */
	uint64_t mask;
	uintptr_t guard;
};

/*
 * False when this thread holds it already: the caller is a handler of an owned signal that interrupted the library, and
 * must give up. Or when what it is to protect is a copy that was made in the middle of a change: lock_refusal() says which.
 */
bool lock_acquire(struct lock_scope *scope);
const char *lock_refusal(void);
/* Unwind descriptions made under the lock are registered now (arena_register_unwind()). */
void lock_release(const struct lock_scope *scope);

/*
 * A child finds the lock free, however it was made (process.h). But it must also find the text and all else whole, so that its
 * parent holds the lock over the fork: over the system call only. A handler of pthread_atfork(3) would hold it while libc, and
 * handlers of the program, take locks of theirs, malloc()'s among them, which a thread may have that waits for this one, be it in
 * a signal handler.
 */
typedef long lock_fork_fn(void *data);
/* `fork` returns 0 in the child, as this does. */
long lock_over_fork(lock_fork_fn *fork, void *data);

enum lock_forks {
	LOCK_FORKS_ARE_FREE,   /* there is nothing to protect: a fork waits for whoever is in, but does not hold the lock */
	LOCK_FORKS_BY_HANDLER, /* some call of libc's could not be patched: handlers of pthread_atfork(3) hold it after all */
	LOCK_FORKS_BY_CALL,
};
void lock_set_forks(enum lock_forks now);
/* Install the handlers. Once. 0 or an error number. */
int lock_handle_fork(void);

#endif
