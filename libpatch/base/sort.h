/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef LIBPATCH_BASE_SORT_H
#define LIBPATCH_BASE_SORT_H

#include "base/compiler.h"

/*
 * Structures that begin with their address, a uintptr_t, in ascending order. `size`: of one, a multiple of 8. In place,
 * without recursion, not stable. They mostly come sorted, up or down: that takes one pass.
 */
void sort_by_address(void *items, size_t count, size_t size);

#endif
