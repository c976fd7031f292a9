/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Per-thread chain of errors: the funnel through which every failure leaves the library.
 *
 * Messages and origins are string literals; nothing is allocated. Async-signal-safe.
 */
#ifndef LIBPATCH_ERROR_H
#define LIBPATCH_ERROR_H

#include "base.h"

/* Errors kept of one call; the first ones, because they are the causes. */
#define ERROR_CHAIN 4

/* Forget the thread's errors: at the start of every public call that can fail. */
void error_reset(void);

/* Append an error and return `code`. `irritant` is a literal or outlives the call that failed; NULL for none. */
patch_status error_raise(patch_status code, const char *origin, const char *message, const char *irritant);
/* The same, about an address. */
patch_status error_raise_at(patch_status code, const char *origin, const char *message, uintptr_t address);
/* The same, about the errno of a system call (positive or negative). */
patch_status error_raise_sys(patch_status code, const char *origin, const char *message, long error);

/* How many errors the thread has; drop those behind the first `count`. */
size_t error_count(void);
void error_truncate(size_t count);

patch_status error_last(struct patch_error *out);

#endif
