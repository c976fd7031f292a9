/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads may be about to install a handler, or to block signals, by system calls that were not mediated yet, or are
 * not at all. Library lock held.
 */
#ifndef LIBPATCH_INTERPOSE_CALL_AUDIT_H
#define LIBPATCH_INTERPOSE_CALL_AUDIT_H

#include "base/compiler.h"

/* System calls are mediated from now on: whoever is there may be in a call that is not. */
void call_audit_begin(void);
/* Is every such call over that was not mediated? Once it is true, it stays so. */
bool call_audit_is_over(void);

#endif
