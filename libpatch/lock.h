/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library lock: one mutex around everything that plans, builds or changes patches.
 *
 * While it is held (I9):
 *  - every signal is blocked but the owned ones, so no handler of this thread can ask for it;
 *  - hooks of this thread are passed over, so no probe of a function that the library calls can ask for it.
 * It is held for a bounded time and never across anything that waits for a probe. Nothing nests in it.
 */
#ifndef LIBPATCH_LOCK_H
#define LIBPATCH_LOCK_H

#include "base.h"

struct lock_scope {
	uint64_t mask;
	uintptr_t guard;
};

/*
 * False when this thread holds it already: the caller is a handler of an owned signal that interrupted the library, and
 * must give up.
 */
bool lock_acquire(struct lock_scope *scope);
/* Unwind descriptions made under the lock are registered now (arena_register_unwind()). */
void lock_release(const struct lock_scope *scope);

/* Take the lock over every fork(), so that the child finds it free and the text whole. Once. */
int lock_handle_fork(void);

#endif
