/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prefetching: a pass over many objects asks for the next ones while it deals with one.
 */
#ifndef LIBPATCH_BASE_PREFETCH_H
#define LIBPATCH_BASE_PREFETCH_H

#include "base/compiler.h"

/* The caller will soon read *object, all of it. The pointer may be invalid: a prefetch does not fault. */
#define FETCH(object) fetch(object, sizeof(*(object)))

static inline void fetch(const void *object, size_t size)
{
	for (size_t at = 0; at < size; at += 64)
		__builtin_prefetch((const uint8_t *)object + at);
}

#endif
