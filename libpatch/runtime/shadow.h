/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which functions were entered with which stack pointer: a word for each word of stack that functions with
 * PROBE_RETURN run on, for the whole process, because a stack pointer is one thread's at a time.
 *
 *   the hook at a function's entry   word(rsp) = record->pair;  calls the procedure
 *   the hook at one of its exits     word(rsp) - record->pair < 2^32 ?  word(rsp) = 0;  calls the procedure
 *
 * At an exit the frame is gone, and the stack pointer is what it was at the entry. A pair is an even number that stands
 * for the function, times 2^32, and how often patches were opened there (patch/place.h): so a patch gets no second call
 * without a first one since it was opened. Even: the difference from a pair of the next function is 2^32 at least,
 * however often each was opened. Nothing is put on the program's stack, and nothing has to be taken back:
 * what longjmp(), an exception or the end of a thread leaves is overwritten by the next entry with that stack pointer.
 *
 * Words are in leaves, a leaf for a page, found by a hash; a thread keeps the leaf that it used last. Leaves are made
 * in hooks, and stay.
 */
#ifndef LIBPATCH_RUNTIME_SHADOW_H
#define LIBPATCH_RUNTIME_SHADOW_H

#include "arch/upcalls.h"

/* A thread's before it has one. */
extern const struct shadow_leaf libpatch_shadow_none;

/* The word of the stack pointer; NULL: there is no memory for it. Wherever a hook may be. */
uint64_t *shadow_word(uintptr_t stack_pointer);

#endif
