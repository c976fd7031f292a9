/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers of threads, each once, in ascending order: as many as there are. Library lock held.
 */
#ifndef LIBPATCH_SYS_TID_SET_H
#define LIBPATCH_SYS_TID_SET_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <sys/types.h>

/* All zero: it is empty. */
struct tid_set {
	pid_t *tids;
	size_t count;
	size_t room;
};

/* False: out of memory. */
bool tid_set_add(struct tid_set *set, pid_t tid) REQUIRES(library_lock);
bool tid_set_has(const struct tid_set *set, pid_t tid);

#endif
