/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Forms: what describes the code of blocks (arch/canonical.h), once for all blocks whose code is alike. Nothing in a
 * form depends on where its block lies, so that most blocks of a library's functions have one of a few hundred.
 *
 * A form is stretches up to ARCH_STRETCH_END, and behind them the hooks. It is never changed nor freed: handlers read
 * it at any time (pc_map.h), and the next patch of its kind needs it again.
 */
#ifndef LIBPATCH_CODE_FORMS_H
#define LIBPATCH_CODE_FORMS_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* The form that has these bytes, a multiple of 4; NULL: out of memory. Who finds it in a block finds it complete. */
const void *forms_share(const void *bytes, size_t size) REQUIRES(library_lock);

#endif
