/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One pass over a function: where its instructions start and where its direct branches lead. The last function scanned is
 * kept. Called with the library lock held.
 */
#ifndef LIBPATCH_SCAN_H
#define LIBPATCH_SCAN_H

#include "base.h"

/* Original bytes under what the library wrote, for decoding through patched code: how many of them are at address. */
typedef size_t scan_original_fn(uintptr_t address, const uint8_t **bytes);

/*
 * Scan [lower, upper), readable memory. False when out of memory, or when the function is larger than 4 MiB: then nothing
 * is known of it.
 */
bool scan_function(uintptr_t lower, uintptr_t upper, scan_original_fn *original);

/* Of the function scanned last. */
bool scan_is_start(uintptr_t address);
bool scan_is_target(uintptr_t address);

/* The text changed for other reasons than patches: forget. */
void scan_forget(void);

#endif
