/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Thread-local storage, and whose it is.
 */
#ifndef LIBPATCH_SYS_TLS_H
#define LIBPATCH_SYS_TLS_H

#include "base/compiler.h"

/*
 * Is the address in static thread-local storage of the calling thread, where a variable has the same distance from the
 * thread pointer in every thread? Always false where libc is not glibc. Async-signal-safe.
 */
bool tls_is_static(uintptr_t variable);

/* By a thread of libc's, before the others. */
void tls_begin(void);

/*
 * Has libc made the storage of a thread that is about to start with this thread pointer? Other storage has no room for
 * variables of ours. Reads memory that may not be mapped; async-signal-safe.
 */
bool tls_is_libcs(uintptr_t thread);

/* Is the calling thread's? Where it is not, nothing of ours that is thread-local can be read or written. */
bool tls_is_own_libcs(void);

#endif
