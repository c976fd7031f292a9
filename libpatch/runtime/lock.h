/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library lock: one mutex around everything that plans, builds or changes patches.
 *
 * While it is held (I9):
 *  - no handler of this thread can ask for it: every signal is blocked but the owned ones, or no other has a handler
 *    (app_handlers.h);
 *  - hooks of this thread are passed over, so no probe of a function that the library calls can ask for it.
 * It is held for a bounded time and never across anything that waits for a probe, or for a lock of somebody else's.
 * Nothing nests in it. So it may be asked for by who holds any lock of the program, of libc or of libgcc.
 */
#ifndef LIBPATCH_RUNTIME_LOCK_H
#define LIBPATCH_RUNTIME_LOCK_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct lock_scope {
	bool blocked; /* signals, by the lock: then, the thread's mask */
	uint64_t mask;
	uintptr_t guard;
};

/*
 * False when this thread holds the lock already: the caller is a handler of an owned signal that interrupted the
 * library, and must give up. Or when what the lock protects is a copy that was made in the middle of a change:
 * lock_refusal() says which.
 */
bool lock_acquire(struct lock_scope *scope) TRY_ACQUIRE(true, library_lock);
const char *lock_refusal(void);
void lock_release(const struct lock_scope *scope) RELEASE(library_lock);
/*
 * The same where code may have been generated: unwind descriptions are registered (unwinders_register()), by a call
 * of libgcc.
 */
void lock_release_and_register_unwind(const struct lock_scope *scope) RELEASE(library_lock);

/* This thread holds the lock, or is about to, or was just now. */
bool lock_is_inside(void);

#endif