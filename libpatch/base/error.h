/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Per-thread chain of errors: the funnel through which every failure leaves the library.
 *
 * Messages and origins are string literals. Async-signal-safe. A thread for whose chain there is no memory
 * (base/thread_block.h) has codes and no messages.
 */
#ifndef LIBPATCH_BASE_ERROR_H
#define LIBPATCH_BASE_ERROR_H

#include "base/compiler.h"
#include "base/thread_block.h"

#include <libpatch/patch.h>

/*
 * Begin a public call that can fail: the thread's errors are those of an earlier call, and last until this one raises
 * its first.
 */
void error_begin(void);

/* Append an error and return `code`. `irritant` is a literal or outlives the call that failed; NULL for none. */
patch_status error_raise(patch_status code, const char *origin, const char *message, const char *irritant);
/* The same, about a name that need not outlive the call; the end of a long one is left out. */
patch_status error_raise_name(patch_status code, const char *origin, const char *message, const char *name);
/* The same, about an address. */
patch_status error_raise_at(patch_status code, const char *origin, const char *message, uintptr_t address);
/* The same, about the errno of a system call (positive or negative). */
patch_status error_raise_sys(patch_status code, const char *origin, const char *message, long error);

/* Why something is refused: the caller raises the error. */
struct refusal {
	const char *message; /* a literal */
	uintptr_t irritant;  /* the address that it is about */
};

/* How many errors this call has raised; and drop all of them but the first `count`. */
size_t error_count(void);
void error_truncate(size_t count);

/*
 * The errors of a thread, put aside while code of the host runs that may call the library, or while something is tried
 * whose failure is not the call's.
 */
struct error_chain {
	size_t count;
	bool earlier;
	struct error_record records[ERROR_CHAIN];
};
void error_save(struct error_chain *chain);
void error_restore(const struct error_chain *chain);

patch_status error_last(struct patch_error *out);

#endif
