/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Generated code that no thread can reach yet is collected here and written many pieces at a time: thousands of
 * trampolines become a few writes. Called with the library lock held.
 */
#ifndef LIBPATCH_CODE_STAGING_H
#define LIBPATCH_CODE_STAGING_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/*
 * Add a piece of code, which is copied and waits until staging_flush(), or until there is much of it
 * (staging_make_room()). No thread may be able to reach `address` before staging_flush() has succeeded. False: out of
 * memory. staging_drop() takes back the piece at `address`, if it was not flushed.
 */
bool staging_add(uintptr_t address, const void *bytes, uint32_t length) REQUIRES(library_lock);
void staging_drop(uintptr_t address) REQUIRES(library_lock);
/* So much will be staged next: what is staged is flushed where that does not fit beside it. */
void staging_make_room(uint32_t length) REQUIRES(library_lock);
/*
 * Returns 0 or errno; after a failure all pieces stay staged. With nothing staged, between text_begin() and text_end()
 * only.
 */
int staging_flush(void) REQUIRES(library_lock);
/*
 * Nothing was ever written to this page of private, anonymous memory. A hint: staging_flush() writes to it before it
 * reads it. Read first, it would be the kernel's page of zeros, and be replaced when it is written to, about which all
 * other processors that run the program are told one by one (mm/memory.c, do_wp_page()).
 */
void staging_fresh_page(uintptr_t page) REQUIRES(library_lock);

#endif
