/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a function's code says of an address: does an instruction start there, do direct branches lead there? The last
 * function asked about is kept. Called with the library lock held.
 *
 * Whole functions are decoded only when the answer needs it. Whether branches lead to an address is mostly known
 * without: no byte of the function begins a displacement that would.
 */
#ifndef LIBPATCH_PLAN_SCAN_H
#define LIBPATCH_PLAN_SCAN_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* The answers below are for the function [lower, upper), readable memory that is not empty; patched or not. */
void scan_set(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/*
 * Decode it all. False when out of memory, or when the function is larger than 4 MiB: then nothing is known of it, and
 * what is asked below is answered with no.
 */
bool scan_function(void) REQUIRES(library_lock);

bool scan_is_start(uintptr_t address) REQUIRES(library_lock);
bool scan_is_target(uintptr_t address) REQUIRES(library_lock);

/* The text changed for other reasons than patches: forget. */
void scan_forget(void) REQUIRES(library_lock);

#endif
