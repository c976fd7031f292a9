/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers of which some bits are given: those under `mask` are those of `value`, which has no others. */
#ifndef LIBPATCH_CODE_MASKED_H
#define LIBPATCH_CODE_MASKED_H

#include "base/compiler.h"

/* The smallest such number >= x. False: there is none, and *out means nothing. */
bool masked_next(uint32_t x, uint32_t mask, uint32_t value, uint32_t *out);
/* The greatest such number <= x. */
bool masked_previous(uint32_t x, uint32_t mask, uint32_t value, uint32_t *out);

#endif
